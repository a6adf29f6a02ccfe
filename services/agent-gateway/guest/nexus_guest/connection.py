"""A connection that carries frames, over vsock or a unix socket."""

from __future__ import annotations

import contextlib
from collections import deque

from nexus_guest import wire
from nexus_guest.wire import Frame, Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from nexus_guest.errors import GuestError

_CHUNK = 1 << 16
_LINGER_S = 30.0


class Connection:
    """One connection. Sending blocks while the host is slow, which slows what produces the data.

    Methods raise OSError when the connection breaks and WireError when the host sends no frame.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._decoder = wire.Decoder()
        self._frames: deque[Frame] = deque()

    def fileno(self) -> int:
        """Return the socket's descriptor, to poll."""
        return self._socket.fileno()

    def set_timeout(self, seconds: float | None) -> None:
        """Give each receive and send so long; then they raise TimeoutError."""
        self._socket.settimeout(seconds)

    def fill(self) -> bool:
        """Receive once, blocking if nothing is there. False: the host closed the connection."""
        data = self._socket.recv(_CHUNK)
        self._frames.extend(self._decoder.feed(data))
        return bool(data)

    def take(self) -> list[Frame]:
        """Return the frames that were received and not yet looked at."""
        frames = list(self._frames)
        self._frames.clear()
        return frames

    def receive(self) -> Frame | None:
        """Return the next frame; None once the host has closed the connection."""
        while not self._frames:
            if not self.fill():
                return None
        return self._frames.popleft()

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Send a frame of bytes."""
        self._socket.sendall(wire.encode(kind, payload))

    def send_message(self, kind: Kind, message: Mapping[str, object]) -> None:
        """Send a frame of JSON."""
        self._socket.sendall(wire.encode_message(kind, message))

    def send_error(self, error: GuestError) -> None:
        """Send an ERROR frame."""
        message = error.message.encode(errors="replace").decode()
        self.send_message(Kind.ERROR, {"reason": error.reason, "message": message})

    def linger(self) -> None:
        """Wait until the host closes, dropping what it still sends.

        Firecracker drops what the host has not read 2 s after the guest closes, so the host
        closes first.
        """
        self._socket.settimeout(_LINGER_S)
        with contextlib.suppress(OSError):
            while self._socket.recv(_CHUNK):
                pass
