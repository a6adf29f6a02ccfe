"""A command in the guest: started in its own session, its pipes carried, its end told."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess

from nexus_guest.errors import GuestError, from_os_error, invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    class Caller(Protocol):
        """Who asked for the command: gives its input, takes its output."""

        def fileno(self) -> int:
            """Return a descriptor that is readable when `receive` has something."""

        def received(self) -> tuple[bytes, bool]:
            """Return the input that is there already, and whether it ends with it."""

        def receive(self) -> tuple[bytes, bool]:
            """Return more input, and whether it ends with it. Raises Gone."""

        def stdout(self, data: bytes) -> None:
            """Take standard output."""

        def stderr(self, data: bytes) -> None:
            """Take standard error."""


MAX_ARGUMENTS = 1024
MAX_ARGV_BYTES = 128 << 10

_CHUNK = 1 << 16
_DRAIN = 1 << 20  # The largest pipe (fs.pipe-max-size): more was written after the command ended.
_RDHUP = select.POLLRDHUP


class Gone(Exception):
    """The caller is not there any more."""


class Command:
    """A started command. `close` must be called; until `end` was, it kills the process group."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> None:
        """Start it. GuestError COMMAND_NOT_FOUND, INVALID_FIELD or GUEST_BUSY."""
        _check(argv, cwd)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - running commands is the purpose
                argv,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise _not_started(error, argv[0]) from None
        assert self._process.stdin  # noqa: S101 - mypy does not know that PIPE gives all three
        assert self._process.stdout  # noqa: S101
        assert self._process.stderr  # noqa: S101
        self.pid = self._process.pid
        self.stdin = self._process.stdin
        self.stdout = self._process.stdout
        self.stderr = self._process.stderr
        self._ended = False
        self._stack = contextlib.ExitStack()
        for pipe in (self.stdin, self.stdout, self.stderr):
            self._stack.callback(pipe.close)
            os.set_blocking(pipe.fileno(), False)
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            self.close()
            raise from_os_error(error, argv[0]) from None
        self._stack.callback(os.close, self.pidfd)

    def end(self) -> tuple[int, int]:
        """Reap the command once `pidfd` is readable; return exit code and signal (128 + signal)."""
        status = self._process.wait()
        self._ended = True
        return (128 - status, -status) if status < 0 else (status, 0)

    def close(self) -> None:
        """Release everything; a command that has not ended is killed with its process group."""
        if not self._ended:
            # The unreaped leader keeps the group's id from being used anew.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.end()
        self._stack.close()


def run(command: Command, caller: Caller) -> tuple[int, int]:
    """Carry input and output until the command ends; return its exit code and signal.

    Processes it leaves behind do not hold this up: what they wrote by then is carried, and they
    live on. Raises Gone when the caller leaves, and what `caller` raises.
    """
    poll = select.poll()
    outputs = {command.stdout.fileno(): caller.stdout, command.stderr.fileno(): caller.stderr}
    for descriptor in (command.pidfd, *outputs):
        poll.register(descriptor, select.POLLIN)
    stdin = _Input(command, poll)
    stdin.give(*caller.received())
    while True:
        # Input is asked for only when the last was taken; that the caller left is always told.
        poll.register(caller.fileno(), _RDHUP if stdin.pending else _RDHUP | select.POLLIN)
        events = dict(poll.poll())
        of_caller = events.get(caller.fileno(), 0)
        if of_caller & (_RDHUP | select.POLLHUP | select.POLLERR):
            raise Gone
        if stdin.fileno in events:
            stdin.handle(events[stdin.fileno])
        if of_caller & select.POLLIN:
            stdin.give(*caller.receive())
        for output in outputs.keys() & events.keys():
            if not _carry(output, outputs[output], _CHUNK):
                poll.unregister(output)
                del outputs[output]
        if command.pidfd in events:
            for output, sink in outputs.items():
                _carry(output, sink, _DRAIN)
            return command.end()


class _Input:
    """A command's standard input: holds what the command has not taken, closes when told."""

    def __init__(self, command: Command, poll: select.poll) -> None:
        self._pipe = command.stdin
        self._poll = poll
        self._ended = False
        self.fileno = command.stdin.fileno()
        self.pending = b""

    def give(self, data: bytes, ended: bool) -> None:
        """Take more input; `ended` says that it was the last."""
        if self._pipe.closed:
            return
        self.pending += data
        self._ended = self._ended or ended
        self._arm()

    def handle(self, events: int) -> None:
        """Act on what poll(2) said of the pipe. POLLERR: the command has closed its end."""
        if events & select.POLLERR:
            self._close()
            return
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            self.pending = self.pending[os.write(self.fileno, self.pending) :]
        self._arm()

    def _arm(self) -> None:
        if self._ended and not self.pending:
            self._close()
        else:
            self._poll.register(self.fileno, select.POLLOUT if self.pending else 0)

    def _close(self) -> None:
        self.pending = b""
        with contextlib.suppress(KeyError):
            self._poll.unregister(self.fileno)
        self._pipe.close()
        self.fileno = -1


def _carry(output: int, sink: Callable[[bytes], None], limit: int) -> bool:
    """Give `sink` what is there, at most `limit` bytes. False: the pipe has ended."""
    while limit > 0:
        try:
            data = os.read(output, min(limit, _CHUNK))
        except BlockingIOError:
            return True
        if not data:
            return False
        sink(data)
        limit -= len(data)
    return True


def _check(argv: Sequence[str], cwd: str) -> None:
    if not 1 <= len(argv) <= MAX_ARGUMENTS or not argv[0]:
        raise invalid(
            "argv", list(argv[:1]), f"a program and at most {MAX_ARGUMENTS - 1} arguments"
        )
    if (size := sum(len(argument.encode()) + 1 for argument in argv)) > MAX_ARGV_BYTES:
        raise invalid("argv", f"{size} bytes", f"at most {MAX_ARGV_BYTES} bytes")
    if not os.path.isdir(cwd):
        raise invalid("cwd", cwd, "a directory that exists")


def _not_started(error: OSError, program: str) -> GuestError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return GuestError("COMMAND_NOT_FOUND", f"{program}: {error.strerror}")
    if error.errno == errno.ENOEXEC:  # neither a binary nor a script with "#!"
        return GuestError("FILE_DENIED", f"{program}: {error.strerror}")
    return from_os_error(error, program)
