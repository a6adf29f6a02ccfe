"""What ports, links, publications and networks put into the sets."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_netd.model import (
    CONNECTIONS,
    Guest,
    HostPort,
    Limits,
    Link,
    NetworkSpec,
    Policy,
    Protocol,
    Publication,
)
from nexus_netd.rules import elements, firewall, policy
from nexus_netd.rules.ruleset import TYPES, VERDICT, Family
from nexus_netd.subnet import Subnet

GUEST = Guest(
    "vm0", "nexus0", "nexbr0", "02:fc:ac:10:00:02", 1500, ip_address("172.16.0.2"),
    ip_address("172.16.0.1"), ip_address("fd6e::2"), ip_address("fd6e::1"), Policy(), policy.OPEN,
    Limits(),
)  # fmt: skip
OTHER = replace(
    GUEST,
    vm_id="vm1",
    tap="nexus1",
    mac="02:fc:ac:10:00:03",
    ipv4=ip_address("172.16.0.3"),
    ipv6=ip_address("fd6e::3"),
)
OLD = replace(OTHER, ipv6=None, ipv6_gateway=None)


def named(found):
    return sorted(element.set for element in found)


def test_a_guest_is_as_many_elements_as_any_other():
    assert named(elements.of_guest(GUEST)) == named(elements.of_guest(OTHER))
    assert len(elements.of_guest(GUEST)) == 17
    assert len(elements.of_guest(OLD)) == 10
    assert not [one for one in elements.of_guest(OLD) if "6" in one.set]


def test_limits_are_elements_of_their_own():
    limits = Limits(1, 2, 3, 4, 5)
    more = {*elements.of_guest(replace(GUEST, limits=limits))} - {*elements.of_guest(GUEST)}
    found = {one.set: dict(one.state[0][1]) for one in more}
    assert found["egress_bytes"] == {"rate": 1, "unit": 1, "burst": 65_536, "type": 1, "flags": 1}
    assert found["ingress_packets"]["rate"] == 4
    assert found["egress_packets"]["type"] == 0
    assert found["connections4"] == found["connections6"] == {"count": 5, "flags": 1}
    plain = {one.set: one.state for one in elements.of_guest(GUEST)}
    assert plain["connections4"][0][1][0] == ("count", CONNECTIONS)


@pytest.mark.parametrize("most", [elements.MOST_BYTES, elements.MOST_PACKETS])
def test_the_highest_rates_fit_the_kernel_s_nanoseconds(most):
    assert 1_000_000_000 * (most + 65_536) < 1 << 64
    assert 1_000_000_000 // elements.MOST_PACKETS > 0


@pytest.mark.parametrize(
    ("link", "target", "expected"),
    [
        (Link("vm0", "vm1"), OTHER, ["links4_all"] * 3 + ["links6_all"] * 3),
        (Link("vm0", "vm1"), OLD, ["links4_all"] * 3),
        (Link("vm0", "vm1", Protocol.ICMP), OTHER, ["links4_all", "links6_all"]),
        (Link("vm0", "vm1", Protocol.TCP, (1, 2)), OTHER, ["links4"] * 2 + ["links6"] * 2),
    ],
)
def test_links(link, target, expected):
    found = elements.of_link(link, GUEST, target)
    assert named(found) == expected
    back = elements.of_link(link, target, GUEST)
    assert not {*found} & {*back}


def test_icmp_has_another_number_in_ipv6():
    four, six = elements.of_link(Link("vm0", "vm1", Protocol.ICMP), GUEST, OTHER)
    assert (four.key[8], six.key[32]) == (1, 58)


@pytest.mark.parametrize(
    ("host_ip", "guest", "expected"),
    [
        ("127.0.0.1", GUEST, ["published4", "targets4"]),
        ("0.0.0.0", GUEST, ["published4_any", "targets4"]),
        ("2001:db8::1", GUEST, ["published6", "targets6"]),
        ("::", GUEST, ["published6_any", "targets6"]),
        ("::", OLD, []),
        ("0.0.0.0", OLD, ["published4_any", "targets4"]),
    ],
)
def test_publications(host_ip, guest, expected):
    publication = Publication("vm0", ip_address(host_ip), 8_080, 80)
    assert named(elements.of_publication(publication, guest)) == expected


def test_two_publications_to_one_port_share_its_target():
    first, second = (
        {*elements.of_publication(Publication("vm0", ip_address("0.0.0.0"), port, 80), GUEST)}
        for port in (8_080, 8_081)
    )
    assert [one.set for one in first & second] == ["targets4"]


def test_a_network_names_its_bridges_gateways_and_host_ports():
    spec = NetworkSpec(
        "default",
        "nexbr0",
        Subnet.parse("172.16.0.0/12"),
        ip_network("fd6e::/64"),
        host_ports=(HostPort(Protocol.TCP, 8_080),),
    )
    found = elements.of_network(spec, ["nexbr0", "nexbr0-1"])
    assert named(found) == [
        "bridges", "bridges", "gateways4", "gateways4", "gateways6", "gateways6",
        "gateways_ether", "host_ports4", "host_ports6",
    ]  # fmt: skip
    assert [one.key.hex(":") for one in found if one.set == "gateways_ether"] == [
        "02:fc:ac:10:00:01"
    ]
    alone = elements.of_network(replace(spec, ipv6=None), ["nexbr0"])
    assert named(alone) == ["bridges", "gateways4", "gateways_ether", "host_ports4"]


def test_a_pin_is_known_by_place_and_not_by_time():
    one, other = (
        elements.of_pin(GUEST.ipv4, ip_address("198.51.100.1"), 3, seconds) for seconds in (1, 2)
    )
    assert one == other
    assert (one.timeout, other.timeout) == (1_000, 2_000)
    assert elements.of_pin(GUEST.ipv6, ip_address("2001:db8::1"), 3, 0).timeout == 1
    assert one.key.endswith((3).to_bytes(4, "little"))


@pytest.mark.parametrize(
    ("mac", "address"),
    [
        ("02:fc:ac:10:00:02", "fe80::fc:acff:fe10:2"),
        ("00:00:5e:00:53:01", "fe80::200:5eff:fe00:5301"),
    ],
)
def test_link_local(mac, address):
    assert elements.link_local(mac) == ip_address(address)


@given(
    st.sampled_from([GUEST, OLD]),
    st.builds(Limits, *[st.integers(0, 10**8)] * 4, st.integers(0, 10**6)),
)
def test_elements_are_as_their_sets_are_declared(guest, limits):
    declared = {
        (table.family, one.name): one for table in firewall.skeletons() for one in table.sets
    }
    found = [
        *elements.of_guest(replace(guest, limits=limits)),
        *elements.of_link(Link("vm0", "vm1", Protocol.UDP, (53,)), GUEST, guest),
        *elements.of_publication(Publication("vm0", ip_address("0.0.0.0"), 1, 2), guest),
        elements.of_pin(guest.ipv4, ip_address("1.1.1.1"), 0, 1),
    ]
    for element in found:
        one = declared[element.family, element.set]
        assert len(element.key) == _length(one.key), element
        assert len(element.data or b"") == (_length(one.data) if one.data else 0), element
    assert {element.family for element in found} == set(Family)


def _length(parts):
    assert parts != VERDICT
    if len(parts) == 1:
        return TYPES[parts[0]][1]
    return sum((TYPES[part][1] + 3) // 4 * 4 for part in parts)
