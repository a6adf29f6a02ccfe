"""Types of options: each makes a value of a text, or says why it is none."""

from __future__ import annotations

import argparse
import re
import time
from datetime import datetime

_SIZE = re.compile(r"(?P<mib>[0-9]{1,9})M?|(?P<gib>[0-9]{1,6})G", re.IGNORECASE)
_RATE = re.compile(r"(?P<number>[0-9]{1,12})(?P<unit>[KMG]?)", re.IGNORECASE)
_RESTART = re.compile(
    r"(?P<condition>none|on-boot|always|on-failure)(:(?P<delay>backoff|immediate|fixed=[0-9]{1,4}s?))?"
)
_TTL = re.compile(
    r"(none|((max=)?(?P<max>[0-9]{1,8}[smhd]?))?(,?idle=(?P<idle>[0-9]{1,8}[smhd]?))?)"
    r"(:(?P<action>stop|pause|delete))?"
)
_AGO = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>[smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
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


def ttl(text: str) -> tuple[int, int, str]:
    """Return the seconds of a time to live, those of idleness, and what happens then."""
    match = _TTL.fullmatch(text)
    times = () if match is None else (match["max"], match["idle"])
    if match is None or text[:1] in {"", ",", ":"} or any(map(_is_none, times)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not none, nor a time such as 8h or idle=30m, or both, 8h,idle=30m, alone "
            "or with :stop, :pause or :delete"
        )
    longest, idle = map(_duration, times)
    return longest, idle, match["action"] or "stop"


def _is_none(text: str | None) -> bool:
    return text is not None and not _duration(text)


def _duration(text: str | None) -> int:
    if not text:
        return 0
    return int(text[:-1]) * _SECONDS[text[-1]] if text[-1] in _SECONDS else int(text)


def revision(text: str) -> int:
    """Return a revision of vmm's changes."""
    if not (text.isascii() and text.isdigit() and int(text) < 2**64):
        raise argparse.ArgumentTypeError(f"{text!r} is not a revision, as vm watch tells it")
    return int(text)


def tag(text: str) -> tuple[str, str]:
    """Return key and value of a tag."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not K=V")
    return key, value


def wanted_tag(text: str) -> tuple[str, str]:
    """Return key and value of a tag that is looked for; without a value, any has it."""
    key, equals, value = text.partition("=")
    if not key or (equals and not value):
        raise argparse.ArgumentTypeError(f"{text!r} is not K=V, nor K for any value")
    return key, value


def since(text: str) -> int:
    """Return a time in microseconds since the epoch, of an RFC 3339 time or of how long ago."""
    if match := _AGO.fullmatch(text):
        ago = int(match["number"]) * _SECONDS[match["unit"]]
        return max(0, int((time.time() - ago) * 1_000_000))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    # Of a time without its offset it is unknown whose clock told it.
    if moment is None or moment.tzinfo is None or moment.year < 1970:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not how long ago, such as 30s, 10m, 2h or 3d, nor a time with its "
            "offset, such as 2026-01-31T12:00:00Z"
        )
    return max(0, int(moment.timestamp() * 1_000_000))


def variable(text: str) -> tuple[str, str]:
    """Return key and value of an environment variable."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not K=V")
    return key, value


def setting(text: str) -> tuple[str, str]:
    """Return name and value of a setting; an empty value takes the default again."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def allowed(text: str) -> tuple[str, str]:
    """Return the text of a rule with its action; rules of both actions keep their order so."""
    return "allow", text


def denied(text: str) -> tuple[str, str]:
    """Return the text of a rule with its action."""
    return "deny", text
