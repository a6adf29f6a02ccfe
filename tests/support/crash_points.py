"""The points of the crash matrix: what is under way, who is struck, and when.

The points of a seed are always the same: point N of seed S can be had alone.
"""

from dataclasses import dataclass
from random import Random

UNIT = ("kill", "stop", "try-restart")
"""What somebody else has systemd do to a VM's unit."""

OPERATIONS = {
    "create": 0.6,
    "start": 2.5,
    "stop": 3.5,
    "pause": 0.4,
    "resume": 0.4,
    "delete": 0.6,
    "restart": 3.0,
}
"""What is under way, and about how many seconds it takes in an emulated dev host."""

_BIRTH = {"launcher": 0.25, "jailer": 0.05, "firecracker": 2.0}
"""Processes that a start goes through, and about how long each is there, or is booting."""


@dataclass(frozen=True)
class Point:
    """`victim` is struck `seconds` after the operation began, or after it was first seen."""

    number: int
    operation: str
    victim: str
    seconds: float
    patience: float

    def __str__(self):
        return f"{self.number}-{self.operation}-{self.victim}"


def _cells():
    """Return operation, victim and the longest delay, each as often as it is to come in a round."""
    for operation, seconds in OPERATIONS.items():
        yield operation, "power", seconds
        yield from [(operation, "vmm", seconds)] * 3
        if operation in ("start", "restart"):
            for role, lasts in _BIRTH.items():
                yield from [(operation, role, lasts)] * 2
        elif operation not in ("create", "delete"):
            yield operation, "firecracker", seconds
        if operation not in ("create", "delete"):
            yield operation, "unit", seconds


CELLS = tuple(_cells())


def points(seed, first, number):
    """Return `number` points of a seed from the one with the number `first` on."""
    return [_point(seed, one) for one in range(first, first + number)]


def _point(seed, number):
    turn, place = divmod(number, len(CELLS))
    shuffled = Random(f"{seed} {turn}").sample(CELLS, len(CELLS))
    operation, victim, longest = shuffled[place]
    random = Random(f"{seed} {number}")
    if victim == "unit":
        victim = random.choice(UNIT)
    # What has just begun is where most can go wrong.
    seconds = longest * random.random() ** 1.5
    return Point(number, operation, victim, round(seconds, 4), random.choice((0, 0, 6)))
