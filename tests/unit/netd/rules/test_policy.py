"""The plain model of a policy, and that the compiled rules decide the same."""

import struct
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rule_machine import Machine, Packet

from nexus_netd.model import EgressRule, Guest, Limits, Mode, Policy, Protocol
from nexus_netd.rules import elements, firewall, policy
from nexus_netd.rules.policy import Decision
from nexus_netd.rules.reasons import REASONS, of

GUEST4, GUEST6 = ip_address("172.16.0.2"), ip_address("fd6e::2")
TCP, UDP, ICMP, ICMPV6, SCTP = 6, 17, 1, 58, 132
_NUMBER = 7

PLACES = [
    "0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "198.51.100.0/25", "169.0.0.0/8",
    "169.254.0.0/16", "169.254.169.254/32", "100.100.100.200/32", "168.63.129.16/32",
    "::/0", "2001:db8::/32", "2001:db8::1/128", "fd00::/8", "fd00:ec2::/32", "fd00:ec2::254/128",
    "fe80::/10", "fe80::/64",
]  # fmt: skip
TARGETS = [
    "10.1.2.3", "10.1.9.9", "10.200.0.1", "198.51.100.1", "198.51.100.200", "169.254.169.254",
    "169.254.0.1", "169.1.1.1", "100.100.100.200", "168.63.129.16", "8.8.8.8", "2001:db8::1",
    "2001:db8::2", "fd00:ec2::254", "fd00:ec2::1", "fd12::1", "fe80::a9fe:a9fe", "2606::1",
]  # fmt: skip
PORTS = [0, 1, 22, 53, 80, 81, 443, 8_080, 65_535]


def destinations():
    anywhere4 = st.ip_addresses(v=4)
    anywhere6 = st.ip_addresses(v=6)
    return st.one_of(st.sampled_from(TARGETS).map(ip_address), anywhere4, anywhere6)


@st.composite
def egress_rules(draw):
    protocol = draw(st.sampled_from(list(Protocol)))
    ports = None
    if protocol in (Protocol.TCP, Protocol.UDP) and draw(st.booleans()):
        ports = tuple(sorted((draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS)))))
    where = draw(st.sampled_from(["cidr", "domain", "anywhere"]))
    cidr = ip_network(draw(st.sampled_from(PLACES))) if where == "cidr" else None
    domain = "example.org" if where == "domain" else ""
    allow = bool(domain) or draw(st.booleans())
    return EgressRule(allow, cidr, domain, protocol, ports)


@st.composite
def flows(draw):
    destination = draw(destinations())
    icmp = ICMP if destination.version == 4 else ICMPV6
    protocol = draw(st.sampled_from([TCP, UDP, icmp, SCTP]))
    return destination, protocol, draw(st.sampled_from(PORTS))


POLICIES = st.one_of(
    st.just(Policy()),
    st.just(Policy(Mode.NONE)),
    st.lists(egress_rules(), max_size=6).map(lambda rules: Policy(Mode.RULES, tuple(rules))),
)


def packet(destination, protocol, port):
    """Return a guest's first packet of a connection, as the chain of its policy sees it."""
    source = GUEST4 if destination.version == 4 else GUEST6
    addresses = source.packed + destination.packed
    network = bytes(12 if destination.version == 4 else 8) + addresses
    transport = struct.pack("!HH", 40_000, port) + bytes(16)
    nfproto = bytes([2 if destination.version == 4 else 10])
    return Packet(network, transport, {"nfproto": nfproto, "l4proto": bytes([protocol])})


def rules_of(wanted):
    """Return the policy's number and chain, all rules of the table, and all elements."""
    rules, held = list(firewall.skeletons()[1].rules), list(firewall.skeletons()[1].elements)
    if wanted.mode is not Mode.RULES:
        return {Mode.OPEN: "policy-open", Mode.NONE: "policy-none"}[wanted.mode], rules, held
    chain = policy.chain(_NUMBER, wanted)
    return chain.chain.name, [*rules, *chain.rules], [*held, chain.element]


def events():
    return [
        element
        for element in elements.of_guest(_guest())
        if element.set.startswith(("events", "denials")) and element.family == 1
    ]


