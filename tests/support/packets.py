"""Frames byte by byte, so that they can be wrong in every field: from Ethernet to TCP.

Addresses are text. `ip` and the transports take IPv4 or IPv6, whichever the addresses are of.
"""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise

ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
VLAN, QINQ, VLAN_OLD = 0x8100, 0x88A8, 0x9100
REQUEST, REPLY = 1, 2
ICMP, IGMP, IPIP, TCP, UDP, GRE, ESP, SCTP = 1, 2, 4, 6, 17, 47, 50, 132
HOP_BY_HOP, ROUTING, FRAGMENT, ICMPV6, DESTINATION = 0, 43, 44, 58, 60
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
MORE = 0x2000
"""Flag of an IPv4 fragment that is not the last (RFC 791)."""
BROADCAST = "ff:ff:ff:ff:ff:ff"
NOWHERE = "00:00:00:00:00:00"
ALL_NODES, ALL_ROUTERS = "ff02::1", "ff02::2"
OVERRIDE, SOLICITED, ROUTER = 2, 4, 8
"""Flags of a neighbour advertisement, in the upper four bits (RFC 4861, 4.4)."""


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def packed(address):
    return ip_address(address).packed


def checksum(data):
    """Return the internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF & ~total


def ether(destination, source, kind, payload):
    """Return a frame; `kind` is an EtherType, or a length as in IEEE 802.3."""
    return mac_bytes(destination) + mac_bytes(source) + struct.pack("!H", kind) + payload


def tag(frame, number, kind=VLAN, priority=0):
    """Return the frame with a VLAN tag."""
    return frame[:12] + struct.pack("!HH", kind, priority << 13 | number) + frame[12:]


def arp(
    operation, sender_mac, sender, target_mac, target, *, hardware=1, protocol=IPV4, sizes=(6, 4)
):
    """Return an ARP packet (RFC 826)."""
    return (
        struct.pack("!HHBBH", hardware, protocol, *sizes, operation)
        + mac_bytes(sender_mac)
        + packed(sender)
        + mac_bytes(target_mac)
        + packed(target)
    )


def ipv4(
    source, destination, protocol, payload,
    *, options=b"", flags=0, offset=0, ident=1, hops=64, length=None, words=None, wrong=0,
):  # fmt: skip
    """Return an IPv4 packet (RFC 791).

    `offset` is in bytes, `length` and `words` are what the header says of its own and the whole's
    length, `wrong` is added to the checksum.
    """
    size = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | (size // 4 if words is None else words), 0,
        size + len(payload) if length is None else length,
        ident, flags | offset // 8, hops, protocol, 0, packed(source), packed(destination),
    ) + options  # fmt: skip
    total = (checksum(head) + wrong) & 0xFFFF
    return head[:10] + struct.pack("!H", total) + head[12:] + payload


def ipv6(source, destination, protocol, payload, *, hops=64, length=None):
    """Return an IPv6 packet (RFC 8200)."""
    size = len(payload) if length is None else length
    return (
        struct.pack("!IHBB", 6 << 28, size, protocol, hops)
        + packed(source)
        + packed(destination)
        + payload
    )


def ip(source, destination, protocol, payload):
    """Return a packet of the family that the addresses are of."""
    make = ipv4 if isinstance(ip_address(destination), IPv4Address) else ipv6
    return make(source, destination, protocol, payload)


def _summed(source, destination, protocol, data, at):
    """Return `data` with the checksum over it and the pseudo-header at the offset `at`."""
    pseudo = packed(source) + packed(destination) + struct.pack("!IBBH", len(data), 0, 0, protocol)
    return data[:at] + struct.pack("!H", checksum(pseudo + data) or 0xFFFF) + data[at + 2 :]


def udp(source, destination, source_port, port, payload):
    """Return a UDP datagram in its packet."""
    data = struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload
    return ip(source, destination, UDP, _summed(source, destination, UDP, data, 6))


def tcp(source, destination, source_port, port, flags, payload=b"", *, sequence=1, seen=0):
    """Return a TCP segment in its packet."""
    data = struct.pack(
        "!HHIIBBHHH", source_port, port, sequence, seen, 5 << 4, flags, 65535, 0, 0
    ) + payload  # fmt: skip
    return ip(source, destination, TCP, _summed(source, destination, TCP, data, 16))


def icmp_body(kind, code, rest=bytes(4), payload=b""):
    """Return an ICMP message (RFC 792)."""
    data = struct.pack("!BBH", kind, code, 0) + rest + payload
    return data[:2] + struct.pack("!H", checksum(data)) + data[4:]


def icmpv6_body(source, destination, kind, code, rest=bytes(4), payload=b""):
    """Return an ICMPv6 message (RFC 4443)."""
    data = struct.pack("!BBH", kind, code, 0) + rest + payload
    return _summed(source, destination, ICMPV6, data, 2)


def icmp(source, destination, kind, code, rest=bytes(4), payload=b"", hops=255):
    """Return an ICMP or ICMPv6 message in its packet."""
    if isinstance(ip_address(destination), IPv6Address):
        body = icmpv6_body(source, destination, kind, code, rest, payload)
        return ipv6(source, destination, ICMPV6, body, hops=hops)
    return ipv4(source, destination, ICMP, icmp_body(kind, code, rest, payload), hops=hops)


def echo(source, destination, payload):
    """Return an echo request in its packet."""
    kind = 128 if isinstance(ip_address(destination), IPv6Address) else 8
    return icmp(source, destination, kind, 0, struct.pack("!HH", 0x6E78, 1), payload)


def fragments(packet, *cuts, ident=0x6E78):
    """Return an IPv4 packet cut at these offsets of its payload, each a multiple of 8."""
    source, destination = (socket.inet_ntoa(packet[at : at + 4]) for at in (12, 16))
    body, protocol = packet[20:], packet[9]
    edges = [0, *cuts, len(body)]
    return [
        ipv4(
            source, destination, protocol, body[start:end],
            offset=start, flags=MORE if end < len(body) else 0, ident=ident,
        )
        for start, end in pairwise(edges)
    ]  # fmt: skip


def fragments6(packet, *cuts, ident=0x6E78):
    """Return an IPv6 packet cut at these offsets of its payload, each a multiple of 8."""
    source, destination = (str(IPv6Address(packet[at : at + 16])) for at in (8, 24))
    body, protocol = packet[40:], packet[6]
    edges = [0, *cuts, len(body)]
    return [
        ipv6(
            source, destination, FRAGMENT,
            struct.pack("!BBHI", protocol, 0, start | (end < len(body)), ident) + body[start:end],
        )
        for start, end in pairwise(edges)
    ]  # fmt: skip


def kind_of(packet):
    """Return the EtherType that an IP packet travels under."""
    return IPV6 if packet[0] >> 4 == 6 else IPV4


def link_local(mac):
    """Return the IPv6 address that a MAC makes (RFC 4291, appendix A)."""
    data = mac_bytes(mac)
    return str(
        IPv6Address(
            b"\xfe\x80" + bytes(6) + bytes([data[0] ^ 2]) + data[1:3] + b"\xff\xfe" + data[3:]
        )
    )


def solicited(address):
    """Return the multicast address that an IPv6 address is solicited at (RFC 4291, 2.7.1)."""
    return str(IPv6Address(packed("ff02::1:ff00:0")[:13] + packed(address)[13:]))


def group_mac(address):
    """Return the MAC of a multicast address (RFC 1112, RFC 2464)."""
    data = packed(address)
    if len(data) == 16:
        return "33:33:" + data[12:].hex(":")
    return bytes([1, 0, 0x5E, data[1] & 0x7F, *data[2:]]).hex(":")


def neighbour(source, destination, kind, target, mac=None, flags=0):
    """Return a neighbour solicitation (135) or advertisement (136) (RFC 4861)."""
    option = b"" if mac is None else bytes([1 if kind == 135 else 2, 1]) + mac_bytes(mac)
    rest = struct.pack("!I", flags << 28)
    return icmp(source, destination, kind, 0, rest, packed(target) + option)


def is_refusal(frame):
    """Whether a frame says no at once: a TCP reset, or ICMP(v6) administratively prohibited."""
    kind = int.from_bytes(frame[12:14])
    if kind == IPV4:
        body = frame[14 + (frame[14] & 15) * 4 :]
        protocol = frame[23]
        if protocol == ICMP:
            return body[:2] == b"\x03\x0d"  # RFC 1812, 5.2.7.1
    elif kind == IPV6:
        body, protocol = frame[54:], frame[20]
        if protocol == ICMPV6:
            return body[:2] == b"\x01\x01"  # RFC 4443, 3.1
    else:
        return False
    return protocol == TCP and bool(body[13] & RST)
