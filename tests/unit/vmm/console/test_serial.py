"""Typing into the FIFO of a VM."""

import os

import pytest
import vmm_guest

from nexus_rpc.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from nexus_vmm.console.serial import LIMIT, check_typable, check_typed, type_into
from nexus_vmm.states import LIVE, State

VM = vmm_guest.vm(state=State.READY, spec=vmm_guest.spec(serial_input=True))


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "serial"
    os.mkfifo(path)
    return path


@pytest.fixture
def guest(fifo):
    """Hold the FIFO as Firecracker does: open both ways, so that it has no end."""
    handle = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    yield handle
    os.close(handle)


def test_what_is_typed_arrives(fifo, guest):
    type_into(VM, fifo, b"ls\r")
    type_into(VM, fifo, b"\x04")
    assert os.read(guest, 100) == b"ls\r\x04"


def test_a_guest_that_does_not_read_is_told_and_gets_nothing_of_it(fifo, guest):
    typed = (type_into(VM, fifo, b"x" * LIMIT) for _ in range(1000))
    with pytest.raises(ResourceExhausted) as caught:
        list(typed)
    assert caught.value.reason == "CONSOLE_BUSY"
    held = os.read(guest, 10_000_000)
    assert held == b"x" * (len(held) // LIMIT * LIMIT)
    type_into(VM, fifo, b"y")


def test_a_process_that_ends_is_no_live_vm(tmp_path, fifo):
    (tmp_path / "file").touch()
    for path in (fifo, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(FailedPrecondition) as caught:
            type_into(VM, path, b"x")
        assert (caught.value.reason, caught.value.metadata["vm"]) == ("VM_STATE", "hello")
    assert (tmp_path / "file").read_bytes() == b""


def test_no_link_is_followed(tmp_path, fifo, guest):
    (tmp_path / "link").symlink_to(fifo)
    with pytest.raises(OSError, match="symbolic links"):
        type_into(VM, tmp_path / "link", b"x")


@pytest.mark.parametrize("size", [0, LIMIT + 1])
def test_what_cannot_be_typed_at_once_is_refused(size):
    with pytest.raises(InvalidArgument, match=rf"data has {size} bytes: 1 to 4096"):
        check_typed("data", bytes(size))


def test_what_can_be_typed_is_returned():
    assert check_typed("data", b"x" * LIMIT) == b"x" * LIMIT


@pytest.mark.parametrize("state", State)
def test_only_a_live_vm_with_serial_input_can_be_typed_into(state):
    reasons = {True: "", False: "NO_SERIAL_INPUT"}
    for wanted, reason in reasons.items():
        vm = vmm_guest.vm(state=state, spec=vmm_guest.spec(serial_input=wanted))
        expected = reason if state in LIVE else "VM_STATE"
        if not expected:
            check_typable(vm)
            continue
        with pytest.raises(FailedPrecondition) as caught:
            check_typable(vm)
        assert caught.value.reason == expected
