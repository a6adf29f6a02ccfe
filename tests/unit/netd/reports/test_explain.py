"""Explanations agree with the tables: with what elements put into their sets, in their order."""

from collections import defaultdict
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nexus_netd.model import (
    EgressRule,
    Guest,
    HostPort,
    Limits,
    Link,
    Mode,
    NetworkSpec,
    Pin,
    Policy,
    Port,
    Protocol,
)
from nexus_netd.reports.explain import Facts, concerned, explain
from nexus_netd.rules import elements, policy
from nexus_netd.rules.ruleset import number, pack
from nexus_netd.subnet import Subnet
from nexus_netd.view import View

TCP, UDP, ICMP = Protocol.TCP, Protocol.UDP, Protocol.ICMP
DEFAULT = NetworkSpec(
    "default",
    "nexbr0",
    Subnet(IPv4Network("10.9.0.0/16")),
    IPv6Network("fd00:9::/64"),
    host_ports=(HostPort(TCP, 8080),),
)
OTHER = NetworkSpec(
    "other", "nexbr1", Subnet(IPv4Network("10.8.0.0/24")), host_ports=(HostPort(UDP, 514),)
)
ME, SIBLING, STRANGER = "me", "sibling", "stranger"
HOST = ip_address("198.51.100.1")
PYPI, PYPI6 = ip_address("192.0.2.80"), ip_address("2001:db8::80")


def put(view, vm, spec, host, rules_or_mode=Mode.OPEN):
    mine = (
        Policy(rules_or_mode)
        if isinstance(rules_or_mode, Mode)
        else Policy(Mode.RULES, tuple(rules_or_mode))
    )
    guest = Guest(
        vm,
        f"nexus{host}",
        spec.bridge,
        f"02:fc:00:00:00:{host:02x}",
        1500,
        spec.subnet.interface(host).ip,
        spec.gateway,
        spec.ipv6[host] if spec.ipv6 else None,
        spec.ipv6_gateway,
        mine,
        3,
        Limits(connections=100),
    )
    port = Port(
        host, vm, spec.name, host, spec.bridge, guest.tap, guest.mac, 0.0, vm_name=f"{vm}-name"
    )
    view.put_port(port, guest)
    return guest


def world(rules_or_mode=Mode.OPEN, *, spec=DEFAULT, links=(), pins=(), connections=0, name=""):
    view = View()
    view.put_network(DEFAULT)
    view.put_network(OTHER)
    guest = put(view, ME, spec, 2, rules_or_mode)
    put(view, SIBLING, DEFAULT, 3)
    put(view, STRANGER, OTHER, 4)
    for link in links:
        view.put_link(link)
    counted = dict.fromkeys(guest.addresses, connections)
    return Facts(view, guest, pins, (HOST,), counted, lambda _: name)


def pin(address=PYPI, slot=0, domain="pypi.org"):
    return Pin(ME, domain, address, slot, 1e10)


def outcome(*arguments):
    found = explain(*arguments)
    assert found.why
    return found.allowed, found.rule


@pytest.mark.parametrize(
    ("destination", "protocol", "port", "allowed", "rule"),
    [
        ("192.0.2.1", TCP, 443, True, "open"),
        ("2001:db8::1", UDP, 53, True, "open"),
        ("169.254.169.254", TCP, 80, False, "metadata"),
        ("fd00:ec2::254", TCP, 80, False, "metadata"),
        ("fe80::1", ICMP, 0, False, "metadata"),
        ("10.9.0.1", UDP, 53, True, "dns"),
        ("fd00:9::1", TCP, 53, True, "dns"),
        ("10.9.0.1", ICMP, 0, True, "ping"),
        ("10.9.0.1", TCP, 8080, True, "host port"),
        ("10.9.0.1", UDP, 8080, False, "host"),
        ("10.9.0.1", TCP, 22, False, "host"),
        ("10.8.0.1", UDP, 514, False, "host"),
        ("10.8.0.1", UDP, 53, False, "host"),
        ("10.8.0.1", ICMP, 0, False, "host"),
        (str(HOST), TCP, 22, False, "host"),
        (str(HOST), ICMP, 0, False, "host"),
        (str(HOST), UDP, 53, False, "host"),
        ("10.9.0.3", TCP, 22, False, "other guest"),
        ("fd00:9::3", TCP, 22, False, "other guest"),
        ("10.8.0.4", TCP, 22, False, "other guest"),
        ("10.9.0.2", TCP, 22, False, "other guest"),
        ("10.9.0.99", TCP, 22, False, "foreign network"),
        ("10.9.255.255", UDP, 9, False, "foreign network"),
        ("10.8.0.9", TCP, 22, False, "foreign network"),
        ("fd00:9::99", TCP, 22, False, "foreign network"),
        ("224.0.0.251", UDP, 5353, False, "no address"),
        ("255.255.255.255", UDP, 67, False, "no address"),
        ("127.0.0.1", TCP, 22, False, "no address"),
        ("0.0.0.0", TCP, 22, False, "no address"),
        ("240.0.0.1", TCP, 22, False, "no address"),
        ("ff02::1", ICMP, 0, False, "no address"),
        ("::1", TCP, 22, False, "no address"),
    ],
)
def test_where_an_open_policy_leads(destination, protocol, port, allowed, rule):
    assert outcome(world(), ip_address(destination), protocol, port) == (allowed, rule)


