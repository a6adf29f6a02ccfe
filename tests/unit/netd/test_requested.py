"""Bad input gives an error that names field and value; good input is read as it was meant."""

from dataclasses import replace
from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.netd.v1 import netd_pb2 as pb
from nexus_netd import checks, convert, requested
from nexus_netd.model import EgressRule, HostPort, Limits, Link, Mode, NetworkSpec, Policy, Protocol
from nexus_netd.subnet import Subnet
from nexus_rpc.errors import InvalidArgument
from nexus_rpc.ids import new_vm_id

ONE, TWO = new_vm_id(), new_vm_id()


def rules(*some):
    return pb.EgressPolicy(mode=pb.EGRESS_MODE_RULES, rules=some)


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (pb.EgressRule(cidr="192.0.2.1/24"), "cidr"),
        (pb.EgressRule(cidr="192.0.2.0/33"), "cidr"),
        (pb.EgressRule(cidr=""), "cidr"),
        (pb.EgressRule(cidr="everything"), "cidr"),
        (pb.EgressRule(cidr="2001:db8::1/32"), "cidr"),
        (pb.EgressRule(cidr="2001:db8::%a b/32"), "cidr"),
        (pb.EgressRule(domain=""), "domain"),
        (pb.EgressRule(domain="*"), "domain"),
        (pb.EgressRule(domain="*."), "domain"),
        (pb.EgressRule(domain="a.*.org"), "domain"),
        (pb.EgressRule(domain="*.*.org"), "domain"),
        (pb.EgressRule(domain="*pypi.org"), "domain"),
        (pb.EgressRule(domain="pypi.org."), "domain"),
        (pb.EgressRule(domain=".pypi.org"), "domain"),
        (pb.EgressRule(domain="pypi..org"), "domain"),
        (pb.EgressRule(domain="-pypi.org"), "domain"),
        (pb.EgressRule(domain="pypi.org/simple"), "domain"),
        (pb.EgressRule(domain="pypi.org:443"), "domain"),
        (pb.EgressRule(domain="pypi.org\n"), "domain"),
        (pb.EgressRule(domain="192.0.2.1"), "domain"),
        (pb.EgressRule(domain="bücher.example"), "domain"),
        (pb.EgressRule(domain=f"{'a' * 64}.org"), "domain"),
        (pb.EgressRule(domain=".".join(["a" * 50] * 6)), "domain"),
        (pb.EgressRule(domain="pypi.org", action=pb.ACTION_DENY), "domain"),
        (pb.EgressRule(first_port=80), "first_port"),
        (pb.EgressRule(first_port=80, protocol=pb.PROTOCOL_ICMP), "first_port"),
        (pb.EgressRule(last_port=80, protocol=pb.PROTOCOL_TCP), "first_port"),
        (pb.EgressRule(first_port=65_536, protocol=pb.PROTOCOL_TCP), "first_port"),
        (pb.EgressRule(first_port=80, last_port=65_536, protocol=pb.PROTOCOL_TCP), "last_port"),
        (pb.EgressRule(first_port=80, last_port=79, protocol=pb.PROTOCOL_TCP), "last_port"),
        (pb.EgressRule(protocol=17), "protocol"),
        (pb.EgressRule(action=9), "action"),
    ],
)
def test_a_bad_rule_is_named_by_its_place(rule, field):
    with pytest.raises(InvalidArgument) as caught:
        requested.policy("policy", rules(pb.EgressRule(), rule))
    assert caught.value.metadata == {"field": f"policy.rules[1].{field}"}
    assert caught.value.reason == "INVALID_FIELD"


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (rules(*[pb.EgressRule()] * 257), "policy.rules"),
        (rules(*[pb.EgressRule()] * 10_000), "policy.rules"),
        (pb.EgressPolicy(mode=9), "policy.mode"),
        (pb.EgressPolicy(rules=[pb.EgressRule()]), "policy.mode"),
        (pb.EgressPolicy(mode=pb.EGRESS_MODE_OPEN, rules=[pb.EgressRule()]), "policy.rules"),
    ],
)
def test_a_bad_policy_is_refused(policy, field):
    with pytest.raises(InvalidArgument) as caught:
        requested.policy("policy", policy)
    assert caught.value.metadata == {"field": field}


def test_a_name_beyond_ascii_is_told_of_punycode():
    with pytest.raises(InvalidArgument, match="punycode"):
        checks.domain("domain", "bücher.example", pattern=True)


def test_a_cidr_with_host_bits_is_told_what_contains_it():
    with pytest.raises(InvalidArgument, match=r"192\.0\.2\.0/24 contains it"):
        checks.cidr("cidr", "192.0.2.77/24")


