"""An event loop whose time is made up: it passes only when there is nothing else to do.

What threads would do (`asyncio.to_thread`, a database's thread) happens on the loop, one job after
the other, so a run depends on nothing but its code and its seed, and an hour takes no time.
"""

import asyncio
from contextlib import contextmanager
from unittest import mock

_EPOCH = 1_800_000_000


class VirtualLoop(asyncio.BaseEventLoop):
    """`delay()` gives the seconds that a job of a thread takes.

    `about(work)` is called before such a job, and its error is the job's; `ran(work)` after it. A
    caller that is cancelled meanwhile does not stop a job, as with a thread.
    """

    def __init__(self, delay=lambda: 0.0, now=0.0):
        super().__init__()
        self._selector = self
        self._clock_resolution = 1e-9
        self._now = self._free = now
        self.delay = delay
        self.about = self.ran = lambda work: None
        self.wall = 0
        """What the host's wall clock was set forward by, in seconds."""
        self.booted = 0.0
        """When the host booted, in this loop's time."""

    def time(self):
        return self._now

    def select(self, timeout):
        if timeout is None:
            raise AssertionError("nothing can happen any more: somebody waits for ever")
        self._now += timeout
        return []

    def _process_events(self, events):
        pass

    def _write_to_self(self):
        pass

    def run_in_executor(self, executor, func, *args):
        outcome = self.create_future()
        self._free = max(self._free, self._now) + self.delay()
        self.call_at(self._free, self._job, outcome, func, args)
        return outcome

    def _job(self, outcome, func, args):
        try:
            self.about(func)
            result = func(*args)
        except Exception as error:  # noqa: BLE001  # it is the caller's
            _settle(outcome, outcome.set_exception, error)
        else:
            _settle(outcome, outcome.set_result, result)
        self.ran(func)

    @contextmanager
    def clocks(self):
        """Let Python's clocks of the host tell this loop's time while the block runs."""

        def nanoseconds():
            return (_EPOCH + int(self.wall)) * 1_000_000_000 + int(self._now * 1e9)

        def since_boot(_):
            return int((self._now - self.booted) * 1e9)

        def seconds():
            return nanoseconds() / 1e9

        with (
            mock.patch("time.time_ns", nanoseconds),
            mock.patch("time.time", seconds),
            mock.patch("time.clock_gettime_ns", since_boot),
        ):
            yield

    def run(self, coroutine):
        """Run a coroutine to its end, by this loop's clocks."""
        with self.clocks():
            return self.run_until_complete(coroutine)


def _settle(outcome, how, what):
    if not outcome.done():
        how(what)