def _guest():
    return Guest(
        "vm", "nexus0", "nexbr0", "02:fc:ac:10:00:02", 1500, GUEST4, ip_address("172.16.0.1"),
        GUEST6, ip_address("fd6e::1"), Policy(), policy.OPEN, Limits(),
    )  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(POLICIES, flows(), st.sets(st.integers(0, 5)), st.booleans())
@example(
    Policy(Mode.RULES, (EgressRule(True, ip_network("::/0")),)),
    (ip_address("10.1.2.3"), TCP, 80),
    set(),
    False,
)
@example(
    Policy(Mode.RULES, (EgressRule(True, protocol=Protocol.ICMP),)),
    (ip_address("2001:db8::1"), ICMPV6, 0),
    set(),
    False,
)
def test_the_compiled_rules_decide_as_the_model(wanted, flow, pinned, spent):
    destination, protocol, port = flow
    decision = policy.decide(wanted, destination, protocol, port, pinned.__contains__)
    chain, rules, held = rules_of(wanted)
    source = GUEST4 if destination.version == 4 else GUEST6
    told = events()
    held += [*told, *(elements.of_pin(source, destination, slot, 60) for slot in pinned)]
    machine = Machine(
        rules, held, [(one.set, one.key) for one in told if one.set.startswith("events")] * spent
    )
    outcome = machine.run(chain, packet(destination, protocol, port))
    if decision.allowed:
        assert (outcome.verdict, outcome.logged) == ("accept", [])
    else:
        assert outcome.verdict == ("reset" if protocol == TCP else "prohibited")
        # Telling may have reached its limit; refusing has none.
        assert outcome.logged == ([] if spent else [f"nexus {decision.rule}"])
        assert ("refuse", "at once") in outcome.path
    assert of(decision.rule) in REASONS.values()


@given(POLICIES, destinations())
def test_metadata_is_reached_by_rules_within_it_only(wanted, destination):
    if not any(destination in cidr for cidr in policy.METADATA):
        return
    decision = policy.decide(wanted, destination, TCP, 80, lambda slot: True)
    if decision.allowed:
        cidr = wanted.rules[decision.slot].cidr
        assert any(cidr.version == one.version and cidr.subnet_of(one) for one in policy.METADATA)


@pytest.mark.parametrize(
    ("rules", "destination", "protocol", "port", "decision"),
    [
        ((), "8.8.8.8", TCP, 443, Decision(False, "no rule")),
        ((EgressRule(),), "8.8.8.8", SCTP, 0, Decision(True, "rule 0", 0)),
        ((EgressRule(),), "169.254.169.254", TCP, 80, Decision(False, "metadata")),
        (
            (EgressRule(False), EgressRule(True, ip_network("169.254.169.254/32"))),
            "169.254.169.254",
            TCP,
            80,
            Decision(True, "rule 1", 1),
        ),
        (
            (EgressRule(True, ip_network("169.0.0.0/8")),),
            "169.254.169.254",
            TCP,
            80,
            Decision(False, "metadata"),
        ),
        (
            (EgressRule(False, ip_network("10.0.0.0/8")), EgressRule(True)),
            "10.0.0.1",
            TCP,
            80,
            Decision(False, "rule 0", 0),
        ),
        (
            (EgressRule(True, domain="example.org"),),
            "10.0.0.1",
            TCP,
            80,
            Decision(True, "rule 0", 0),
        ),
        (
            (EgressRule(True, protocol=Protocol.ICMP),),
            "fd12::1",
            ICMPV6,
            0,
            Decision(True, "rule 0", 0),
        ),
        (
            (EgressRule(True, protocol=Protocol.ICMP),),
            "fd12::1",
            ICMP,
            0,
            Decision(False, "no rule"),
        ),
        (
            (EgressRule(True, protocol=Protocol.UDP, ports=(53, 60)),),
            "8.8.8.8",
            UDP,
            61,
            Decision(False, "no rule"),
        ),
    ],
)
def test_decide(rules, destination, protocol, port, decision):
    wanted = Policy(Mode.RULES, rules)
    assert policy.decide(wanted, ip_address(destination), protocol, port, {0, 1}.__contains__) == (
        decision
    )


def test_the_digest_tells_rules_with_the_same_comments_apart():
    chains = {
        policy.chain(3, Policy(Mode.RULES, (EgressRule(True, ip_network(cidr)),)))
        for cidr in ("10.0.0.0/8", "10.0.0.0/9")
    }
    assert len(chains) == 2