def test_without_ipv6_nothing_of_it_is_reached():
    facts = world(spec=OTHER)
    for destination in ("2001:db8::1", "fd00:9::1", "fd00:9::3"):
        assert outcome(facts, ip_address(destination), TCP, 53) == (False, "no address")


def test_policy_none_refuses_metadata_and_all_else_but_the_host():
    facts = world(Mode.NONE)
    assert outcome(facts, ip_address("169.254.169.254"), TCP, 80) == (False, "policy none")
    assert outcome(facts, PYPI, TCP, 80) == (False, "policy none")
    assert outcome(facts, ip_address("10.9.0.1"), UDP, 53) == (True, "dns")
    assert outcome(facts, "pypi.org", TCP, 443) == (False, "policy none")


def test_the_number_of_connections_comes_before_all_but_routes():
    full = world(connections=100)
    for destination in ("10.9.0.1", "10.9.0.3", "192.0.2.1", "169.254.169.254", str(HOST)):
        assert outcome(full, ip_address(destination), TCP, 53) == (False, "connections")
    assert outcome(full, ip_address("10.9.0.99"), TCP, 53) == (False, "foreign network")
    assert outcome(world(connections=99), PYPI, TCP, 53) == (True, "open")


def test_a_rule_is_named_and_shown():
    rules = [
        EgressRule(False, ip_network("192.0.2.0/25"), protocol=TCP, ports=(1, 1024)),
        EgressRule(domain="*.pypi.org", protocol=TCP, ports=(443, 443)),
    ]
    facts = world(rules, pins=[pin(ip_address("192.0.2.200"), 1, "files.pypi.org")])
    found = explain(facts, PYPI, TCP, 80)
    assert (found.allowed, found.rule, found.egress_rule) == (False, "rule 0", rules[0])
    assert "refused by rule 0: deny 192.0.2.0/25 tcp/1-1024" in found.why
    found = explain(facts, ip_address("192.0.2.200"), TCP, 443)
    assert (found.allowed, found.rule, found.egress_rule) == (True, "rule 1", rules[1])
    assert "given as files.pypi.org, is allowed by rule 1: allow *.pypi.org tcp/443" in found.why
    assert outcome(facts, ip_address("192.0.2.200"), TCP, 80) == (False, "no rule")


def test_an_address_whose_pin_has_expired_is_told_with_its_name():
    rules = [EgressRule(domain="pypi.org", protocol=TCP, ports=(443, 443))]
    expired = explain(world(rules, name="pypi.org"), PYPI, TCP, 443)
    assert (expired.allowed, expired.rule) == (False, "no rule")
    assert "given as pypi.org" in expired.why
    assert "look the name up again" in expired.why
    other_port = explain(world(rules, name="pypi.org", pins=[pin()]), PYPI, TCP, 80)
    assert "for this port and protocol" in other_port.why
    assert "look the name up" not in other_port.why


