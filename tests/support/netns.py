"""Fresh network namespaces for one thread and the threads and processes that it starts."""

import ctypes
import os
import subprocess
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

FIRST = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
"""The namespace that the test run was started in."""


def _check(code):
    if code:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def unshare():
    """Be in a new namespace from now on, with loopback up."""
    _check(_libc.unshare(_CLONE_NEWNET))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def enter(descriptor):
    """Be in the namespace of `descriptor` from now on."""
    _check(_libc.setns(descriptor, _CLONE_NEWNET))


@contextmanager
def entered(descriptor):
    """Be in the namespace of `descriptor` while the block runs."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, _CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(before, _CLONE_NEWNET))
    finally:
        os.close(before)


@contextmanager
def fresh():
    """Be in a new, empty namespace while the block runs; yields its descriptor."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        new = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield new
        finally:
            os.close(new)
            _check(_libc.setns(before, _CLONE_NEWNET))
    finally:
        os.close(before)
