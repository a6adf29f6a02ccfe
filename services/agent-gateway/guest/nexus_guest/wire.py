"""Frames of the guest protocol (docs/architecture.md), for both ends; no input or output here.

A frame is a length `N` (4 bytes, big-endian) and `N` bytes: one byte of kind, then the payload.
"""

from __future__ import annotations

import json
from enum import IntEnum

TYPE_CHECKING = False  # Not from typing: importing that costs 30 ms on an emulated CPU.
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

CONTROL_PORT = 100
MCP_PORT = 200
STREAM_PORT = 300

MAX_PAYLOAD = 1 << 20
"""Most bytes of payload in one frame."""

_LENGTH = 4


class WireError(Exception):
    """The peer sent what is no frame. The connection is of no further use."""


class Kind(IntEnum):
    """What a frame is."""

    REQUEST = 1
    REPLY = 2
    ERROR = 3
    DATA = 4
    END = 5
    STDOUT = 6
    STDERR = 7
    EXIT = 8


_KINDS = {int(kind): kind for kind in Kind}
_JSON = frozenset({Kind.REQUEST, Kind.REPLY, Kind.ERROR, Kind.EXIT})


class Frame:
    """One frame: JSON is in `message`, bytes are in `payload`."""

    __slots__ = ("kind", "message", "payload")

    def __init__(
        self, kind: Kind, payload: bytes = b"", message: dict[str, object] | None = None
    ) -> None:
        self.kind = kind
        self.payload = payload
        self.message: dict[str, object] = {} if message is None else message

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        return (self.kind, self.payload, self.message) == (
            other.kind,
            other.payload,
            other.message,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Frame({self.kind.name}, {len(self.payload)} bytes, {self.message!r})"


def encode(kind: Kind, payload: bytes | bytearray | memoryview = b"") -> bytes:
    """Return the frame of that kind. ValueError if `payload` is longer than MAX_PAYLOAD."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"payload of {len(payload)} bytes, at most {MAX_PAYLOAD} fit a frame")
    return b"".join(((len(payload) + 1).to_bytes(_LENGTH, "big"), bytes((kind,)), payload))


def encode_message(kind: Kind, message: Mapping[str, object]) -> bytes:
    """Return the frame of that kind with `message` as JSON. ValueError if it is too long."""
    return encode(kind, json.dumps(message, separators=(",", ":")).encode())


class Decoder:
    """Turns a stream of bytes, cut anywhere, into frames.

    Keeps at most one unfinished frame. A length or kind that cannot be is refused before the
    payload is kept.
    """

    __slots__ = ("_buffer", "_error")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._error: WireError | None = None

    @property
    def pending(self) -> bool:
        """Whether the stream is in the middle of a frame."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes. WireError once the stream holds what is none."""
        if self._error is not None:
            raise self._error
        try:
            return self._decode(data)
        except WireError as error:
            self._error = error
            self._buffer.clear()
            raise

    def _decode(self, data: bytes) -> list[Frame]:
        buffer = self._buffer
        buffer += data
        frames = []
        start = 0
        while (have := len(buffer) - start) >= _LENGTH:
            body = start + _LENGTH
            length = int.from_bytes(buffer[start:body], "big")
            if not 1 <= length <= MAX_PAYLOAD + 1:
                raise WireError(f"frame of {length} bytes, expected 1 to {MAX_PAYLOAD + 1}")
            if have == _LENGTH:
                break
            kind = _KINDS.get(buffer[body])
            if kind is None:
                raise WireError(f"frame of kind {buffer[body]}, expected 1 to {len(_KINDS)}")
            if kind is Kind.END and length != 1:
                raise WireError(f"END with {length - 1} bytes of payload, expected none")
            if have < _LENGTH + length:
                break
            start = body + length
            frames.append(_frame(kind, bytes(memoryview(buffer)[body + 1 : start])))
        del buffer[:start]
        return frames


def _frame(kind: Kind, payload: bytes) -> Frame:
    if kind not in _JSON:
        return Frame(kind, payload)
    return Frame(kind, message=_object(kind, payload))


def _object(kind: Kind, payload: bytes) -> dict[str, object]:
    try:
        message = parse_json(payload)
    except ValueError as error:
        raise WireError(f"{kind.name} is not JSON: {error}") from None
    if not isinstance(message, dict):
        raise WireError(f"{kind.name} is {type(message).__name__}, expected a JSON object")
    return message


def parse_json(data: bytes) -> object:
    """Return the value of a JSON text. ValueError if it is none, or one that no peer should send.

    That is: NaN and infinities, nesting past Python's limit, lone surrogates (RFC 7493, 2.1),
    which break whoever encodes the text later.
    """
    try:
        value: object = json.loads(data.decode(), parse_constant=_no_constant)
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
