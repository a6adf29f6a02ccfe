"""What tests of a guest's packets behind the bridge share."""

import socket
from contextlib import contextmanager

from packets import (
    is_refusal,
)

from nexus_netd.model import (
    Mode,
    Policy,
)

RULES = Mode.RULES


QUICKLY = 0.3
"""Seconds without a packet that count as none; one takes well under a millisecond."""


def plugged(host, *ports, more=(), silent=True):
    host.rules(*ports, more=more)
    return [host.plug(port, silent) for port in ports]


def refused(me, *packets):
    """Send packets; return how many refusals came back."""
    me.wire.heard()
    me.up(*packets)
    return len([frame for frame in me.fence() if is_refusal(frame)])


def passes(me, outside, packet, mark):
    """Send a packet; whether it came outside."""
    outside.wire.heard()
    me.up(packet)
    me.fence()
    return any(mark in frame for frame in outside.wire.heard())


def rules(*these):
    return Policy(RULES, these)


@contextmanager
def serving(stack, family, kind, address, port):
    """A socket that listens."""
    opened = stack.socket(family, kind)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((address, port))
    opened.settimeout(QUICKLY * 10)
    if kind == socket.SOCK_STREAM:
        opened.listen()
    with opened:
        yield opened


def peer_of(server):
    """Return the address that the next client is seen under."""
    client, peer = server.accept()
    client.close()
    return peer[0]


def connects(stack, address, port, seconds=2):
    """Whether TCP connects; None where it is not refused but silent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with stack.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        try:
            client.connect((address, port))
        except TimeoutError:
            return None
        except OSError:
            return False
        return True
