"""The types of settings: each makes a value of a text, or says what was expected.

A value has one text (`str(value)`), so that texts can be compared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

ASSET = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
"""The name of an image or a kernel: it leads out of no directory."""

ASSET_RANGE = "1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"

_WHOLE = re.compile(r"[0-9]{1,12}", re.ASCII)
_RATIO = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?", re.ASCII)


class Kind(Protocol):
    """A type of settings."""

    @property
    def range(self) -> str:
        """What values are allowed, for people."""

    def parse(self, text: str) -> object:
        """Return the value that `text` stands for. Raises ValueError."""


@dataclass(frozen=True)
class Whole:
    """A whole number. `zero` says what 0 stands for where that is none of the range."""

    least: int
    most: int
    zero: str = ""

    @property
    def range(self) -> str:
        """What values are allowed, for people."""
        return f"{self.least:,} to {self.most:,}" + (f"; 0: {self.zero}" if self.zero else "")

    def parse(self, text: str) -> int:
        """Return the number. Raises ValueError."""
        if _WHOLE.fullmatch(text) is None:
            raise ValueError(self.range)
        value = int(text)
        if not (self.least <= value <= self.most or (value == 0 and self.zero)):
            raise ValueError(self.range)
        return value


@dataclass(frozen=True)
class Ratio:
    """A number with at most three decimals."""

    least: float
    most: float

    @property
    def range(self) -> str:
        """What values are allowed, for people."""
        return f"{self.least:g} to {self.most:g}"

    def parse(self, text: str) -> float:
        """Return the number. Raises ValueError."""
        if _RATIO.fullmatch(text) is None or not self.least <= float(text) <= self.most:
            raise ValueError(self.range)
        return float(text)


@dataclass(frozen=True)
class Asset:
    """The name of an image or a kernel."""

    @property
    def range(self) -> str:
        """What values are allowed, for people."""
        return ASSET_RANGE

    def parse(self, text: str) -> str:
        """Return the name. Raises ValueError."""
        if ASSET.fullmatch(text) is None:
            raise ValueError(self.range)
        return text
