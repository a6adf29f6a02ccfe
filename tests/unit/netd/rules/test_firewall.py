"""The two tables as data: their shape, and what they let through of made-up packets."""

from ipaddress import ip_address

import pytest
from rule_machine import Machine, Packet

from nexus_netd.rules import firewall, frames, packets
from nexus_netd.rules.reasons import REASONS
from nexus_netd.rules.ruleset import TYPES, VERDICT, Element, Family

TABLES = pytest.mark.parametrize("table", firewall.skeletons(), ids=lambda one: one.family.name)
KEYWORDS = {"arp", "ip", "ip6", "reject", "fwd", "log", "counter", "limit", "drop", "all", "tcp"}


def verdicts(table):
    """Return the chains that rules lead to, by the chain that they are in."""
    for rule in table.rules:
        for name, arguments in rule.expressions:
            data = dict(arguments).get("data")
            if name == "immediate" and isinstance(data, tuple) and data[1]:
                yield rule.chain, data[1]


@TABLES
def test_every_chain_is_there_and_led_to(table):
    chains = {chain.name for chain in table.chains}
    led_to = {target for _, target in verdicts(table)} | {one.data for one in table.elements}
    assert led_to <= chains
    # Policies lead to the last one.
    others = chains - led_to - {chain.name for chain in table.chains if chain.kind}
    assert others == ({"refuse-no-rule"} if table.family is Family.INET else set())
    assert len(chains) == len(table.chains)
    # nft(8) takes none of its own words for a name.
    assert not chains & KEYWORDS


@TABLES
def test_rules_are_known_by_chain_and_comment(table):
    known = [(rule.chain, rule.comment) for rule in table.rules]
    assert len(set(known)) == len(known)
    assert all(0 < len(comment.encode()) < 128 for _, comment in known)


@TABLES
def test_every_set_is_declared_and_looked_up(table):
    declared = {one.name: one for one in table.sets}
    looked_up = set()
    for rule in table.rules:
        for name, arguments in rule.expressions:
            if name == "lookup":
                looked_up.add(dict(arguments)["set"])
    assert looked_up <= declared.keys()
    # Pins are looked up by policies' chains.
    assert declared.keys() - looked_up <= {"pins4", "pins6"}
    for one in table.sets:
        assert set(one.key) <= TYPES.keys()
        assert one.data == VERDICT or set(one.data) <= TYPES.keys()


@TABLES
def test_names_fit_the_kernel(table):
    for name in [*(one.name for one in table.sets), *(one.name for one in table.chains)]:
        assert len(name) < 32


@TABLES
def test_all_that_is_logged_has_a_reason(table):
    for rule in table.rules:
        for name, arguments in rule.expressions:
            if name == "log":
                given = dict(arguments)
                assert given["group"] == firewall.NFLOG_GROUP
                assert given["prefix"].removeprefix("nexus ") in REASONS


def test_the_comment_tells_tables_apart():
    comments = {table.comment for table in firewall.skeletons()}
    assert len(comments) == 2
    assert all(comment.startswith("nexus-netd ") for comment in comments)


ETHER = bytes.fromhex("02fcac10000102fcac100002")


@pytest.mark.parametrize("hook", [chain.name for chain in frames.HOOKS])
@pytest.mark.parametrize(
    ("iifname", "oifname", "ours"),
    [
        ("nexus0", "nexus1", True),
        ("nexus4000", "eth0", True),
        ("nexus9999999999", "eth0", True),
        ("nexbr0", "eth0", False),
        ("nexusvpn", "eth0", False),
        ("nexus", "eth0", False),
        ("eth0", "docker0", False),
    ],
)
def test_frames_of_guests_alone_meet_a_verdict(hook, iifname, oifname, ours):
    known = {
        "iifname": iifname.encode().ljust(16, b"\0"),
        "oifname": oifname.encode().ljust(16, b"\0"),
    }
    packet = Packet(bytes(40), None, known, ETHER + b"\x86\xdd")
    outcome = Machine(frames.RULES).run(hook, packet)
    stops = ours and hook in ("guard", "between")
    assert outcome.verdict == ("drop" if stops else "accept")


@pytest.mark.parametrize("hook", [chain.name for chain in packets.HOOKS])
@pytest.mark.parametrize(("iifname", "oifname"), [("eth0", "docker0"), ("docker0", "eth0")])
@pytest.mark.parametrize("state", [1, 2, 8])
def test_packets_of_others_meet_no_verdict_but_accept(hook, iifname, oifname, state):
    known = {
        "iifname": iifname.encode().ljust(16, b"\0"),
        "oifname": oifname.encode().ljust(16, b"\0"),
        "nfproto": b"\x02",
        "l4proto": b"\x06",
        "ct_state": state.to_bytes(4, "little"),
        "address_type": (2).to_bytes(4, "little"),
    }
    source, destination = ip_address("192.0.2.2"), ip_address("169.254.169.254")
    packet = Packet(bytes(12) + source.packed + destination.packed, bytes(20), known)
    bridges = Element(Family.INET, "bridges", b"nexbr0".ljust(16, b"\0"))
    outcome = Machine(packets.RULES, [*packets.ELEMENTS, bridges]).run(hook, packet)
    assert outcome.verdict == "accept"
    assert not outcome.logged
