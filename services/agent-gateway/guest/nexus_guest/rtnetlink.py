"""The few rtnetlink(7) requests that give a guest its address; the image's `ip` is not needed."""

from __future__ import annotations

import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_RTM_NEWLINK = 16
_RTM_GETLINK = 18
_RTM_NEWADDR = 20
_RTM_DELADDR = 21
_RTM_GETADDR = 22
_RTM_NEWROUTE = 24
_RTM_DELROUTE = 25
_REQUEST = 0x1
_ACK = 0x4
_DUMP = 0x300
_REPLACE = 0x500  # NLM_F_CREATE | NLM_F_REPLACE
_IFLA_ADDRESS = 1
_IFLA_MTU = 4
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_F_NODAD = 2
_RTA_OIF = 4
_RTA_GATEWAY = 5
_IFF_UP = 1
_RT_TABLE_MAIN = 254
_RTPROT_STATIC = 4
_RTN_UNICAST = 1
_RTNH_F_ONLINK = 4
_SCOPE_UNIVERSE = 0

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr

_SIZE_OF_IPV6 = 16
_TIMEOUT_S = 5.0


def attribute(kind: int, value: bytes) -> bytes:
    """Return an rtattr, padded to four bytes."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the rtattrs in `data`, by kind; what is cut off is left out."""
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= size <= len(data):
            break
        found[kind] = data[_ATTRIBUTE.size : size]
        data = data[(size + 3) & ~3 :]
    return found


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each netlink message in a datagram."""
    while len(data) >= _HEADER.size:
        size, kind, _, _, _ = _HEADER.unpack_from(data)
        if not _HEADER.size <= size <= len(data):
            return
        yield kind, data[_HEADER.size : size]
        data = data[(size + 3) & ~3 :]


class Rtnetlink:
    """A socket to the kernel's routing tables. Methods raise OSError with the kernel's errno."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(_TIMEOUT_S)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def find_link(self, mac: bytes) -> int | None:
        """Return the index of the interface with that hardware address."""
        for body in self._ask(_RTM_GETLINK, _DUMP, _LINK.pack(0, 0, 0, 0, 0)):
            index: int = _LINK.unpack_from(body)[2]
            if attributes(body[_LINK.size :]).get(_IFLA_ADDRESS) == mac:
                return index
        return None

    def set_up(self, index: int) -> None:
        """Switch an interface on."""
        self._ask(_RTM_NEWLINK, _ACK, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP))

    def set_mtu(self, index: int, mtu: int) -> None:
        """Set the size of the largest packet, in bytes."""
        wanted = attribute(_IFLA_MTU, struct.pack("=I", mtu))
        self._ask(_RTM_NEWLINK, _ACK, _LINK.pack(0, 0, index, 0, 0) + wanted)

    def addresses(self, index: int, family: int) -> set[tuple[bytes, int]]:
        """Return an interface's addresses and prefix lengths, but for those of the link only."""
        found = set()
        for body in self._ask(_RTM_GETADDR, _DUMP, _ADDRESS.pack(family, 0, 0, 0, 0)):
            of, prefix, _, scope, owner = _ADDRESS.unpack_from(body)
            held = attributes(body[_ADDRESS.size :])
            address = held.get(_IFA_LOCAL, held.get(_IFA_ADDRESS))  # IPv6 has the second only
            # A kernel that does not know the family tells of all the others'.
            ours = (of, owner, scope) == (family, index, _SCOPE_UNIVERSE)
            if ours and address is not None:
                found.add((address, prefix))
        return found

    def add_address(self, index: int, address: bytes, prefix: int) -> None:
        """Give an interface an address, to be used at once; fine if it has it."""
        self._ask(_RTM_NEWADDR, _ACK | _REPLACE, _address(index, address, prefix))

    def delete_address(self, index: int, address: bytes, prefix: int) -> None:
        """Take an address from an interface."""
        self._ask(_RTM_DELADDR, _ACK, _address(index, address, prefix))

    def set_default_route(self, index: int, gateway: bytes) -> None:
        """Send what is not local to `gateway` by that interface, whatever was before.

        A gateway of IPv6 is taken to be on the link: a /128 address says nothing of it.
        """
        flags = _RTNH_F_ONLINK if len(gateway) == _SIZE_OF_IPV6 else 0
        route = _default_route(_family(gateway), index, flags)
        self._ask(_RTM_NEWROUTE, _ACK | _REPLACE, route + attribute(_RTA_GATEWAY, gateway))

    def delete_default_route(self, index: int, family: int) -> None:
        """Take away what `set_default_route` set. OSError ESRCH if it is not there."""
        self._ask(_RTM_DELROUTE, _ACK, _default_route(family, index, 0))

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        size = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(size, kind, _REQUEST | flags, 1, 0) + body)
        answers: list[bytes] = []
        while True:
            for of, answer in messages(self._socket.recv(1 << 16)):
                if of == _NLMSG_DONE:
                    return answers
                if of == _NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", answer)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return answers
                answers.append(answer)


def _family(address: bytes) -> int:
    return socket.AF_INET6 if len(address) == _SIZE_OF_IPV6 else socket.AF_INET


def _address(index: int, address: bytes, prefix: int) -> bytes:
    # Nobody else can have a guest's address; looking for others would delay its use by a second.
    flags = _IFA_F_NODAD if len(address) == _SIZE_OF_IPV6 else 0
    head = _ADDRESS.pack(_family(address), prefix, flags, _SCOPE_UNIVERSE, index)
    return head + attribute(_IFA_LOCAL, address) + attribute(_IFA_ADDRESS, address)


def _default_route(family: int, index: int, flags: int) -> bytes:
    head = _ROUTE.pack(family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, 0, _RTN_UNICAST, flags)
    return head + attribute(_RTA_OIF, struct.pack("=I", index))
