"""Tells a person what is being done and how long it took; on a terminal, while it is done."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH = 44


@contextmanager
def step(title: str) -> Iterator[list[str]]:
    """Print `title` and the seconds its block took. What the block appends is printed behind."""
    begin = time.monotonic()
    done = threading.Event()
    notes: list[str] = []
    ticker = threading.Thread(target=_tick, args=(title, begin, done), daemon=True)
    if sys.stdout.isatty():
        ticker.start()
    outcome = "failed"
    try:
        yield notes
        outcome = ""
    finally:
        done.set()
        if ticker.is_alive():
            ticker.join()
        seconds = time.monotonic() - begin
        words = "  ".join(filter(None, [outcome, *notes]))
        print(_line(title, seconds) + (f"  {words}" if words else ""), flush=True)


def _line(title: str, seconds: float) -> str:
    return f"  {title:<{_WIDTH}} {seconds:6.1f} s"


def _tick(title: str, begin: float, done: threading.Event) -> None:
    while not done.wait(0.2):
        print(_line(title, time.monotonic() - begin), end="\r", flush=True)
    print("\r\033[K", end="")
