"""netd is killed at 1,000 random points; whenever it comes back, kernel and store agree.

A point is a netlink message, an ioctl or a commit of the store, and the kill comes before or after
it; see `kill_lives`. `NEXUS_KILL_SEED` is the seed of the first life, `NEXUS_KILL_ROUNDS` the
number of deaths: what a failure prints repeats the life that failed, alone.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

LIVES = Path(__file__).parents[2] / "support/kill_lives.py"
SEED = int(os.environ.get("NEXUS_KILL_SEED", "3"))
DEATHS = int(os.environ.get("NEXUS_KILL_ROUNDS", "1000"))
DEATHS_IN_A_LIFE = 25
PARTS = 4
"""Tests that share the lives, so that each core has some."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
async def test_netd_killed_at_any_point_comes_back_whole(short_path, part):
    lives = -(-DEATHS // DEATHS_IN_A_LIFE)
    share = -(-lives // PARTS)
    ours = range(lives)[part * share :][:share]
    each = min(DEATHS, DEATHS_IN_A_LIFE)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        LIVES,
        *map(str, (SEED + part * share, each, len(ours), short_path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told = (await process.communicate())[0].decode()
    assert process.returncode == 0, told
    found = [json.loads(line) for line in told.splitlines()]
    deaths = sum((Counter(life["deaths"]) for life in found), Counter())
    calls = sum((Counter(life["calls"]) for life in found), Counter())
    print(f"{deaths.total()} deaths in {len(found)} lives: {dict(deaths)}; calls: {dict(calls)}")
    assert deaths.total() >= each * len(ours)
