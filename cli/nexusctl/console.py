"""A terminal on a VM's serial console: keys go to the guest as they are, what it prints comes back.

What the guest prints steers the terminal, as that of any machine that one logs in to does.
"""

from __future__ import annotations

import asyncio
import termios
import tty
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import ResourceExhausted
from nexusctl.services import SESSION
from nexusctl.stdio import STDIN, Input, Output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nexusctl.services import Services

_SHOWN_LINES = 10
"""Of what was printed before: the prompt is the last one."""
_AT_ONCE = 4096
"""Bytes that WriteConsole takes."""
_MAX_TYPED = 64 * 1024
"""Bytes that wait for a guest that does not read; what is typed beyond rings the bell."""
_BUSY_SECONDS = 0.2
_BELL = b"\a"


class Escape:
    """Finds `~.` at the beginning of a line, which leaves, as in ssh(1); `~~` types one `~`."""

    def __init__(self) -> None:
        self.left = False
        self._at_start = True
        self._held = False

    def filter(self, keys: bytes) -> bytes:
        """Return what of `keys` goes to the guest; what comes after `~.` does not."""
        typed = bytearray()
        for key in keys:
            if self._held:
                self._held = False
                if key == ord("."):
                    self.left = True
                    break
                if key != ord("~"):
                    typed += b"~"
            elif self._at_start and key == ord("~"):
                self._held = True
                continue
            typed.append(key)
            self._at_start = key in b"\r\n"
        return bytes(typed)


@contextmanager
def raw_terminal(descriptor: int = STDIN) -> Iterator[None]:
    """Let keys pass one by one and unchanged, Ctrl-C too, until the end of the context."""
    before = termios.tcgetattr(descriptor)
    # Not TCSAFLUSH, which would drop what was typed ahead.
    tty.setraw(descriptor, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Console:
    """The terminal at hand and one VM's console."""

    def __init__(self, services: Services, vm_id: str) -> None:
        self._vmm = services.vmm
        self._vm_id = vm_id
        self._output = Output()
        self._typed = bytearray()
        self._pressed = asyncio.Event()
        self._left = False

    async def run(self) -> bool:
        """Pass keys and output until the user leaves (True), or the VM is deleted (False).

        Raises NexusError, FailedPrecondition (VM_STATE) when a key is pressed while it is not live.
        """
        printing = asyncio.create_task(self._print())
        reading = asyncio.create_task(self._read())
        sending = asyncio.create_task(self._send())
        try:
            done, _ = await asyncio.wait({printing, sending}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if sending in done:
                await reading
            return sending in done
        finally:
            for task in (printing, reading, sending):
                task.cancel()
            await asyncio.gather(printing, reading, sending, return_exceptions=True)

    async def _print(self) -> None:
        request = vmm_pb2.GetConsoleLogRequest(vm=self._vm_id, tail_lines=_SHOWN_LINES, follow=True)
        stream = self._vmm.stream(self._vmm.stub.GetConsoleLog, request, SESSION)
        async with aclosing(stream) as answers:
            async for answer in answers:
                await self._output.write(answer.data)

    async def _read(self) -> None:
        escape = Escape()
        try:
            async with aclosing(Input().chunks()) as chunks:
                async for keys in chunks:
                    typed = escape.filter(keys)
                    if len(self._typed) + len(typed) > _MAX_TYPED:
                        await self._output.write(_BELL)
                    else:
                        self._typed += typed
                    if escape.left:
                        return
                    self._pressed.set()
        finally:
            self._left = True
            self._pressed.set()

    async def _send(self) -> None:
        """Type what was pressed, until the user has left."""
        while self._typed or not self._left:
            if not self._typed:
                self._pressed.clear()
                await self._pressed.wait()
                continue
            request = vmm_pb2.WriteConsoleRequest(
                vm=self._vm_id, data=bytes(self._typed[:_AT_ONCE])
            )
            try:
                await self._vmm.ask(self._vmm.stub.WriteConsole, request)
            except ResourceExhausted:  # CONSOLE_BUSY: nothing was typed
                if self._left:
                    return
                await asyncio.sleep(_BUSY_SECONDS)
            else:
                del self._typed[: len(request.data)]
