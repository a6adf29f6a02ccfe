"""Opening a connection and seeing what comes of it: it arrives, or it is refused at once."""

import asyncio
import errno
import socket
from ipaddress import ip_address

from packets import echo

SECONDS = 5
_REFUSED = {
    errno.ECONNREFUSED,  # TCP reset; ICMP port unreachable
    errno.EHOSTUNREACH,  # ICMP administratively prohibited (RFC 1812)
    errno.ENETUNREACH,
    errno.EACCES,  # ICMPv6 administratively prohibited (RFC 4443)
    errno.EPERM,
}
_HELLO = b"hello"


async def arrives(stack, protocol, address, port=0):
    """Whether what the stack sends is answered; False: it was refused. TimeoutError: neither."""
    version = ip_address(address).version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    send = {"tcp": _by_tcp, "udp": _by_udp, "icmp": _by_icmp}[protocol]
    try:
        async with asyncio.timeout(SECONDS):
            await send(stack, family, address, port)
    except OSError as error:
        if error.errno in _REFUSED:
            return False
        raise
    return True


async def _by_tcp(stack, family, address, port):
    with stack.socket(family, socket.SOCK_STREAM) as tcp:
        await asyncio.get_running_loop().sock_connect(tcp, (address, port))


async def _by_udp(stack, family, address, port):
    loop = asyncio.get_running_loop()
    with stack.socket(family, socket.SOCK_DGRAM) as udp:
        udp.connect((address, port))
        udp.send(_HELLO)
        assert await loop.sock_recv(udp, 64) == _HELLO


async def _by_icmp(stack, family, address, _port):
    loop = asyncio.get_running_loop()
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    header, body = (20, 20) if family == socket.AF_INET else (0, 40)
    reply = 0 if family == socket.AF_INET else 129
    with stack.socket(family, socket.SOCK_RAW, protocol) as icmp:
        icmp.connect((address, 0))
        icmp.send(echo(stack.address if header else stack.ipv6, address, _HELLO)[body:])
        while (await loop.sock_recv(icmp, 2_048))[header] != reply:
            pass  # an error, which the socket itself raises


class Answering:
    """Answers TCP and UDP on these addresses and ports of a stack, while the block runs."""

    def __init__(self, stack, addresses, ports):
        self._stack = stack
        self._places = [(address, port) for address in addresses for port in ports]
        self._sockets = []

    def __enter__(self):
        loop = asyncio.get_running_loop()
        for address, port in self._places:
            family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
            listener = self._stack.socket(family, socket.SOCK_STREAM)
            listener.bind((address, port))
            listener.listen()
            loop.add_reader(listener, _accept, listener)
            datagrams = self._stack.socket(family, socket.SOCK_DGRAM)
            datagrams.bind((address, port))
            loop.add_reader(datagrams, _echo, datagrams)
            self._sockets += [listener, datagrams]
        return self

    def __exit__(self, *_error):
        loop = asyncio.get_running_loop()
        for one in self._sockets:
            loop.remove_reader(one)
            one.close()


def _accept(listener):
    listener.accept()[0].close()


def _echo(datagrams):
    data, peer = datagrams.recvfrom(64)
    datagrams.sendto(data, peer)
