"""Typing into the serial console of a VM: the FIFO that is Firecracker's standard input.

The launcher makes it, and it is open for reading as long as the process lives. A write of up to
PIPE_BUF bytes to a FIFO is whole or not at all (pipe(7)), and with O_NONBLOCK neither open nor
write waits; what the guest has not read yet is bounded by the pipe's capacity, 64 KiB.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from nexus_rpc.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from nexus_vmm.states import LIVE

if TYPE_CHECKING:
    from pathlib import Path

    from nexus_vmm.vm import Vm

LIMIT = 4096
"""Bytes that are typed at once, PIPE_BUF on Linux."""


def check_typed(field: str, data: bytes) -> bytes:
    """Return `data` if it can be typed at once. Raises InvalidArgument (INVALID_FIELD)."""
    if 1 <= len(data) <= LIMIT:
        return data
    raise InvalidArgument(
        "INVALID_FIELD", f"{field} has {len(data)} bytes: 1 to {LIMIT}", field=field
    )


def check_typable(vm: Vm) -> None:
    """Raise FailedPrecondition (VM_STATE, NO_SERIAL_INPUT) where nothing can be typed."""
    if vm.state not in LIVE:
        raise _not_live(vm, str(vm.state))
    if not vm.spec.serial_input:
        raise FailedPrecondition(
            "NO_SERIAL_INPUT",
            f"VM {vm.name!r} was started without serial_input; stop it, set that, and start it",
            vm=vm.name,
        )


def type_into(vm: Vm, path: Path, data: bytes) -> None:
    """Type `data`, at most `LIMIT` bytes, into the FIFO at `path`; never waits.

    Raises FailedPrecondition (VM_STATE) and ResourceExhausted (CONSOLE_BUSY).
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        # ENXIO: nobody has it open for reading (fifo(7)).
        if error.errno in (errno.ENOENT, errno.ENXIO):
            raise _not_live(vm, "ending") from error
        raise
    try:
        if not stat.S_ISFIFO(os.fstat(handle).st_mode):
            raise _not_live(vm, "ending")
        os.write(handle, data)
    except BlockingIOError as error:
        raise ResourceExhausted(
            "CONSOLE_BUSY",
            f"the guest of VM {vm.name!r} does not read its console; nothing was typed, repeat it",
            vm=vm.name,
        ) from error
    except BrokenPipeError as error:
        raise _not_live(vm, "ending") from error
    finally:
        os.close(handle)


def _not_live(vm: Vm, state: str) -> FailedPrecondition:
    return FailedPrecondition(
        "VM_STATE",
        f"VM {vm.name!r} is {state}: nothing can be typed (the VM is not live)",
        vm=vm.name,
        state=state,
    )
