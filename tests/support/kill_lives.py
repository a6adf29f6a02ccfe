"""Kills netd at random points of its life, and checks after each that kernel and store agree.

    kill_lives.py SEED POINTS LIVES DIRECTORY

lives LIVES lives, of POINTS deaths each, with the seeds SEED, SEED + 1 and so on; each life has a
network namespace and a store of its own. Prints a line of JSON for each, and ends with 1 at the
first disagreement, whose seed and point it prints: the same SEED, POINTS and LIVES = 1 repeat it.
"""

import asyncio
import json
import sys
import traceback
from collections import Counter, deque
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from agreement import check_agreement
from callers import Caller, Gone, Known
from guests import Stack
from netd_template import Died, MortalNetd, template
from netns import fresh

from nexus.netd.v1 import netd_pb2 as pb

_MOST_POINTS_AHEAD = 40
_AT_START = 0.2
"""Share of the deaths that are set before netd starts: most of them come while it reconciles."""
_CROWD = 3
_TOLD = 8
_CALLS = 500
"""More calls than this without a death would mean that the fuse is not counted down."""


class Life:
    """One namespace and one store, through many deaths of netd."""

    def __init__(self, seed, points, netd):
        self._random = Random(seed)
        self._points = points
        self._netd = netd
        self._known = Known()
        # A crowd calls at the same time, each on its own VMs; a caller that is alone is repeatable.
        crowd = self._random.random() < 0.3
        self._callers = [
            Caller(self._random, self._known, first_port=20_000 + 10 * n, alone=not crowd)
            for n in range(_CROWD if crowd else 1)
        ]
        self._unanswered = []
        self.latest = deque(maxlen=_TOLD)
        self.deaths = Counter()
        self.calls = Counter()
        self.last = ""

    async def live(self):
        """Live until the last death, and check once more."""
        async with self._netd.run() as stub:
            await self._callers[0].create_network().make(stub)
        while self.deaths.total() < self._points:
            self._netd.fuse.unset()
            if self._random.random() < _AT_START:
                self._set_fuse()
            try:
                async with self._netd.run() as stub:
                    await self._be_up(stub)
            except (Died, Gone):
                pass  # while it started, or was asked
            self.deaths[self._netd.fuse.blown] += 1
        self._netd.fuse.unset()
        async with self._netd.run() as stub:
            await self._check(stub)

    async def _be_up(self, stub):
        if not self._netd.fuse.is_set:
            await self._check(stub)
            self._set_fuse()
        await asyncio.gather(*(self._call_until_death(stub, caller) for caller in self._callers))
        await self._netd.death()

    def _set_fuse(self):
        ahead = self._random.randint(1, _MOST_POINTS_AHEAD)
        side = self._random.choice(["before", "after"])
        self.last = f"{side} point {ahead}"
        self._netd.fuse.set(ahead, side)

    async def _check(self, stub):
        """Whether nothing is lost or left, and whether what was not answered can be repeated."""
        told = await check_agreement(stub)
        unsure = [call.vms for call in self._unanswered]
        if None in unsure:
            self._known.check(told, told.ports.keys() | self._known.ports.keys())
        else:
            self._known.check(told, set().union(*unsure))
        if self._unanswered:
            for call in self._unanswered:
                await call.make(stub)
                if call.name == "CleanupNetwork":
                    # Networks stay away until they are asked for.
                    await stub.EnsureNetwork(pb.EnsureNetworkRequest())
            self._unanswered = []
            told = await check_agreement(stub)
            self._known.check(told)
        answer = await stub.EnsureNetwork(pb.EnsureNetworkRequest())
        assert not answer.repaired, f"netd found its own work wanting: {answer.repaired}"
        self._known.renew(told)

    async def _call_until_death(self, stub, caller):
        for _ in range(_CALLS):
            call = caller.next()
            self.calls[call.name] += 1
            self.latest.append(call)
            try:
                await call.make(stub)
            except Gone as gone:
                self._unanswered.append(gone.call)
                return
        raise AssertionError(f"{_CALLS} calls, and netd still lives: {self._netd.fuse.state}")


async def main(seed, points, lives, directory):
    async with AsyncExitStack() as stack:
        forks = await stack.enter_async_context(template(directory / f"template{seed}"))
        for number in range(seed, seed + lives):
            home = directory / str(number)
            home.mkdir()
            with fresh() as descriptor:
                Stack(descriptor).ip("link set lo up")
                netd = MortalNetd(forks, home, descriptor)
                life = Life(number, points, netd)
                try:
                    await life.live()
                except Exception:  # noqa: BLE001  # whatever it is, its seed is told
                    print(traceback.format_exc(), flush=True)
                    print("The last calls:", *life.latest, sep="\n  ", flush=True)
                    print(f"seed {number}, death {life.deaths.total()}, {life.last}", flush=True)
                    print(f"NEXUS_KILL_SEED={number} NEXUS_KILL_ROUNDS={points}", flush=True)
                    return 1
                finally:
                    netd.close()
            told = {"seed": number, "deaths": life.deaths, "calls": life.calls}
            print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*map(int, sys.argv[1:4]), Path(sys.argv[4]))))
