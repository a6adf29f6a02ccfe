import re
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_netd.subnet import FIRST_GUEST, Subnet, mac


def networks():
    return st.builds(
        lambda address, prefix: IPv4Network((address, prefix), strict=False),
        st.integers(0, 2**32 - 1),
        st.integers(8, 30),
    )


@given(networks())
def test_gateway_is_the_first_host_and_guests_lie_between(network):
    subnet = Subnet.parse(str(network))
    assert subnet.gateway.ip == network.network_address + 1
    assert subnet.gateway.network == network
    last = subnet.interface(subnet.last_guest)
    assert last.ip == network.broadcast_address - 1
    assert subnet.interface(FIRST_GUEST).ip == subnet.gateway.ip + 1
    assert subnet.capacity == network.num_addresses - 3


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_mac_is_local_unicast_and_tells_addresses_apart(one, other):
    first, second = mac(IPv4Address(one)), mac(IPv4Address(other))
    assert re.fullmatch(r"02:fc(:[0-9a-f]{2}){4}", first)
    assert (first == second) == (one == other)


def test_the_proto_s_example():
    assert mac(IPv4Address("172.16.0.2")) == "02:fc:ac:10:00:02"


@pytest.mark.parametrize("text", ["10.0.0.0/7", "10.0.0.0/31", "10.0.0.1/24", "fd00::/64", "x", ""])
def test_what_is_no_subnet_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        Subnet.parse(text)
