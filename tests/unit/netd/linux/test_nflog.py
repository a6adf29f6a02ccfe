"""Reading refused packets, whatever bytes guests have put into them."""

import socket
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_netd.kernel import Refusal
from nexus_netd.linux import nflog
from nexus_netd.linux.netlink import attribute

IPV4, ARP, IPV6, VLAN = 0x0800, 0x0806, 0x86DD, 0x8100


def message(payload, ether=IPV4, prefix=b"nexus rule 3\0", family=2, kind=0x400):
    body = struct.pack("!BBH", family, 0, 110)
    body += attribute(1, struct.pack("!HBx", ether, 3))
    body += attribute(10, prefix) + attribute(9, payload)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def ipv4(protocol, rest, fragment=0, words=5):
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, 20, 1, fragment, 64, protocol, 0)
    head += socket.inet_aton("10.9.0.2") + socket.inet_aton("192.0.2.1")
    return head + bytes(4 * (words - 5)) + rest


def ipv6(protocol, rest):
    head = struct.pack("!IHBB", 6 << 28, len(rest), protocol, 64)
    return head + ip_address("fd00::2").packed + ip_address("2001:db8::1").packed + rest


PORTS = struct.pack("!HH", 40_000, 443)
ADDRESSES = (ip_address("10.9.0.2"), ip_address("192.0.2.1"))
ADDRESSES6 = (ip_address("fd00::2"), ip_address("2001:db8::1"))


@pytest.mark.parametrize(
    ("data", "ether", "packet"),
    [
        (ipv4(6, PORTS), IPV4, (*ADDRESSES, 6, 443)),
        (ipv4(17, PORTS, words=7), IPV4, (*ADDRESSES, 17, 443)),
        (ipv4(17, PORTS, fragment=0x2000), IPV4, (*ADDRESSES, 17, 443)),
        (ipv4(17, PORTS, fragment=0x2001), IPV4, (*ADDRESSES, 17, 0)),
        (ipv4(1, b"\x08\0\0\0"), IPV4, (*ADDRESSES, 1, 0)),
        (ipv4(6, PORTS[:3]), IPV4, (*ADDRESSES, 6, 0)),
        (ipv4(6, b"")[:19], IPV4, (None, None, 0, 0)),
        (b"", IPV4, (None, None, 0, 0)),
        (ipv6(6, PORTS), IPV6, (*ADDRESSES6, 6, 443)),
        (ipv6(58, b"\x80\0\0\0"), IPV6, (*ADDRESSES6, 58, 0)),
        (ipv6(44, b"\x11\0\0\0\0\0\0\1" + PORTS), IPV6, (*ADDRESSES6, 17, 443)),
        (ipv6(44, b"\x11\0\0\x08\0\0\0\1" + PORTS), IPV6, (*ADDRESSES6, 17, 0)),
        (ipv6(44, b"\x11"), IPV6, (*ADDRESSES6, 44, 0)),
        (ipv6(6, b"")[:39], IPV6, (None, None, 0, 0)),
        (ipv4(6, PORTS), VLAN, (None, None, 0, 0)),
        (bytes(14) + b"\x0a\x09\0\2" + bytes(6) + b"\x0a\x09\0\1", ARP,
         (ip_address("10.9.0.2"), ip_address("10.9.0.1"), 0, 0)),
        (bytes(27), ARP, (None, None, 0, 0)),
    ],
)  # fmt: skip
def test_packets_are_read_as_far_as_they_go(data, ether, packet):
    (refusal,) = nflog.refusals(message(data, ether))
    assert refusal == Refusal("rule 3", None, *packet)


@settings(deadline=None)
@given(st.binary(max_size=160), st.sampled_from([IPV4, ARP, IPV6, VLAN, 0]))
def test_no_packet_makes_it_raise(data, ether):
    (refusal,) = nflog.refusals(message(data, ether))
    assert refusal.reason == "rule 3"


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_no_datagram_makes_it_raise(data):
    list(nflog.refusals(data))
    list(nflog.refusals(struct.pack("=IHHII", len(data) + 16, 0x400, 0, 0, 0) + data))


def test_a_frame_whose_tap_has_gone_is_nobody_s():
    (refusal,) = nflog.refusals(message(ipv4(6, PORTS), family=7))
    assert refusal.tap == ""


def test_what_is_not_ours_is_left_out():
    assert list(nflog.refusals(message(ipv4(6, PORTS), prefix=b"dropped \0"))) == []
    assert list(nflog.refusals(message(ipv4(6, PORTS), kind=0x401))) == []
    assert len(list(nflog.refusals(message(b"") + message(b"", ARP)))) == 2