@pytest.mark.parametrize(
    ("link", "passing"),
    [
        (Link(ME, SIBLING), {(TCP, 22), (TCP, 80), (UDP, 22), (ICMP, 0)}),
        (Link(ME, SIBLING, TCP), {(TCP, 22), (TCP, 80)}),
        (Link(ME, SIBLING, TCP, (22, 23)), {(TCP, 22)}),
        (Link(ME, SIBLING, ICMP), {(ICMP, 0)}),
        (Link(SIBLING, ME), set()),
        (Link(ME, STRANGER), set()),
    ],
)
def test_links(link, passing):
    facts = world(Mode.NONE, links=[link])
    for destination in ("10.9.0.3", "fd00:9::3", "sibling-name.nexus"):
        for flow in ((TCP, 22), (TCP, 80), (UDP, 22), (ICMP, 0)):
            target = destination if "name" in destination else ip_address(destination)
            allowed = flow in passing
            rule = "link" if allowed else "other guest"
            assert outcome(facts, target, *flow) == (allowed, rule)


def test_names_of_vms():
    facts = world(links=[Link(ME, SIBLING)])
    assert outcome(facts, "sibling-name.nexus", TCP, 22) == (True, "link")
    for name in ("stranger-name.nexus", "nobody.nexus", ".nexus"):
        assert outcome(facts, name, TCP, 22) == (False, "other guest")
        assert "create a link" in explain(facts, name, TCP, 22).why
    assert "stays within the VM" in explain(facts, "me-name.nexus", TCP, 22).why


def test_a_name_that_the_policy_does_not_know():
    rules = [EgressRule(domain="pypi.org"), EgressRule(cidr=IPv4Network("192.0.2.0/24"))]
    for name in ("evil.example", "files.pypi.org"):
        found = explain(world(rules), name, TCP, 443)
        assert (found.allowed, found.rule) == (False, "no rule")
        assert f"the resolver refuses {name}" in found.why
        assert "add a rule with the domain" in found.why


def test_a_name_that_was_given():
    rules = [EgressRule(False, ip_network("2001:db8::/32")), EgressRule(domain="pypi.org")]
    pins = [pin(PYPI6, 1), pin(PYPI, 1), pin(HOST, 1, "else.example")]
    found = explain(world(rules, pins=pins), "pypi.org", TCP, 443)
    assert (found.allowed, found.rule, found.egress_rule) == (True, "rule 1", rules[1])
    assert found.pins == tuple(pins[:2])
    assert "but 2001:db8::80 is refused by rule 0" in found.why
    only_refused = explain(world(rules, pins=pins[:1]), "pypi.org", TCP, 443)
    assert (only_refused.allowed, only_refused.rule) == (False, "rule 0")


def test_a_name_that_stands_for_the_host():
    rules = [EgressRule(domain="host.example")]
    facts = world(rules, pins=[pin(HOST, 0, "host.example")])
    assert outcome(facts, "host.example", TCP, 443) == (False, "host")
    assert set(concerned(facts.pins, "host.example")) == {HOST}


@pytest.mark.parametrize(
    ("rules", "protocol", "port", "allowed", "rule", "words"),
    [
        (Mode.OPEN, TCP, 443, True, "open", "every name"),
        ([EgressRule(domain="pypi.org")], TCP, 443, True, "rule 0", "no address yet"),
        (
            [
                EgressRule(False, ip_network("10.0.0.0/8")),
                EgressRule(domain="*.org"),
                EgressRule(domain="pypi.org"),
            ],
            TCP,
            443,
            True,
            "rule 1",
            "rule 0 decides on",
        ),
        (
            [EgressRule(domain="pypi.org", protocol=TCP, ports=(443, 443))],
            UDP,
            443,
            False,
            "no rule",
            "for this port and protocol",
        ),
        (
            [EgressRule(domain="pypi.org", protocol=TCP, ports=(443, 443))],
            TCP,
            80,
            False,
            "no rule",
            "for this port and protocol",
        ),
        (
            [EgressRule(False, protocol=UDP), EgressRule()],
            UDP,
            53,
            False,
            "rule 0",
            "deny anywhere",
        ),
        ([EgressRule(False, protocol=UDP), EgressRule()], TCP, 53, True, "rule 1", "anywhere"),
        ([EgressRule(domain="x.org"), EgressRule()], TCP, 53, True, "rule 1", "allow anywhere"),
    ],
)
def test_a_name_that_was_not_given_yet(rules, protocol, port, allowed, rule, words):
    found = explain(world(rules), "pypi.org", protocol, port)
    assert (found.allowed, found.rule, found.pins) == (allowed, rule, ())
    assert words in found.why


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
