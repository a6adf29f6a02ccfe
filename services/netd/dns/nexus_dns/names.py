"""Domain names, and the patterns that allow them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import dns.exception
import dns.name

if TYPE_CHECKING:
    from collections.abc import Iterable

Labels = tuple[bytes, ...]
"""A name's labels in lower case, the root's empty one last."""

NEXUS: Labels = (b"nexus", b"")
"""The domain of VMs."""

_V4: Labels = (b"in-addr", b"arpa", b"")
_V6: Labels = (b"ip6", b"arpa", b"")
_DIGITS = b"0123456789abcdef"


def labels(name: dns.name.Name) -> Labels:
    """Return the labels of an absolute name, in lower case (RFC 4343: ASCII letters only)."""
    return tuple(label.lower() for label in name.labels)


def parse(text: str) -> Labels:
    """Return the labels of a name given as text. ValueError: it is none."""
    try:
        return labels(dns.name.from_text(text))
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(f"no domain name: {error}") from error


def is_below(name: Labels, domain: Labels) -> bool:
    """Tell whether `name` is `domain` or below it."""
    return name[-len(domain) :] == domain


class Allowed:
    """Names that rules allow, each with the slots of those rules.

    A look-up costs the same for one name as for 256: one step for each label asked for.
    """

    def __init__(self, rules: Iterable[tuple[str, int]] = ()) -> None:
        """Take patterns ("pypi.org", "*.pypi.org") with their slots. ValueError: a bad one."""
        exact: dict[Labels, set[int]] = {}
        below: dict[Labels, set[int]] = {}
        for pattern, slot in rules:
            rest = pattern.removeprefix("*.")
            if "*" in rest:
                raise ValueError('expected "NAME", or "*.NAME" for all names below it')
            table = exact if rest == pattern else below
            table.setdefault(parse(rest), set()).add(slot)
        self._exact = exact
        self._below = below

    def slots(self, name: Labels) -> tuple[int, ...]:
        """Return the slots of all rules that allow `name`, in order."""
        found = set(self._exact.get(name, ()))
        if self._below:
            for start in range(1, len(name)):
                found |= self._below.get(name[start:], set())
        return tuple(sorted(found))


_KNOWN: WeakValueDictionary[tuple[tuple[str, int], ...], Allowed] = WeakValueDictionary()


def allowed(rules: tuple[tuple[str, int], ...]) -> Allowed:
    """Return `Allowed(rules)`; guests with equal rules share one. ValueError: a bad pattern."""
    found = _KNOWN.get(rules)
    if found is None:
        found = _KNOWN[rules] = Allowed(rules)
    return found


def reverse(name: Labels) -> IPv4Network | IPv6Network | None:
    """Return the addresses that a name of the reverse tree stands for; None for other names.

    What stands before the last label that is a number is ignored, as in RFC 2317. The root of
    either tree, and a name without any number, stands for no addresses.
    """
    if is_below(name, _V4):
        octets = _numbers(name[: -len(_V4)], most=4, base=10, limit=255)
        packed = bytes(octets).ljust(4, b"\0")
        return IPv4Network((packed, 8 * len(octets))) if octets else None
    if is_below(name, _V6):
        nibbles = _numbers(name[: -len(_V6)], most=32, base=16, limit=15)
        packed = bytes.fromhex("".join(f"{nibble:x}" for nibble in nibbles).ljust(32, "0"))
        return IPv6Network((packed, 4 * len(nibbles))) if nibbles else None
    return None


def _numbers(parts: Labels, most: int, base: int, limit: int) -> list[int]:
    """Return the numbers that `parts` hold, from the last on, up to the first that is none."""
    found: list[int] = []
    for part in reversed(parts[-most:]):
        if len(part) > 3 or not all(byte in _DIGITS[:base] for byte in part):
            break
        number = int(part, base)
        if number > limit:
            break
        found.append(number)
    return found
