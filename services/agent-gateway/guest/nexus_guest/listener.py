"""Accepts connections on one port and gives each a thread of its own, up to a bound."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from nexus_guest.wire import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CONNECTIONS = 64
"""Connections at one time on a port; the next are refused."""

_BACKLOG = 128


def listen_vsock(port: int) -> socket.socket:
    """Return a listening vsock socket."""
    sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    sock.bind((socket.VMADDR_CID_ANY, port))
    sock.listen(_BACKLOG)
    return sock


def listen_unix(path: str) -> socket.socket:
    """Return a listening unix socket at `path`, which must not exist."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    sock.listen(_BACKLOG)
    return sock


class Listener:
    """Accepts on `sock`; `serve` has the connection to itself, and it is closed afterwards.

    `refuse` answers connections over the bound and must not block.
    """

    def __init__(
        self,
        sock: socket.socket,
        serve: Callable[[socket.socket], None],
        refuse: Callable[[socket.socket], None],
    ) -> None:
        self._socket = sock
        self._serve = serve
        self._refuse = refuse
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def start(self) -> None:
        """Accept from now on, in a thread."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, peer = self._socket.accept()
            except OSError:
                # Out of descriptors or memory: a connection has to end first.
                time.sleep(0.1)
                continue
            if self._socket.family == socket.AF_VSOCK and peer[0] != socket.VMADDR_CID_HOST:
                connection.close()
            elif self._free.acquire(blocking=False):
                threading.Thread(target=self._run, args=(connection,), daemon=True).start()
            else:
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(0)
                    self._refuse(connection)

    def _run(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError, WireError):
                self._serve(connection)
        finally:
            self._free.release()
