"""Port 200: MCP, one JSON-RPC 2.0 message a line, for both eras of the protocol.

Up to 2025-11-25 a client begins with `initialize`; from 2026-07-28 on each request carries its
version in `_meta`. Tools run in threads of their own, so that a request can be cancelled.
"""

from __future__ import annotations

import contextlib
import json
import threading

from nexus_guest import VERSION, tools
from nexus_guest.command import Gone
from nexus_guest.wire import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    Message = dict[str, object]

MAX_LINE = 8 << 20
"""Longest line that is taken, in bytes."""

MAX_CALLS = 16
"""Tool calls at one time in one session."""

_HANDSHAKE_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
_MODERN_VERSIONS = ("2026-07-28",)
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_SERVER = {"name": "nexus-guest", "version": VERSION}
_CAPABILITIES: Message = {"tools": {"listChanged": False}}
_CACHE = {"ttlMs": 3_600_000, "cacheScope": "public"}  # Changes with the agent only.

_PARSE_ERROR = -32700
_INVALID_REQUEST = -32600
_METHOD_NOT_FOUND = -32601
_INVALID_PARAMS = -32602
_BUSY = -32000
_UNSUPPORTED_VERSION = -32022


class _RpcError(Exception):
    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.answer: Message = {"code": code, "message": message}
        if data is not None:
            self.answer["data"] = data


def serve(sock: socket.socket) -> None:
    """Answer one client until it closes the connection; what it left running is cancelled."""
    session = _Session(sock)
    try:
        for line in _lines(sock):
            session.handle(line)
    except _RpcError as error:
        session.send({"id": None, "error": error.answer})
    finally:
        session.close()


def refuse(sock: socket.socket) -> None:
    """Tell the client that there are too many sessions."""
    _Session(sock).send({"id": None, "error": {"code": _BUSY, "message": "too many sessions"}})


def _lines(sock: socket.socket) -> Iterator[bytes]:
    buffer = bytearray()
    while data := sock.recv(1 << 16):
        seen = len(buffer)
        buffer += data
        while (end := buffer.find(b"\n", seen)) >= 0:
            yield bytes(memoryview(buffer)[:end])
            del buffer[: end + 1]
            seen = 0
        if len(buffer) > MAX_LINE:
            raise _RpcError(_INVALID_REQUEST, f"line of more than {MAX_LINE} bytes")


class _Session:
    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._calls: dict[str, tools.Cancellation] = {}
        self._threads: set[threading.Thread] = set()

    def handle(self, line: bytes) -> None:
        """Answer one message; calls of tools are answered later, by their threads."""
        request_id: object = None
        try:
            message = _parse(line)
            request_id = message.get("id")
            method, params = _method(message)
            if "id" not in message:
                self._notified(method, params)
            elif method == "tools/call":
                self._start(request_id, params)
            else:
                self._reply(request_id, _answer(method, params))
        except _RpcError as error:
            self.send({"id": request_id, "error": error.answer})

    def send(self, message: Message) -> None:
        """Send a message as one line."""
        line = json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode() + b"\n"
        with self._sending:
            self._socket.sendall(line)

    def close(self) -> None:
        """Cancel what runs and wait for it."""
        with self._lock:
            threads = list(self._threads)
            for call in self._calls.values():
                call.cancel()
        for thread in threads:
            thread.join()

    def _reply(self, request_id: object, result: Message) -> None:
        self.send({"id": request_id, "result": {"resultType": "complete", **result}})

    def _notified(self, method: str, params: Message) -> None:
        if method != "notifications/cancelled":
            return
        with self._lock:
            if (call := self._calls.get(_key(params.get("requestId")))) is not None:
                call.cancel()

    def _start(self, request_id: object, params: Message) -> None:
        name, arguments = params.get("name"), params.get("arguments") or {}
        if not any(tool["name"] == name for tool in tools.TOOLS):
            raise _RpcError(_INVALID_PARAMS, f"no tool {ascii(name)[:80]}")
        if not isinstance(arguments, dict):
            raise _RpcError(_INVALID_PARAMS, "arguments is no object")
        key = _key(request_id)
        thread = threading.Thread(
            target=self._run, args=(request_id, str(name), arguments), daemon=True
        )
        with self._lock:
            if key in self._calls:
                raise _RpcError(_INVALID_REQUEST, "a request with this id is running")
            if len(self._threads) >= MAX_CALLS:
                raise _RpcError(_BUSY, f"{MAX_CALLS} calls are running; wait for one to end")
            self._calls[key] = tools.Cancellation()
            self._threads.add(thread)
        thread.start()

    def _run(self, request_id: object, name: str, arguments: Message) -> None:
        try:
            result = self._call(_key(request_id), name, arguments)
            # Cancelled: the specification wants no answer. Broken connection: nobody to tell.
            if result is not None:
                with contextlib.suppress(OSError):
                    self._reply(request_id, result)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _call(self, key: str, name: str, arguments: Message) -> Message | None:
        try:
            return tools.call(name, arguments, self._calls[key])
        except Gone:
            return None
        finally:
            with self._lock:
                self._calls.pop(key).close()


def _key(request_id: object) -> str:
    # JSON's 1, 1.0 and true are equal to Python, "1" is not: ids are compared as they were written.
    return json.dumps(request_id)


def _parse(line: bytes) -> Message:
    try:
        message = parse_json(line)
    except ValueError as error:
        raise _RpcError(_PARSE_ERROR, f"not JSON: {error}"[:200]) from None
    if not isinstance(message, dict):
        raise _RpcError(_INVALID_REQUEST, f"{type(message).__name__}, expected an object")
    return message


def _method(message: Message) -> tuple[str, Message]:
    method, params = message.get("method"), message.get("params", {})
    if message.get("jsonrpc") != "2.0" or not isinstance(method, str):
        raise _RpcError(_INVALID_REQUEST, "expected jsonrpc 2.0 and a method")
    if not isinstance(message.get("id", ""), str | int):
        raise _RpcError(_INVALID_REQUEST, "id must be a string or an integer")
    if not isinstance(params, dict):
        raise _RpcError(_INVALID_PARAMS, "params is no object")
    meta = params.get("_meta")
    version = meta.get(_VERSION_KEY) if isinstance(meta, dict) else None
    if version is not None and version not in _MODERN_VERSIONS:
        data = {"supported": list(_MODERN_VERSIONS), "requested": version}
        raise _RpcError(_UNSUPPORTED_VERSION, "Unsupported protocol version", data)
    return method, params


def _answer(method: str, params: Message) -> Message:
    match method:
        case "initialize":
            wanted = params.get("protocolVersion")
            version = wanted if wanted in _HANDSHAKE_VERSIONS else _HANDSHAKE_VERSIONS[0]
            return {
                "protocolVersion": version,
                "capabilities": _CAPABILITIES,
                "serverInfo": _SERVER,
            }
        case "server/discover":
            return {
                "supportedVersions": list(_MODERN_VERSIONS),
                "capabilities": _CAPABILITIES,
                "serverInfo": _SERVER,
                **_CACHE,
            }
        case "ping":
            return {}
        case "tools/list":
            return {"tools": tools.TOOLS, **_CACHE}
    raise _RpcError(_METHOD_NOT_FOUND, f"no method {method[:80]}")
