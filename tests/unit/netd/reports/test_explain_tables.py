"""Explanations agree with the tables: with what elements put into their sets, in their order."""

from collections import defaultdict
from ipaddress import ip_address, ip_network

from explaining import (
    DEFAULT,
    HOST,
    ICMP,
    ME,
    OTHER,
    PYPI,
    PYPI6,
    SIBLING,
    STRANGER,
    TCP,
    UDP,
    pin,
    world,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nexus_netd.model import (
    EgressRule,
    Link,
    Mode,
    Protocol,
)
from nexus_netd.reports.explain import explain
from nexus_netd.rules import elements, policy
from nexus_netd.rules.ruleset import number, pack

# The tables, as a plain evaluation of the sets that `elements` fill.

ADDRESSES = [
    PYPI, PYPI6, HOST,
    *map(ip_address, ("10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.77", "10.8.0.1", "10.8.0.4",
                      "fd00:9::1", "fd00:9::3", "fd00:9::77", "169.254.169.254", "fe80::a9fe:a9fe",
                      "100.100.100.200", "192.0.2.1", "2001:db8:1::1", "10.1.2.3")),
]  # fmt: skip
CIDRS = [
    "0.0.0.0/0", "::/0", "192.0.2.0/24", "192.0.2.80/32", "10.0.0.0/8", "169.254.169.254/32",
    "169.254.0.0/16", "2001:db8::/32", "fe80::/10", "100.64.0.0/10",
]  # fmt: skip
NAMES = ["pypi.org", "else.example"]


@st.composite
def rules(draw):
    protocol = draw(st.sampled_from(Protocol))
    ports = None
    if protocol in (TCP, UDP) and draw(st.booleans()):
        ports = draw(st.sampled_from([(53, 53), (1, 1024), (443, 8080)]))
    match draw(st.sampled_from(["cidr", "domain", "anywhere"])):
        case "cidr":
            cidr = ip_network(draw(st.sampled_from(CIDRS)))
            return EgressRule(draw(st.booleans()), cidr, "", protocol, ports)
        case "domain":
            return EgressRule(True, None, draw(st.sampled_from(NAMES)), protocol, ports)
    return EgressRule(draw(st.booleans()), None, "", protocol, ports)


modes = st.sampled_from([Mode.OPEN, Mode.NONE]) | st.lists(rules(), max_size=5)
links = st.lists(
    st.builds(
        Link,
        st.sampled_from([ME, SIBLING]),
        st.just(STRANGER) | st.just(SIBLING),
        st.just(TCP),
        st.sampled_from([(), (53,), (443, 8080)]),
    )
    | st.builds(Link, st.just(ME), st.sampled_from([SIBLING, STRANGER]), st.sampled_from(Protocol)),
    max_size=3,
)
pinned = st.lists(
    st.builds(pin, st.sampled_from(ADDRESSES), st.integers(0, 4), st.sampled_from(NAMES)),
    max_size=4,
)


def sets(facts):
    """Return what is in the sets of the tables, by the set's name."""
    view, found = facts.view, defaultdict(set)
    everything = []
    for spec in view.networks.values():
        everything += elements.of_network(spec, [spec.bridge])
    for guest in view.guests.values():
        everything += elements.of_guest(guest)
        for link in view.links_from(guest.vm_id):
            everything += elements.of_link(link, guest, view.guests[link.to_vm_id])
    for one in facts.pins:
        mine = facts.guest.ipv4 if one.address.version == 4 else facts.guest.ipv6
        if mine:
            everything.append(elements.of_pin(mine, one.address, one.slot, 60))
    for element in everything:
        found[element.set].add(element.key)
    return found


def by_the_tables(facts, address, protocol, port):
    """Return what the tables do with the first packet of a flow."""
    found, version = sets(facts), address.version
    mine = facts.guest.ipv4 if version == 4 else facts.guest.ipv6
    if mine is None or not any(key.endswith(mine.packed) for key in found[f"guests{version}"]):
        return "refused on the bridge"
    wire = policy.wire(protocol, version)
    service = (wire, port.to_bytes(2, "big"))
    bridge = facts.guest.bridge.encode().ljust(16, b"\0")
    to_gateway = pack(bridge, address.packed) in found[f"gateways{version}"]
    is_gateway = any(key.endswith(address.packed) for key in found[f"gateways{version}"])
    holder = facts.view.at_address(address)
    subnets = [spec.subnet.network for spec in facts.view.networks.values()]
    subnets += [spec.ipv6 for spec in facts.view.networks.values() if spec.ipv6]
    if not is_gateway and not holder and any(address in one for one in subnets):
        return "unreachable"
    if facts.connections[mine] >= facts.guest.limits.connections:
        return "refuse-connections"
    if is_gateway or address in facts.local:
        if to_gateway and protocol in (TCP, UDP) and port == 53:
            return "accept"
        if to_gateway and protocol is ICMP:
            return "accept"
        key = pack(address.packed, *service)
        return "accept" if to_gateway and key in found[f"host_ports{version}"] else "refuse-host"
    if holder:
        way = (mine.packed, address.packed)
        if pack(*way, *service) in found[f"links{version}"]:
            return "accept"
        if pack(*way, wire) in found[f"links{version}_all"]:
            return "accept"
        return "refuse-other-guest"

    def is_pinned(slot):
        return pack(mine.packed, address.packed) + number(slot) in found[f"pins{version}"]

    decision = policy.decide(facts.guest.policy, address, wire[0], port, is_pinned)
    return "accept" if decision.allowed else f"refuse-{decision.rule}"


@settings(max_examples=300, deadline=None)
@given(
    mode=modes,
    links=links,
    pins=pinned,
    connections=st.sampled_from([0, 99, 100]),
    ipv6=st.booleans(),
    address=st.sampled_from(ADDRESSES),
    flow=st.sampled_from([(TCP, 53), (TCP, 443), (TCP, 8080), (UDP, 53), (UDP, 514), (ICMP, 0)]),
)
@example([EgressRule(domain="pypi.org")], [], [pin()], 0, True, PYPI, (TCP, 443))
def test_explanations_agree_with_the_tables(mode, links, pins, connections, ipv6, address, flow):
    facts = world(
        mode, spec=DEFAULT if ipv6 else OTHER, links=links, pins=pins, connections=connections
    )
    found = explain(facts, address, *flow)
    by_tables = by_the_tables(facts, address, *flow)
    assert found.allowed == (by_tables == "accept")
    match by_tables:
        case "accept":
            pass
        case "refused on the bridge":
            assert found.rule == "no address"
        case "unreachable":
            assert found.rule == "foreign network"
        case _:
            assert f"refuse-{found.rule.replace(' ', '-')}" == by_tables.replace(" ", "-")
    if found.rule.startswith("rule "):
        slot = int(found.rule.removeprefix("rule "))
        assert found.egress_rule == facts.guest.policy.rules[slot]
        assert found.allowed == found.egress_rule.allow
    else:
        assert found.egress_rule is None
    assert found.allowed or ";" in found.why  # the way out


@settings(max_examples=200, deadline=None)
@given(mode=modes, pins=pinned, name=st.sampled_from(NAMES), port=st.sampled_from([53, 443, 8080]))
def test_a_name_is_allowed_if_one_of_its_addresses_is(mode, pins, name, port):
    facts = world(mode, pins=pins)
    found = explain(facts, name, TCP, port)
    addresses = {one.address for one in pins if one.domain == name}
    if found.pins:
        assert {one.address for one in found.pins} == addresses
        assert found.allowed == any(explain(facts, one, TCP, port).allowed for one in addresses)
