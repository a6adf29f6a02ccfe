"""The real guest agent, outside of a VM, and the host's end of its connections."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

from nexus_guest import wire
from nexus_guest.wire import Decoder, Frame, Kind

PATIENCE_S = 20.0


class Host:
    """The host's end of a connection to the agent."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(str(path))
        self._decoder = Decoder()
        self._frames: list[Frame] = []

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        self.socket.sendall(wire.encode(kind, payload))

    def request(self, op: object, **fields: object) -> None:
        self.socket.sendall(wire.encode_message(Kind.REQUEST, {"op": op, **fields}))

    def receive(self) -> Frame | None:
        while not self._frames:
            data = self.socket.recv(65536)
            if not data:
                return None
            self._frames = self._decoder.feed(data)
        return self._frames.pop(0)

    def message(self, kind: Kind) -> dict[str, object]:
        frame = self.receive()
        assert frame is not None
        assert frame.kind is kind, frame
        return frame.message

    def error(self) -> str:
        return str(self.message(Kind.ERROR)["reason"])

    def output(self) -> tuple[bytes, bytes, dict[str, object]]:
        """Receive until EXIT: standard output, standard error, the exit."""
        out, err = bytearray(), bytearray()
        while (frame := self.receive()) is not None and frame.kind is not Kind.EXIT:
            (out if frame.kind is Kind.STDOUT else err).extend(frame.payload)
        assert frame is not None
        return bytes(out), bytes(err), frame.message

    def close(self) -> None:
        self.socket.close()


class Agent:
    """The real agent in a process of its own, on unix sockets in `directory`."""

    def __init__(self, directory: Path, pid: int, hosts: contextlib.ExitStack) -> None:
        self.directory = directory
        self.pid = pid
        self._hosts = hosts

    def connect(self, port: int) -> Host:
        host = Host(self.directory / f"{port}.sock")
        self._hosts.callback(host.close)
        return host

    def close(self) -> None:
        """Close every connection to the agent."""
        self._hosts.close()

    def stream(self, op: object, **fields: object) -> Host:
        host = self.connect(wire.STREAM_PORT)
        host.request(op, **fields)
        return host

    def run(self, *argv: str, stdin: bytes = b"", **fields: object):
        host = self.stream("exec", argv=list(argv), **fields)
        if stdin:
            host.send(Kind.DATA, stdin)
        host.send(Kind.END)
        assert host.message(Kind.REPLY)["pid"]
        return host.output()

    def children(self) -> set[int]:
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):
                text += " " + (task / "children").read_text()
        return {int(pid) for pid in text.split()}


def start(directory: Path) -> subprocess.Popen[bytes]:
    """Start an agent; its last listener is there when this returns."""
    process = subprocess.Popen([sys.executable, "-m", "nexus_guest", "--unix", str(directory)])
    for port in (wire.CONTROL_PORT, wire.MCP_PORT, wire.STREAM_PORT):
        path = directory / f"{port}.sock"
        while not path.exists():
            assert process.poll() is None, "the agent ended"
            select.select([], [], [], 0.01)
    return process


def wait_until_reaped(pid: int) -> None:
    """Wait for a process that is not our child to end and to leave no zombie."""
    wait_until_gone(pid)
    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{pid}").exists():  # nothing tells the reaping, so this looks again
        assert time.monotonic() < deadline, f"process {pid} stays a zombie"
        time.sleep(0.01)


def wait_until_gone(pid: int) -> None:
    """Wait for a process that is not our child to end."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], PATIENCE_S)[0], f"process {pid} lives"
    finally:
        os.close(fd)