def test_a_policy_is_read_as_it_is_meant():
    message = rules(
        pb.EgressRule(domain="*.PyPI.org", protocol=pb.PROTOCOL_TCP, first_port=443),
        pb.EgressRule(cidr="192.0.2.1", protocol=pb.PROTOCOL_UDP, first_port=1, last_port=9),
        pb.EgressRule(action=pb.ACTION_DENY, cidr="2001:db8::/32", protocol=pb.PROTOCOL_ICMP),
    )
    assert requested.policy("policy", message) == Policy(
        Mode.RULES,
        (
            EgressRule(domain="*.pypi.org", protocol=Protocol.TCP, ports=(443, 443)),
            EgressRule(cidr=ip_network("192.0.2.1/32"), protocol=Protocol.UDP, ports=(1, 9)),
            EgressRule(False, ip_network("2001:db8::/32"), protocol=Protocol.ICMP),
        ),
    )
    assert requested.policy("policy", pb.EgressPolicy()) is None


CIDRS = st.sampled_from(["0.0.0.0/0", "192.0.2.0/24", "::/0", "2001:db8::1/128"]).map(ip_network)
RULES = st.one_of(
    st.builds(EgressRule, st.booleans(), CIDRS, protocol=st.sampled_from(Protocol)),
    st.builds(
        EgressRule,
        domain=st.sampled_from(["pypi.org", "*.pypi.org"]),
        protocol=st.sampled_from([Protocol.TCP, Protocol.UDP]),
        ports=st.tuples(st.integers(1, 100), st.integers(100, 65_535)),
    ),
)


@given(st.lists(RULES, max_size=5))
def test_what_is_told_is_read_back_the_same(some):
    policy = Policy(Mode.RULES, tuple(some))
    assert requested.policy("policy", convert.policy(policy)) == policy


def network(**changes):
    fields = {"name": "blue", "subnet": "10.1.0.0/24"} | changes
    return pb.Network(**fields)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (network(name=""), "network.name"),
        (network(name="Blue"), "network.name"),
        (network(name="1st"), "network.name"),
        (network(name="a" * 32), "network.name"),
        (network(bridge="thirteen-char"), "network.bridge"),
        (network(bridge="a/b"), "network.bridge"),
        (network(bridge=".."), "network.bridge"),
        (network(bridge="nexus9"), "network.bridge"),
        (network(bridge="all"), "network.bridge"),
        (network(bridge="default"), "network.bridge"),
        (network(subnet="10.1.0.0/24", ipv6_subnet="fd00:1::%a/64"), "network.ipv6_subnet"),
        (network(subnet=""), "network.subnet"),
        (network(subnet="10.1.0.0/31"), "network.subnet"),
        (network(subnet="10.0.0.0/7"), "network.subnet"),
        (network(subnet="10.1.0.1/24"), "network.subnet"),
        (network(subnet="fd00::/64"), "network.subnet"),
        (network(subnet="224.0.0.0/24"), "network.subnet"),
        (network(subnet="127.0.0.0/24"), "network.subnet"),
        (network(subnet="169.254.0.0/24"), "network.subnet"),
        (network(ipv6_subnet="fd00::/63"), "network.ipv6_subnet"),
        (network(ipv6_subnet="fd00::1/64"), "network.ipv6_subnet"),
        (network(ipv6_subnet="fc00::/64"), "network.ipv6_subnet"),
        (network(ipv6_subnet="2001:db8::/64"), "network.ipv6_subnet"),
        (network(ipv6_subnet="10.0.0.0/8"), "network.ipv6_subnet"),
        (network(dns=["8.8.8.8", "from-host"]), "network.dns[1]"),
        (network(dns=["dns.example"]), "network.dns[0]"),
        (network(dns=["0.0.0.0"]), "network.dns[0]"),
        (network(dns=["1.1.1.1"] * 6), "network.dns"),
        (network(search=["a"] * 7), "network.search"),
        (network(search=["*.example"]), "network.search[0]"),
        (network(mtu=1_279), "network.mtu"),
        (network(mtu=65_522), "network.mtu"),
        (
            network(default_policy=rules(pb.EgressRule(cidr="x"))),
            "network.default_policy.rules[0].cidr",
        ),
        (
            network(default_limits=pb.Limits(egress_bytes=2**63)),
            "network.default_limits.egress_bytes",
        ),
        (network(host_ports=[pb.HostPort(port=0)]), "network.host_ports[0].port"),
        (network(host_ports=[pb.HostPort(port=1, protocol=3)]), "network.host_ports[0].protocol"),
        (network(host_ports=[pb.HostPort(port=1)] * 65), "network.host_ports"),
    ],
)
def test_a_bad_network_is_refused(message, field):
    with pytest.raises(InvalidArgument) as caught:
        requested.network(message)
    assert caught.value.metadata == {"field": field}


