import pytest

from nexus_netd.model import HostPort, Limits, Mode, NetworkSpec, Policy, Protocol
from nexus_netd.settings import Settings
from nexus_netd.subnet import Subnet
from nexus_rpc.settings import SettingsError, load


def test_defaults_are_those_of_the_documentation(tmp_path):
    settings = load(Settings, tmp_path / "missing.toml")
    assert (settings.bridge, settings.subnet, settings.mtu) == ("nexbr0", "172.16.0.0/12", 1500)
    assert settings.network() == NetworkSpec(
        "default",
        "nexbr0",
        Subnet.parse("172.16.0.0/12"),
        dns=("8.8.8.8", "1.1.1.1"),
        search=("nexus",),
        default_limits=Limits(connections=4_096),
    )
    assert str(settings.server.runtime_dir) == "/run/nexus/netd"


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('subnet = "172.16.0.0/31"', "subnet"),
        ('subnet = "172.16.0.1/12"', "subnet"),
        ('bridge = "a-name-too-long-for-linux"', "bridge"),
        ('bridge = "../x"', "bridge"),
        ('bridge = ".."', "bridge"),
        ("mtu = 1279", "mtu"),
        ("mtu = 70000", "mtu"),
        ("dns = []", "dns"),
        ('dns = ["1.1.1.1", "from-host"]', "dns"),
        ('dns = ["dns.example"]', "dns"),
        ('bridge = "thirteen-char"', "bridge"),
        ('bridge = "nexus0"', "bridge"),
        ('ipv6_subnet = "2001:db8::/64"', "ipv6_subnet"),
        ('search = ["*.corp"]', "search"),
        ('policy = "rules"', "policy"),
        ('host_ports = ["icmp/1"]', "host_ports"),
        ('host_ports = ["tcp/0"]', "host_ports"),
        ('host_ports = ["8080"]', "host_ports"),
        ("connections = 0", "connections"),
        ('dns = ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4", "1.1.1.5", "1.1.1.6"]', "dns"),
        ("bridges = 1", "bridges"),
    ],
)
def test_a_slip_is_named(tmp_path, line, named):
    file = tmp_path / "netd.toml"
    file.write_text(line)
    with pytest.raises(SettingsError, match=named) as caught:
        load(Settings, file)
    assert str(file) in str(caught.value)


def test_a_network_with_all_of_its_own(tmp_path):
    file = tmp_path / "netd.toml"
    file.write_text(
        """
        ipv6_subnet = "fd6e:6578:7573::/64"
        dns = ["from-host"]
        policy = "none"
        host_ports = ["udp/514", "tcp/8080"]
        connections = 100
        """
    )
    network = load(Settings, file).network()
    assert str(network.ipv6) == "fd6e:6578:7573::/64"
    assert (network.dns, network.default_policy) == (("from-host",), Policy(Mode.NONE))
    assert network.host_ports == (HostPort(Protocol.TCP, 8080), HostPort(Protocol.UDP, 514))
    assert network.default_limits.connections == 100
