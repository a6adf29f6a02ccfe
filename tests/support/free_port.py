"""TCP ports on loopback that nobody listens on."""

import socket
from contextlib import ExitStack


def free_port(count=1):
    """Return the first of `count` free ports in a row."""
    while True:
        with ExitStack() as stack:
            try:
                first = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
                for offset in range(1, count):
                    stack.enter_context(socket.create_server(("127.0.0.1", first + offset)))
            except (OSError, OverflowError):
                continue
            return first
