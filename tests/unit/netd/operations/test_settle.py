from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from netd_world import ULA, attach, other

from nexus_netd.kernel import Flow
from nexus_netd.model import EgressRule, HostPort, Link, Mode, Policy, Protocol, Publication
from nexus_netd.operations.settle import allowed

CLIENT = "192.0.2.9"


@pytest.fixture
async def view(start):
    netd = await start(ipv6=ULA, host_ports=(HostPort(Protocol.TCP, 8080),))
    await netd.create_network(other())
    policy = Policy(Mode.RULES, (EgressRule(domain="pypi.org", protocol=Protocol.TCP),))
    one, two = await attach(netd, policy=policy), await attach(netd, network="blue")
    await netd.link(Link(one.vm_id, two.vm_id, Protocol.TCP, (80,)))
    await netd.link(Link(one.vm_id, two.vm_id, Protocol.ICMP))
    await netd.publish(Publication(one.vm_id, IPv4Address("0.0.0.0"), 9000, 90))
    await netd.publish(Publication(one.vm_id, IPv6Address("::"), 9001, 90, Protocol.UDP))
    return netd.view()


ONE, ONE6, TWO = "172.16.0.2", "fd6e:6578:7573::2", "10.1.0.2"


@pytest.mark.parametrize(
    ("source", "destination", "protocol", "port", "passes"),
    [
        (ONE, TWO, 6, 80, True),
        (ONE, TWO, 1, 0, True),
        (ONE, TWO, 6, 81, False),
        (ONE, TWO, 17, 80, False),
        (TWO, ONE, 6, 80, False),
        (ONE, "172.16.0.1", 6, 8080, True),
        (ONE, "172.16.0.1", 17, 53, True),
        (ONE, "172.16.0.1", 1, 0, True),
        (ONE, "172.16.0.1", 6, 22, False),
        (ONE, "10.1.0.1", 6, 8080, False),
        (ONE, "10.1.0.1", 17, 53, False),
        (ONE6, "fd6e:6578:7573::1", 58, 0, True),
        (ONE6, "fd6e:6578:7573::1", 6, 22, False),
        (TWO, CLIENT, 6, 443, True),
        (ONE, CLIENT, 6, 443, False),
        (ONE, "151.101.0.223", 6, 443, True),
        (ONE, "151.101.0.223", 17, 443, False),
        (CLIENT, ONE, 6, 22, True),  # the host itself
        (CLIENT, "198.51.100.1", 6, 9000, True),
        (CLIENT, "198.51.100.1", 17, 9000, False),
        (CLIENT, "198.51.100.1", 6, 9002, False),
        ("2001:db8::1", "2001:db8::2", 17, 9001, True),
        (CLIENT, "198.51.100.1", 17, 9001, False),
    ],
)
async def test_what_may_go_on(view, source, destination, protocol, port, passes):
    flow = Flow(ip_address(source), ip_address(destination), protocol, port, b"")

    def given(vm_id, address, slot):
        return (str(address), slot) == ("151.101.0.223", 0)

    assert allowed(view, flow, given) is passes


@pytest.mark.parametrize("masked", [True, False])
async def test_what_went_out_without_our_rules_is_not_allowed(view, masked):
    """An open policy allows the host's other addresses too, but the rules do not."""
    flow = Flow(ip_address(TWO), ip_address(CLIENT), 6, 22, b"", masked=masked)
    assert allowed(view, flow, lambda *_: False) is masked
