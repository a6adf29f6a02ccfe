"""Runs a program as netd's unit does: as an ordinary user whose only capability is CAP_NET_ADMIN.

    as_netd.py UID CAPABILITIES READABLE PROGRAM [ARGUMENT...]

CAPABILITIES is "-all,+net_admin", or "-all" to see what happens without. In a mount namespace
of its own, /dev/net/tun is open to all, as udev makes it, and the folder READABLE can be reached
even below a closed home directory.
"""

import ctypes
import os
import stat
import sys
from pathlib import Path

_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(code):
    if code:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _mount(source, target, kind, flags=0):
    arguments = [str(text).encode() for text in (source, target, kind)]
    _check(_libc.mount(*arguments, flags, None))


def _open_tun():
    _mount("tmpfs", "/dev/net", "tmpfs")
    os.mknod("/dev/net/tun", stat.S_IFCHR, os.makedev(10, 200))
    Path("/dev/net/tun").chmod(0o666)


def _open_way(folder):
    """Cover the first closed folder above `folder` by one that holds nothing but the way to it."""
    closed = [parent for parent in folder.parents if not parent.stat().st_mode & stat.S_IXOTH]
    if not closed:
        return
    held = os.open(folder, os.O_PATH)
    _mount("tmpfs", closed[-1], "tmpfs")
    closed[-1].chmod(0o755)
    folder.mkdir(parents=True)
    _mount(f"/proc/self/fd/{held}", folder, "none", _MS_BIND | _MS_REC)
    os.close(held)


def main(uid, only, readable, *program):
    _check(_libc.unshare(_CLONE_NEWNS))
    _mount("none", "/", "none", _MS_REC | _MS_PRIVATE)
    _open_tun()
    _open_way(Path(readable))
    os.execvp(
        "setpriv",
        [
            "setpriv",
            f"--reuid={uid}",
            f"--regid={uid}",
            "--clear-groups",
            f"--inh-caps={only}",
            f"--ambient-caps={only}",
            f"--bounding-set={only}",
            "--no-new-privs",
            *program,
        ],
    )


main(*sys.argv[1:])
