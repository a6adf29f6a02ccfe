"""Rules written to a real kernel and read back, and what others do to them meanwhile."""

import errno
import subprocess
import time
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from rules_bench import Limits, contents, guest

from nexus_netd.kernel import ForeignDrop, KernelError
from nexus_netd.linux import nft
from nexus_netd.linux.netlink import Netlink
from nexus_netd.model import EgressRule, Link, Mode, Policy, Protocol, Publication
from nexus_netd.rules import elements, firewall, policy
from nexus_netd.rules.ruleset import Change, Contents, Element, Family, number

EVERYTHING = Policy(
    Mode.RULES,
    (
        EgressRule(True, ip_network("10.0.0.0/8"), protocol=Protocol.TCP, ports=(80, 90)),
        EgressRule(False, ip_network("fd00::/8")),
        EgressRule(True, domain="*.example.org", protocol=Protocol.UDP, ports=(53, 53)),
        EgressRule(False, protocol=Protocol.ICMP),
        EgressRule(True, ip_network("169.254.169.254/32")),
        EgressRule(),
    ),
)


@pytest.fixture
def link(namespace):
    opened = Netlink(nft.PROTOCOL)
    yield opened
    opened.close()


def full():
    """Return contents with something in every set but those of pins."""
    one = guest(0, EVERYTHING, limits=Limits(1_000, 2_000, 30, 40, 5))
    other = guest(1, limits=Limits(connections=7))
    more = [
        *elements.of_link(Link("vm0", "vm1"), one, other),
        *elements.of_link(Link("vm1", "vm0", Protocol.TCP, (22, 80)), other, one),
    ]
    for address in ("127.0.0.1", "0.0.0.0", "2001:db8::1", "::"):
        publication = Publication("vm0", ip_address(address), 8_080, 80)
        more += elements.of_publication(publication, one)
    return contents(one, other, more=more)


def test_everything_is_read_back_as_it_was_written(link):
    assert nft.read(link) is None
    want = full()
    declared = {one.name for table in firewall.skeletons() for one in table.sets if not one.timeout}
    assert {element.set for element in want.elements} == declared - {"policies"}
    for _ in range(2):
        nft.replace(link, want)
        assert nft.read(link) == want
    nft.replace(link, Contents(frozenset(), frozenset()))
    assert nft.read(link) == Contents(frozenset(), frozenset())
    assert nft.remove(link) == ["bridge nexus", "inet nexus"]
    assert nft.remove(link) == []
    assert nft.read(link) is None


def test_nft_lists_all_of_it(link):
    nft.replace(link, full(), [elements.of_pin(guest(0).ipv4, ip_address("10.1.1.1"), 2, 60)])
    listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    assert listed.stderr == ""
    for words in ("table bridge nexus", "chain policy-3", '"nexus0" . 02:fc:ac:10:00:02', "@pins4"):
        assert words in listed.stdout


def test_a_change_adds_and_removes_whatever_is_there_already(link):
    old, new = full(), contents(guest(0, limits=Limits(egress_packets=9)), guest(2))
    nft.replace(link, old)
    change = Change(
        tuple(old.elements - new.elements),
        tuple(new.elements - old.elements),
        tuple(old.policies - new.policies),
        tuple(new.policies - old.policies),
    )
    back = Change(change.add, change.remove, change.add_policies, change.remove_policies)
    for step, result in ((change, new), (change, new), (back, old), (back, old)):
        nft.change(link, step)
        assert nft.read(link) == result
    nft.change(link, Change())


def test_a_change_is_whole_or_not_at_all(link):
    want = full()
    nft.replace(link, want)
    wrong = Element(Family.INET, "policy4", guest(0).ipv4.packed, 2 * number(9))
    with pytest.raises(KernelError, match="policy4 in inet nexus") as caught:
        nft.change(link, Change(add=(*elements.of_guest(guest(5)), wrong)))
    assert caught.value.errno in (errno.EEXIST, errno.EBUSY)
    with pytest.raises(KernelError, match="nosuch"):
        nft.change(link, Change(add=(*elements.of_guest(guest(5)), replace(wrong, set="nosuch"))))
    assert nft.read(link) == want


