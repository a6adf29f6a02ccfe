"""The serial console of a real VM: typed into, followed over a boot, read since a time."""

import os
import pty
import select
import subprocess
import time
from contextlib import contextmanager

import pytest

SECONDS = 60
LISTEN = 'exec <>/dev/ttyS0 >&0 2>&1; echo listening; read -r line; echo "the guest read $line"'


class Reading:
    """What a process prints, up to where a test wants it."""

    def __init__(self, process):
        self.process = process
        self.text = b""

    def until(self, text):
        deadline = time.monotonic() + SECONDS
        while text not in self.text:
            left = max(0, deadline - time.monotonic())
            assert select.select([self.process.stdout], [], [], left)[0], self.text[-1000:]
            more = os.read(self.process.stdout.fileno(), 65536)
            assert more, self.text[-1000:]
            self.text += more

    def end(self):
        """Return the exit code once it has ended by itself."""
        self.text += self.process.stdout.read()
        return self.process.wait(SECONDS)


@contextmanager
def reading(argv, **streams):
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0, **streams)
    try:
        yield Reading(process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def terminal():
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_what_is_typed_reaches_the_guest_and_its_answer_comes_back(devhost, make_vm, terminal):
    ours, theirs = terminal
    name = make_vm("typist", "--serial-input")
    listening = devhost.start_exec(name, "sh", "-c", LISTEN)
    console = devhost.nexusctl_command("vm", "console", name)
    with reading(console, stdin=theirs, stderr=subprocess.DEVNULL) as shown:
        shown.until(b"listening")
        os.write(ours, b"a line\r")
        shown.until(b"the guest read a line")
        os.write(ours, b"\r~.")
        assert shown.end() == 0
    assert listening.communicate(timeout=SECONDS)[1] == b""


def test_a_console_without_serial_input_takes_none(devhost, hello, terminal):
    console = devhost.nexusctl_command("vm", "console", hello)
    done = subprocess.run(
        console, stdin=terminal[1], capture_output=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 5
    assert b"--serial-input on" in done.stderr


def test_a_log_is_followed_over_a_boot_until_the_vm_is_deleted(devhost, make_vm):
    name = make_vm("chronicle")
    devhost.exec(name, "sh", "-c", "echo of the first boot >/dev/ttyS0")
    follow = devhost.nexusctl_command("vm", "logs", name, "--follow", "--tail", "5")
    with reading(follow) as shown:
        shown.until(b"of the first boot")
        devhost.nexusctl("vm", "stop", name)
        began = devhost.out("sleep 1; date -u +%FT%TZ")
        devhost.nexusctl("vm", "start", name, timeout=180)
        devhost.exec(name, "sh", "-c", "echo of the second boot >/dev/ttyS0")
        shown.until(b"of the second boot")

        both = devhost.nexusctl("vm", "logs", name).stdout
        assert both.index(b"of the first boot") < both.index(b"of the second boot")
        second = devhost.nexusctl("vm", "logs", name, "--since", began).stdout
        assert b"of the second boot" in second
        assert b"of the first boot" not in second

        devhost.nexusctl("vm", "delete", name, "--force", "--yes")
        assert shown.end() == 0