def test_a_network_takes_defaults():
    assert requested.network(network()) == NetworkSpec(
        "blue", "", Subnet.parse("10.1.0.0/24"), dns=requested.DNS
    )


SPEC = NetworkSpec(
    "blue",
    "br-blue",
    Subnet.parse("10.1.0.0/24"),
    dns=("9.9.9.9",),
    search=("corp",),
    default_policy=Policy(Mode.NONE),
    default_limits=Limits(egress_bytes=1_000),
    host_ports=(HostPort(Protocol.TCP, 80),),
)


def test_what_is_told_of_a_network_makes_the_same():
    message = convert.network(SPEC, 7)
    assert requested.network(message) == SPEC


def test_an_update_changes_what_it_names_and_clears_what_it_says():
    message = pb.Network(name="blue", dns=["1.1.1.1"])
    assert requested.changed(SPEC, message, []) == replace(SPEC, dns=("1.1.1.1",))
    cleared = requested.changed(SPEC, message, ["dns", "search", "default_policy", "host_ports"])
    assert cleared == NetworkSpec(
        "blue",
        "br-blue",
        SPEC.subnet,
        dns=("1.1.1.1",),
        default_limits=SPEC.default_limits,
    )
    assert requested.changed(SPEC, pb.Network(), ["default_limits"]).default_limits == Limits()


@pytest.mark.parametrize(
    ("message", "clear", "field"),
    [
        (pb.Network(), ["subnet"], "clear[0]"),
        (pb.Network(subnet="10.2.0.0/24"), [], "network.subnet"),
        (pb.Network(bridge="br0"), [], "network.bridge"),
        (pb.Network(mtu=9_000), [], "network.mtu"),
        (pb.Network(ipv6_subnet="fd00::/64"), [], "network.ipv6_subnet"),
    ],
)
def test_an_update_of_what_stays_is_refused(message, clear, field):
    with pytest.raises(InvalidArgument) as caught:
        requested.changed(SPEC, message, clear)
    assert caught.value.metadata == {"field": field}


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.Link(from_vm_id=ONE, to_vm_id=ONE), "link.to_vm_id"),
        (pb.Link(from_vm_id="x", to_vm_id=ONE), "link.from_vm_id"),
        (pb.Link(from_vm_id=ONE, to_vm_id=TWO, ports=[80]), "link.ports"),
        (pb.Link(from_vm_id=ONE, to_vm_id=TWO, protocol=3, ports=[80]), "link.ports"),
        (pb.Link(from_vm_id=ONE, to_vm_id=TWO, protocol=1, ports=[80, 0]), "link.ports[1]"),
        (pb.Link(from_vm_id=ONE, to_vm_id=TWO, protocol=1, ports=[1] * 65), "link.ports"),
        (pb.Link(from_vm_id=ONE, to_vm_id=TWO, protocol=7), "link.protocol"),
    ],
)
def test_a_bad_link_is_refused(message, field):
    with pytest.raises(InvalidArgument) as caught:
        requested.link(message)
    assert caught.value.metadata == {"field": field}


def test_the_order_of_a_link_s_ports_means_nothing():
    message = pb.Link(from_vm_id=ONE, to_vm_id=TWO, protocol=pb.PROTOCOL_TCP, ports=[443, 80, 80])
    assert requested.link(message) == Link(ONE, TWO, Protocol.TCP, (80, 443))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.Publication(vm_id=ONE), "publication.host_port"),
        (pb.Publication(vm_id=ONE, host_port=65_536), "publication.host_port"),
        (pb.Publication(vm_id=ONE, host_port=80, guest_port=65_536), "publication.guest_port"),
        (pb.Publication(vm_id=ONE, host_port=80, host_ip="localhost"), "publication.host_ip"),
        (pb.Publication(vm_id=ONE, host_port=80, host_ip="fe80::1%1"), "publication.host_ip"),
        (pb.Publication(vm_id=ONE, host_port=80, protocol=3), "publication.protocol"),
        (pb.Publication(host_port=80), "publication.vm_id"),
    ],
)
def test_a_bad_publication_is_refused(message, field):
    with pytest.raises(InvalidArgument) as caught:
        requested.publication(message)
    assert caught.value.metadata == {"field": field}


def test_a_publication_takes_defaults():
    found = requested.publication(pb.Publication(vm_id=ONE, host_port=8080))
    assert (found.host_ip, found.guest_port) == (IPv4Address("127.0.0.1"), 8080)
    assert found.protocol is Protocol.TCP


def test_rates_have_an_end():
    requested.limits("limits", pb.Limits(egress_bytes=10**10, ingress_packets=10**8))
    for message in (pb.Limits(ingress_bytes=10**10 + 1), pb.Limits(egress_packets=10**8 + 1)):
        with pytest.raises(InvalidArgument):
            requested.limits("limits", message)