def test_a_change_without_tables_is_an_error(link):
    with pytest.raises(KernelError) as caught:
        nft.change(link, Change(add=elements.of_guest(guest(0))))
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize(
    "command",
    [
        "add rule inet nexus forward accept",
        "insert rule inet nexus policy-open accept",
        "add rule inet nexus policy-3 accept",
        "flush chain inet nexus to-host",
        "flush table bridge nexus",
        "add chain inet nexus mine",
        "add chain bridge nexus mine { type filter hook prerouting priority 0 ; }",
        "add set inet nexus mine { type ipv4_addr ; }",
        "add chain inet nexus policy-9",
        "add chain inet nexus forward { policy drop ; }",
        "add table inet nexus { flags dormant ; }",
        "delete element inet nexus policies { 1 }",
        "flush set inet nexus bridges",
        "add element inet nexus links4_all { 172.16.0.2 . 172.16.0.9 . tcp }",
        "delete element inet nexus gateways4 { nexbr0 . 172.16.0.1 }",
        "add element inet nexus policies { 7 : accept }",
        "delete table inet nexus",
        "delete table bridge nexus",
        "flush ruleset",
    ],
)
def test_what_others_do_is_seen_and_mended(link, command):
    want = full()
    nft.replace(link, want)
    subprocess.run(["nft", command], check=True)
    assert nft.read(link) != want
    nft.replace(link, want)
    assert nft.read(link) == want


def test_rules_in_other_places_are_left_alone(link):
    foreign = (
        "table inet filter { chain mine { type filter hook forward priority 0 ; accept ; } ; }"
    )
    subprocess.run(["nft", foreign], check=True)
    nft.replace(link, full())
    nft.change(link, Change(remove=elements.of_guest(guest(1, limits=Limits(connections=7)))))
    nft.remove(link)
    listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    assert listed.stdout.count("table") == 1
    assert "accept" in listed.stdout


def test_pins_are_apart_from_the_contents_and_last_as_long_as_the_last_said(link):
    want = full()
    source, other = guest(0).ipv4, guest(1).ipv4
    first, second = ip_address("198.51.100.7"), ip_address("198.51.100.8")
    nft.replace(link, want, [elements.of_pin(source, first, 2, 30)])
    nft.change(link, Change(add=(elements.of_pin(source, second, 5, 0.05),)))
    nft.change(link, Change(add=(elements.of_pin(other, first, 2, 60),)))
    assert nft.read(link) == want
    assert guest(0).ipv6 not in nft.pins(link)
    assert set(nft.pins(link)[other]) == {(first, 2)}
    assert nft.pins(link).keys() == {source, other}
    for seconds in (5, 500):
        nft.change(link, Change(add=(elements.of_pin(source, first, 2, seconds),)))
        assert seconds - 1 <= nft.pins(link)[source][first, 2] <= seconds
    deadline = time.monotonic() + 5
    while (second, 5) in nft.pins(link)[source]:
        assert time.monotonic() < deadline
    nft.change(link, Change(remove=(elements.of_pin(source, first, 2, 1),)))
    nft.change(link, Change(remove=(elements.of_pin(source, first, 2, 1),)))
    assert source not in nft.pins(link)
    assert set(nft.pins(link)[other]) == {(first, 2)}


def test_four_thousand_ports_are_one_transaction_read_back_whole(link):
    want = contents(*(guest(number) for number in range(4_000)))
    assert len(want.elements) > 50_000
    nft.replace(link, want)
    assert nft.read(link) == want
    assert len(nft.denied(link)) == 8_000


def test_a_policy_of_256_rules(link):
    rules = tuple(
        EgressRule(number % 2 == 0, ip_network((0x0A000000 + number * 256, 24)))
        for number in range(255)
    )
    most = Policy(Mode.RULES, (*rules, EgressRule(True, domain="example.org")))
    want = Contents(frozenset(), frozenset({policy.chain(3, most)}))
    nft.replace(link, Contents(frozenset(), frozenset()))
    nft.change(link, Change(add_policies=tuple(want.policies)))
    assert nft.read(link) == want
    nft.change(link, Change(remove_policies=tuple(want.policies)))
    assert nft.read(link) == Contents(frozenset(), frozenset())


def test_foreign_drops(link):
    nft.replace(link, Contents(frozenset(), frozenset()))
    assert nft.foreign_drops(link) == []
    for table, chain in (
        ("ip filter", "FORWARD { type filter hook forward priority 0 ; policy drop ; }"),
        ("ip6 filter", "mine { type filter hook input priority 0 ; policy drop ; }"),
        ("inet firewalld", "leave { type filter hook output priority 0 ; policy drop ; }"),
        ("inet firewalld", "whole { type filter hook forward priority 0 ; policy accept ; }"),
        ("bridge other", "whole { type filter hook forward priority 0 ; policy drop ; }"),
        ("arp other", "whole { type filter hook input priority 0 ; policy drop ; }"),
    ):
        subprocess.run(["nft", f"add table {table}"], check=True)
        subprocess.run(["nft", f"add chain {table} {chain}"], check=True)
    assert sorted(nft.foreign_drops(link), key=str) == [
        ForeignDrop("bridge other", "whole", "forward"),
        ForeignDrop("ip filter", "FORWARD", "forward"),
        ForeignDrop("ip6 filter", "mine", "input"),
    ]
