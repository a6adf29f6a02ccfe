"""The log writer of a VM's console: rotatelogs(8), as a user of its own, behind a pipe.

It keeps raw bytes and unfinished lines, and drops output rather than stall the guest when the disk
is full. If it dies, Firecracker goes on: it ignores SIGPIPE. It goes round a few files in the VM's
directory `console`; what earlier boots printed vmm has put aside (nexus_vmm.console.pieces).
"""

import _signal  # type: ignore[import-not-found]  # `signal` itself would cost 12 ms
import os

from nexus_launch import Refused, cgroup

ROTATELOGS = "/usr/bin/rotatelogs"
ARGUMENTS = ("-n", "5", "log", "64K")


def open_directory(home: int, vmm: int, gid: int) -> int:
    """Return a handle of the directory of the log, which is vmm's, once the writer may write."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open("console", flags, dir_fd=home)
    found = os.fstat(directory)
    if found.st_uid != vmm or found.st_mode & 0o070 != 0o070:
        raise Refused("console: it is not vmm's, or its group may not write")
    if found.st_gid != gid:
        os.chown(directory, -1, gid)
    return directory


def start_writer(unit: str, directory: int, uid: int, gid: int) -> int:
    """Start the log writer. Returns the end of the pipe to write to."""
    output, console = os.pipe()
    if os.fork():
        os.close(output)
        return console
    try:
        # The unit's stop is meant for Firecracker; the log ends when its output does.
        _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)
        os.dup2(output, 0)
        cgroup.join(unit, "log")
        os.fchdir(directory)
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        os.umask(0o007)
        os.execv(ROTATELOGS, ["rotatelogs", *ARGUMENTS])  # noqa: S606  # no shell wanted
    except OSError as error:
        os.write(2, f"nexus-vm-launch: no console log: {error}\n".encode())
    finally:
        os._exit(1)
