"""Types of options: each makes a value of a text, or says why it is none."""

from __future__ import annotations

import argparse
import re

_SIZE = re.compile(r"(?P<mib>[0-9]{1,9})M?|(?P<gib>[0-9]{1,6})G", re.IGNORECASE)
_RATE = re.compile(r"(?P<number>[0-9]{1,12})(?P<unit>[KMG]?)", re.IGNORECASE)
_RESTART = re.compile(
    r"(?P<condition>none|on-boot|always|on-failure)(:(?P<delay>backoff|immediate|fixed=[0-9]{1,4}s?))?"
)
_UNITS = {"": 1, "K": 1_000, "M": 1_000_000, "G": 1_000_000_000}


def positive(text: str) -> int:
    """Return a whole number from 1."""
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return value


def whole(text: str) -> int:
    """Return a whole number below a thousand million."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def seconds(text: str) -> float:
    """Return seconds, more than none and at most a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to a day")
    return value


def mebibytes(text: str) -> int:
    """Return a size in MiB."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size in MiB, such as 512 or 2G")
    return int(match["gib"]) * 1024 if match["gib"] else int(match["mib"])


def rate(text: str) -> int:
    """Return a number a second; K, M and G are thousands, millions and thousand millions."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate, such as 500K or 10M")
    return int(match["number"]) * _UNITS[match["unit"].upper()]


def restart(text: str) -> tuple[str, str, int]:
    """Return condition, delay and, of a fixed delay, seconds of a restart policy."""
    match = _RESTART.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not none, on-boot, always or on-failure, alone or with :backoff, "
            ":immediate or :fixed=5s"
        )
    delay, _, seconds = (match["delay"] or "backoff").partition("=")
    return match["condition"], delay, int(seconds.removesuffix("s") or 0)


def variable(text: str) -> tuple[str, str]:
    """Return key and value of an environment variable."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not K=V")
    return key, value


def allowed(text: str) -> tuple[str, str]:
    """Return the text of a rule with its action; rules of both actions keep their order so."""
    return "allow", text


def denied(text: str) -> tuple[str, str]:
    """Return the text of a rule with its action."""
    return "deny", text
