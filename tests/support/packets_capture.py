"""Ears: what arrived at a place, as evidence."""

import asyncio
import socket

_LONGEST_FRAME = 65_575  # IPv6's longest, and an Ethernet header with a tag
_ENOUGH = 1 << 23
_SO_RCVBUFFORCE = 33


class Ear:
    """Frames heard at one place, in the order in which they came.

    `sources` are functions that each return the next frame there, or raise BlockingIOError;
    `woken` is set when one has come.
    """

    def __init__(self, woken, *sources):
        self.frames = []
        self._sources = sources
        self._woken = woken

    def drain(self):
        """Take in all that is there by now."""
        for source in self._sources:
            while True:
                try:
                    self.frames.append(source())
                except BlockingIOError:
                    break
                self._woken.set()

    def with_(self, words):
        """Return the frames that hold `words`."""
        self.drain()
        return [frame for frame in self.frames if words in frame]

    async def until(self, words, seconds):
        """Return the first frame that holds `words`, None where there was none in that time."""
        return await heard(self._woken, seconds, lambda: next(iter(self.with_(words)), None))

    def forget(self):
        """Forget what was heard."""
        self.drain()
        self.frames.clear()


async def heard(woken, seconds, find):
    """Return what `find` finds in ears that `woken` is of, None if that is nothing in the time."""
    try:
        async with asyncio.timeout(seconds):
            while not (found := find()):
                woken.clear()
                await woken.wait()
    except TimeoutError:
        return None
    return found


def listening(woken, sockets, stack):
    """Return an ear at sockets that are closed with `stack`."""

    def reader(opened):
        return lambda: opened.recv(_LONGEST_FRAME)

    for opened in sockets:
        stack.callback(opened.close)
    ear = Ear(woken, *map(reader, sockets))
    loop = asyncio.get_running_loop()
    for opened in sockets:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ENOUGH)
        loop.add_reader(opened, ear.drain)
        stack.callback(loop.remove_reader, opened)
    return ear
