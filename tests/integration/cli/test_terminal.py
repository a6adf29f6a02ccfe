"""What only a terminal gets: questions, colours, progress."""

import asyncio
import os
import pty
import select
import termios

import pytest

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import FailedPrecondition, ResourceExhausted


class Terminal:
    """Both ends of a pseudo-terminal."""

    def __init__(self):
        self.ours, self.theirs = pty.openpty()
        self.text = ""

    async def until(self, text):
        """Read until `text` was shown."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20):
            while text not in self.text:
                readable = asyncio.Event()
                loop.add_reader(self.ours, readable.set)
                await readable.wait()
                loop.remove_reader(self.ours)
                self.text += os.read(self.ours, 4096).decode()

    def rest(self):
        """Return all that was shown."""
        while select.select([self.ours], [], [], 0)[0]:
            self.text += os.read(self.ours, 4096).decode()
        return self.text

    def type(self, text):
        os.write(self.ours, text.encode())


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    os.close(terminal.ours)
    os.close(terminal.theirs)


async def start(nexusctl, terminal, *arguments, **options):
    tty = terminal.theirs
    environment = {"TERM": "xterm", **options.pop("env", {})}
    streams = {"stdin": tty, "stdout": tty, "stderr": tty} | options
    return await nexusctl.start(*arguments, env=environment, **streams)


@pytest.mark.parametrize(
    ("answer", "code", "remains"),
    [("y", 0, False), ("YES", 0, False), ("n", 1, True), ("", 1, True)],
)
async def test_delete_asks(nexusctl, fakes, terminal, answer, code, remains):
    fakes.add_vm("hello")
    process = await start(nexusctl, terminal, "vm", "delete", "hello")
    await terminal.until("[y/N] ")
    assert fakes.calls == ["GetVm"]
    terminal.type(f"{answer}\n")
    assert (await nexusctl.end(process)).code == code
    assert bool(fakes.vms) == remains


async def test_what_cannot_be_deleted_is_not_asked_about(nexusctl, fakes, terminal):
    fakes.add_vm("hello", vmm_pb2.VM_STATE_READY)
    process = await start(nexusctl, terminal, "vm", "delete", "hello")
    assert (await nexusctl.end(process)).code == 5
    assert "[y/N]" not in terminal.rest()


async def test_exec_on_a_terminal_reads_no_input(nexusctl, fakes, terminal):
    fakes.add_vm("hello", vmm_pb2.VM_STATE_READY)
    process = await start(nexusctl, terminal, "vm", "exec", "hello", "--", "exit", "4")
    assert (await nexusctl.end(process)).code == 4


async def test_colours(nexusctl, fakes, terminal):
    fakes.add_vm("hello", vmm_pb2.VM_STATE_READY)
    await nexusctl.end(await start(nexusctl, terminal, "vm", "list"))
    assert "\x1b[32mready" in terminal.rest()


async def test_no_colours_where_none_are_wanted(nexusctl, fakes, terminal):
    fakes.add_vm("hello", vmm_pb2.VM_STATE_READY)
    process = await start(nexusctl, terminal, "vm", "list", env={"NO_COLOR": "1"})
    await nexusctl.end(process)
    assert "ready" in terminal.rest()
    assert "\x1b[" not in terminal.text


async def test_a_hostile_console_does_not_steer_the_terminal(nexusctl, fakes, terminal):
    fakes.add_vm("hello")
    fakes.console = b"\x1b]0;owned\x07\x9b31mtext\n"
    await nexusctl.end(await start(nexusctl, terminal, "vm", "logs", "hello"))
    assert "^[]0;owned^G" in terminal.rest()
    assert "\x1b" not in terminal.text


@pytest.fixture
def typable(fakes):
    vm = fakes.add_vm("hello", vmm_pb2.VM_STATE_READY)
    vm.spec.serial_input = True
    fakes.console = b"old\nlogin: "
    return vm


async def end(nexusctl, process, fakes, terminal):
    """Return how a console ended, and check that the terminal is as it was before."""
    done = await nexusctl.end(process)
    assert termios.tcgetattr(terminal.theirs)[3] & termios.ICANON
    assert fakes.typed.empty()
    return done


async def typed(fakes, count):
    """Return the next `count` bytes that the guest gets."""
    got = b""
    async with asyncio.timeout(20):
        while len(got) < count:
            got += await fakes.typed.get()
    return got


async def test_a_console_passes_keys_and_output_as_they_are(nexusctl, fakes, terminal, typable):
    process = await start(nexusctl, terminal, "vm", "console", "hello")
    await terminal.until("login: ")
    terminal.type("root\r\x03~")
    assert await typed(fakes, 7) == b"root\r\x03~"
    fakes.printed.put_nowait(vmm_pb2.GetConsoleLogResponse(data=b"\x1b[1m# \r\n"))
    await terminal.until("\x1b[1m# \r\n")
    terminal.type("ls\r~")
    assert await typed(fakes, 3) == b"ls\r"
    terminal.type(".never sent")
    assert (await end(nexusctl, process, fakes, terminal)).code == 0
    assert terminal.rest().endswith("[left]\r\n")
    assert "~. at the beginning of a line leaves" in terminal.text


async def test_a_guest_that_does_not_read_gets_the_keys_later(nexusctl, fakes, terminal, typable):
    fakes.fail("WriteConsole", ResourceExhausted("CONSOLE_BUSY", "the guest does not read"))
    process = await start(nexusctl, terminal, "vm", "console", "hello")
    await terminal.until("login: ")
    terminal.type("a")
    assert await typed(fakes, 1) == b"a"
    assert fakes.calls.count("WriteConsole") == 2
    fakes.printed.put_nowait(None)
    assert (await end(nexusctl, process, fakes, terminal)).code == 0
    assert terminal.rest().endswith("[hello was deleted]\r\n")


async def test_a_guest_that_does_not_read_keeps_nobody(nexusctl, fakes, terminal, typable):
    for _ in range(100):
        fakes.fail("WriteConsole", ResourceExhausted("CONSOLE_BUSY", "the guest does not read"))
    process = await start(nexusctl, terminal, "vm", "console", "hello")
    await terminal.until("login: ")
    terminal.type("a\r~.")
    assert (await end(nexusctl, process, fakes, terminal)).code == 0


async def test_typing_into_a_vm_that_is_not_live_ends_it(nexusctl, fakes, terminal, typable):
    fakes.fail("WriteConsole", FailedPrecondition("VM_STATE", "VM 'hello' is stopped"))
    process = await start(nexusctl, terminal, "vm", "console", "hello")
    await terminal.until("login: ")
    terminal.type("a")
    assert (await end(nexusctl, process, fakes, terminal)).code == 5
    assert "VM 'hello' is stopped" in terminal.rest()


async def test_a_console_that_takes_no_input_is_not_opened(nexusctl, fakes, terminal):
    fakes.add_vm("hello", vmm_pb2.VM_STATE_READY)
    process = await start(nexusctl, terminal, "vm", "console", "hello")
    assert (await nexusctl.end(process)).code == 5
    assert "vm update hello --serial-input on" in terminal.rest()
    assert fakes.calls == ["GetVm"]


async def test_a_signal_leaves_the_terminal_as_it_was(nexusctl, fakes, terminal, typable):
    process = await start(nexusctl, terminal, "vm", "console", "hello")
    await terminal.until("login: ")
    process.terminate()
    assert (await end(nexusctl, process, fakes, terminal)).code == 143


async def test_progress_of_what_takes_over_a_second(nexusctl, fakes, terminal):
    fakes.add_vm("hello")
    slow = asyncio.Event()
    fakes.fail("StartVm", slow)
    process = await start(nexusctl, terminal, "vm", "start", "hello")
    await terminal.until("starting hello (1 s)")
    slow.set()
    assert (await nexusctl.end(process)).code == 0
    assert terminal.rest().endswith("\r\x1b[2Khello is ready\r\n")


async def test_no_progress_without_a_terminal(nexusctl, fakes, terminal):
    fakes.add_vm("hello")
    slow = asyncio.Event()
    fakes.fail("StartVm", slow)
    process = await start(
        nexusctl, terminal, "vm", "start", "hello", stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        await fakes.called["StartVm"].wait()
    asyncio.get_running_loop().call_later(1.5, slow.set)
    done = await nexusctl.end(process)
    assert (done.code, done.err) == (0, "")
