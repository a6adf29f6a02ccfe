"""What a service tells systemd, read from its $NOTIFY_SOCKET."""

import asyncio
import socket


class Notifications:
    """A socket at `path` for the time of a `with` block."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self.path))
        self.path.chmod(0o666)
        return self

    def __exit__(self, *_):
        self._socket.close()

    async def until(self, state, process, seconds=30):
        """Return once `process` has said `state`. AssertionError if it ends before."""
        heard = asyncio.create_task(self._until(state))
        ended = asyncio.create_task(process.wait())
        async with asyncio.timeout(seconds):
            await asyncio.wait({heard, ended}, return_when=asyncio.FIRST_COMPLETED)
        was_heard = heard.done()
        for task in (heard, ended):
            task.cancel()
        await asyncio.wait({heard, ended})
        assert was_heard, f"it ended with {process.returncode} before it said {state}"

    async def _until(self, state):
        loop = asyncio.get_running_loop()
        while (await loop.sock_recv(self._socket, 4096)).decode() != state:
            pass
