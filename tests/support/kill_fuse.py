"""A fuse in memory that two processes share: the one sets it, the other counts it down."""

import mmap
import os
import struct

_SIZE = 4_096
_SIDES = ("", "before", "after")
_STATE = struct.Struct("=qq16s")  # points left, the side's number, what the last point was
_PASSED = struct.Struct("=q")


class Fuse:
    """Counts points down to the one where the process is to die. Not set, it only counts them."""

    def __init__(self, descriptor):
        self._memory = mmap.mmap(descriptor, _SIZE)

    @classmethod
    def new(cls):
        """Return a fuse and its descriptor, to be given to another process."""
        descriptor = os.memfd_create("fuse")
        os.truncate(descriptor, _SIZE)
        return cls(descriptor), descriptor

    def set(self, points, side):
        """Let the process die before or after the point that is `points` from now, 1 the next."""
        _STATE.pack_into(self._memory, 0, points, _SIDES.index(side), b"")

    def unset(self):
        _STATE.pack_into(self._memory, 0, 0, 0, b"")

    @property
    def is_set(self):
        return bool(_STATE.unpack_from(self._memory)[1])

    @property
    def blown(self):
        """What the process died at, "netlink" for instance; empty while it lives."""
        left, side, what = _STATE.unpack_from(self._memory)
        return what.rstrip(b"\0").decode() if side and not left else ""

    @property
    def passed(self):
        """How many points there were since it was made."""
        return _PASSED.unpack_from(self._memory, _STATE.size)[0]

    @property
    def state(self):
        """Points left, the side, and what the last point was."""
        left, side, what = _STATE.unpack_from(self._memory)
        return left, _SIDES[side], what.rstrip(b"\0").decode()

    def count(self, what):
        """Count one point; return on which side of it to die, "" to live."""
        _PASSED.pack_into(self._memory, _STATE.size, self.passed + 1)
        left, side, _ = _STATE.unpack_from(self._memory)
        if not side or left < 1:
            return ""
        _STATE.pack_into(self._memory, 0, left - 1, side, what.encode())
        return _SIDES[side] if left == 1 else ""
