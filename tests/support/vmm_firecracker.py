"""A stand-in for Firecracker: its API over a unix socket, and no machine behind it.

In a test's own loop (`Machine`), or as a process: `vmm_firecracker.py --id ID DIRECTORY`. The
directory is that of `Places.run(ID)`, with those of guest files and VMs beside the one it is in, as
vmm_guest makes them: so it finds what is called as in the jail.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
from pathlib import Path

VERSION = "1.12.1"
ELF = b"\x7fELF"


class Machine:
    """One microVM. `obeys` says whether its guest shuts down on Ctrl-Alt-Del."""

    def __init__(self, directory, vm_id="", *, obeys=True):
        self.directory = Path(directory)
        self.path = self.directory / "api/api.sock"
        self.vm_id = vm_id
        self.obeys = obeys
        self.state = "Not started"
        self.resources = {}
        self.ended = asyncio.get_running_loop().create_future()
        self.vsock = None
        self._tasks = set()

    async def serve(self, uid=None):
        """Listen as the user `uid`, for whom vmm asks the kernel (SO_PEERCRED)."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        if uid is not None:
            os.seteuid(uid)
        self.server = await asyncio.start_unix_server(self._connected, sock=listener)
        os.seteuid(os.getuid())

    def end(self, code):
        """End the process with an exit code, or with -N for signal N."""
        if not self.ended.done():
            self.ended.set_result(code)
            for task in self._tasks:
                task.cancel()
            self.server.close()
            if self.vsock:
                self.vsock.close()

    async def closed(self):
        """Return once an ended process has closed what it had open, and its directory is gone."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        shutil.rmtree(self.directory)

    async def _connected(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                length = 0
                while (header := (await reader.readline()).strip()) != b"":
                    key, _, value = header.partition(b":")
                    if key.lower() == b"content-length":
                        length = int(value)
                body = json.loads(await reader.readexactly(length) or b"{}")
                answer, status = await self._answer(method, path, body)
                payload = json.dumps(answer).encode() if answer is not None else b""
                head = f"HTTP/1.1 {status}\r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
                if payload:
                    head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
                writer.write(head.encode() + b"\r\n" + payload)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._tasks.discard(task)

    async def _answer(self, method, path, body):
        if (method, path) == ("GET", "/"):
            info = {"id": self.vm_id, "state": self.state, "vmm_version": VERSION}
            return info | {"app_name": "Firecracker"}, "200 OK"
        match method:
            case "PUT":
                fault = await self._put(path, body)
            case "PATCH" if path == "/vm":
                fault = self._halt(body["state"])
            case "PATCH" if path == "/balloon" and path in self.resources:
                fault = self._inflate(body["amount_mib"])
            case _:
                fault = f"no {method} {path}"
        if fault:
            return {"fault_message": fault}, "400 Bad Request"
        return None, "204 No Content"

    def _inflate(self, amount):
        if self.state == "Not started":
            return "The requested operation is not supported before starting the microVM."
        self.resources["/balloon"]["amount_mib"] = amount
        return None

    def _halt(self, state):
        if self.state == "Not started":
            return "The requested operation is not supported before starting the microVM."
        self.state = {"Paused": "Paused", "Resumed": "Running"}[state]
        return None

    async def _put(self, path, body):
        if path != "/actions":
            if self.state != "Not started":
                return "The requested operation is not supported after starting the microVM."
            for key in ("path_on_host", "kernel_image_path", "initrd_path"):
                if key in body and not os.access(self._outside(body[key]), os.R_OK):
                    return f"No such file or directory (os error 2) {body[key]}"
            self.resources[path] = body
            return None
        if body["action_type"] == "SendCtrlAltDel":
            if self.obeys and self.state == "Running":
                asyncio.get_running_loop().call_later(0.001, self.end, 0)
            return None
        if not _is_elf(self._outside(self.resources["/boot-source"]["kernel_image_path"])):
            return "Kernel Loader: failed to load ELF kernel image: Invalid Elf magic number"
        uds = self.directory / self.resources["/vsock"]["uds_path"]
        self.vsock = await asyncio.start_unix_server(lambda r, w: w.close(), uds)
        self.state = "Running"
        return None

    def _outside(self, path):
        """Return where the file is that has the path `path` in the jail."""
        home = self.directory.parents[1]
        if path == "/disk":
            return home / "vms" / self.vm_id / "overlay.img"
        return home / Path(path).relative_to("/")


def _is_elf(path):
    return Path(path).read_bytes()[:4] == ELF


async def main():
    """Be the process that a unit runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--id", required=True)
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--disobeys", action="store_true")
    arguments = parser.parse_args()
    machine = Machine(arguments.directory, arguments.id, obeys=not arguments.disobeys)
    await machine.serve(arguments.uid)
    return await machine.ended


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os._exit(asyncio.run(main()))
