"""Which addresses a public name may stand for."""

from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_rpc.addresses import is_private, is_public, may_be_given


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "1.0.0.1", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1"),
        *("169.253.0.1", "192.169.0.1", "223.255.255.255", "168.63.129.17", "198.51.100.2"),
        *("2a04:4e42::223", "2600::1", "64:ff9b::808:808", "2002:808:808::1"),
    ],
)
def test_public(address):
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.255.255.255", "100.100.100.200", "127.0.0.53", "169.254.1.1"),
        *("168.63.129.16", "172.16.0.1", "192.0.0.8", "198.19.0.1", "239.1.1.1", "240.0.0.1"),
        *("255.255.255.255", "::", "::1", "::7f00:1", "::ffff:8.8.8.8", "::ffff:10.0.0.1"),
        *("64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::1", "2002:a00:1::1"),
        *("2002:a9fe:a9fe::", "2001:0:1::1", "fc00::1", "fd00:ec2::254", "fe80::1", "febf::1"),
        *("fec0::1", "ff02::1", "100::1"),
    ],
)
def test_not_public(address):
    assert not is_public(ip_address(address))
    # But a rule may name it.
    assert may_be_given(ip_address(address), [ip_network(address)])


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_inside_an_ipv6_one(address):
    nat64 = IPv6Address(int(IPv6Address("64:ff9b::")) + int(address))
    six_to_four = IPv6Address((0x2002 << 112) + (int(address) << 80) + 1)
    assert is_public(nat64) == is_public(six_to_four) == is_public(address)
    assert not is_public(IPv6Address(f"::ffff:{address}"))


@given(st.ip_addresses(v=4))
def test_what_is_global_by_the_registry_and_the_other_way_round(address):
    if is_public(address) and not address.is_global:
        # Examples, which lead nowhere.
        assert any(
            address in ip_network(each)
            for each in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
        )


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        *(("10.1.2.0/24", True), ("172.16.0.0/12", True), ("172.0.0.0/8", False)),
        *(("8.8.8.8/32", False), ("fd00::/8", True), ("2000::/3", False), ("::/0", False)),
    ],
)
def test_networks(network, expected):
    assert is_private(ip_network(network)) is expected


def test_a_wide_range_that_is_allowed_makes_no_private_address_fit_for_a_name():
    neighbour = ip_address("10.0.0.1")
    assert may_be_given(neighbour, [ip_network("10.0.0.0/24")])
    assert not may_be_given(neighbour, [ip_network("0.0.0.0/0")])
    assert not may_be_given(neighbour, [ip_network("8.0.0.0/5")])
