import os
import pwd

import pytest

from nexus_netd.settings import Settings, dns_servers, owner_uid
from nexus_rpc.settings import SettingsError, load


def test_defaults_are_those_of_the_documentation(tmp_path):
    settings = load(Settings, tmp_path / "missing.toml")
    assert (settings.bridge, settings.subnet, settings.mtu) == ("nexbr0", "172.16.0.0/12", 1500)
    assert dns_servers(settings) == ("8.8.8.8", "1.1.1.1")
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
        ('dns = ["::1"]', "dns"),
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


def test_owner_by_number_and_by_name():
    assert owner_uid(Settings(tap_owner="1234")) == 1234
    assert owner_uid(Settings(tap_owner=pwd.getpwuid(os.getuid()).pw_name)) == os.getuid()
    with pytest.raises(SettingsError, match="nobody-of-that-name"):
        owner_uid(Settings(tap_owner="nobody-of-that-name"))


def test_dns_from_host_skips_the_stub_and_what_guests_cannot_reach(tmp_path):
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("# a stub\nnameserver 127.0.0.53\nnameserver ::1\noptions edns0\nnameserver\n")
    real.write_text("".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 8)))
    found = dns_servers(Settings(dns=("from-host",)), (stub, real))
    assert found == tuple(f"192.0.2.{n}" for n in range(1, 6))


def test_dns_from_a_host_without_any(tmp_path):
    with pytest.raises(SettingsError, match="from-host"):
        dns_servers(Settings(dns=("from-host",)), (tmp_path / "missing",))
