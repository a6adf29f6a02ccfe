"""Many clients at one time: nobody is refused, and nobody is given what another has."""

import asyncio
import json
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from agreement import check_agreement
from netd_process import configure, running

SWARM = Path(__file__).parents[2] / "support/swarm.py"
CLIENTS, PROCESSES, SECONDS = 64, 2, 60


async def swarm(directory, number):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        SWARM,
        f"unix:{directory}/netd.sock",
        str(CLIENTS // PROCESSES),
        str(SECONDS),
        str(number),
        stdout=asyncio.subprocess.PIPE,
    )


def overlaps(intervals):
    """Return two of the (from, to, whose) that share a moment, if there are any."""
    intervals = sorted(intervals)
    for one, other in pairwise(intervals):
        if other[0] < one[1]:
            return one, other
    return None


@pytest.mark.timeout(180)
async def test_64_clients_attach_and_detach_for_a_minute(namespace, short_path, record_property):
    # 123 addresses for 64 clients: each is given out again and again.
    configure(short_path, subnet="10.7.0.0/25")
    async with running(short_path) as netd:
        processes = [await swarm(short_path, number) for number in range(PROCESSES)]
        answers = [json.loads((await one.communicate())[0]) for one in processes]
        assert [error for answer in answers for error in answer["errors"]] == []
        told = await check_agreement(netd.stub)
        assert not told.ports
    held = [port for answer in answers for port in answer["held"]]
    record_property("ports", len(held))
    print(f"{len(held)} ports attached and detached by {CLIENTS} clients in {SECONDS} s")
    assert len(held) > 10 * CLIENTS
    for field, place in {"address": 1, "MAC": 2, "TAP": 3}.items():
        by_value = defaultdict(list)
        for port in held:
            by_value[port[place]].append((port[4], port[5], port[0]))
        for value, intervals in by_value.items():
            assert overlaps(intervals) is None, f"{field} {value} was two VMs' at one time"
