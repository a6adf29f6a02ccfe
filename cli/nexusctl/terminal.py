"""What the terminal at hand can show: colours, its width, and text that may be hostile."""

from __future__ import annotations

import codecs
import os
import shutil
import sys
import unicodedata
from typing import TextIO

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def coloured(stream: TextIO) -> bool:
    """Whether colours may go to `stream`: a terminal, and no NO_COLOR (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def width(stream: TextIO) -> int | None:
    """Return the columns to fit into: COLUMNS, or the terminal's; None where there is no bound."""
    if not stream.isatty() and not os.environ.get("COLUMNS"):
        return None
    return shutil.get_terminal_size().columns


def paint(text: str, style: str) -> str:
    """Return `text` in `style`, a key of the table above; any other style leaves it as it is."""
    code = _STYLES.get(style)
    return f"\x1b[{code}m{text}\x1b[0m" if code else text


def printable(text: str) -> str:
    """Return `text` without control characters: what a guest said must not steer the terminal."""
    return "".join("?" if unicodedata.category(c).startswith("C") else c for c in text)


def note(text: str) -> None:
    """Tell on standard error what the user should know though the command goes on."""
    print(f"nexusctl: note: {printable(text)}", file=sys.stderr)


class PlainConsole:
    """Console output with every control byte but tab and newline shown as caret notation.

    For a terminal: a guest's escape sequences could write files or keystrokes there. What the cut
    between two pieces parts, a character or a line's end, is shown as one.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def more(self, data: bytes) -> bytes:
        """Return what to show for the next piece."""
        text = self._held + self._decoder.decode(data)
        self._held = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r").replace("\r\n", "\n")
        return "".join(_visible(c) for c in text).encode()


def _visible(character: str) -> str:
    if character in "\n\t" or not unicodedata.category(character).startswith("C"):
        return character
    return f"^{chr(ord(character) ^ 0x40)}" if ord(character) < 0x80 else "?"
