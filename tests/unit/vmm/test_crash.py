"""kill -9 of vmm at thousands of points of random stories: between any two steps that it takes.

`NEXUS_CRASH_SEED` is the seed of the first story, `NEXUS_CRASH_STORIES` how many there are.
"""

import os
from functools import partial
from random import Random

import pytest
import vmm_calls
from vmm_calls import ENDS, GUEST
from vmm_fates import FAILURES, no_room
from vmm_kills import Kills, survive
from vmm_stage import Stage

from nexus_vmm.vm import Condition, Delay, ExpireAction, RestartPolicy, TimeToLive

SEED = int(os.environ.get("NEXUS_CRASH_SEED", "1"))
STORIES = int(os.environ.get("NEXUS_CRASH_STORIES", "16"))
NAMES = ("ant", "bee", "cat")
TIMES = ((0, 0), (0, 0), (10, 0), (0, 10), (30, 20))


def some_call(stage, random, number):
    """Let a client make a call, with a request id of its own."""
    ref, request_id = random.choice(NAMES), f"r{number}"
    delay = random.choice((Delay.BACKOFF, Delay.IMMEDIATE))
    policy = RestartPolicy(random.choice([*Condition]), delay)
    time = TimeToLive(*random.choice(TIMES), random.choice([*ExpireAction]))
    kinds = [
        (3, partial(vmm_calls.create, policy=policy, ttl=time)),
        (5, vmm_calls.start),
        (3, partial(vmm_calls.stop, grace=random.choice((0, 10)))),
        (2, vmm_calls.pause),
        (2, vmm_calls.resume),
        (2, vmm_calls.delete),
        (1, partial(vmm_calls.update, fields=("restart", "ttl"), restart=policy, ttl=time)),
    ]
    (call,) = random.choices([call for _, call in kinds], [often for often, _ in kinds])
    call(stage, ref, request_id=request_id)


def story(stage, random):
    """Let things happen, one after the other and at once."""
    number = 0
    for name in NAMES:
        time = TimeToLive(*random.choice(TIMES), random.choice([*ExpireAction]))
        vmm_calls.create(stage, name, request_id=f"create {name}", ttl=time)
    stage.wait(1)
    for _ in range(12):
        for _ in range(random.choice((1, 1, 2, 4))):
            number += 1
            some_call(stage, random, number)
        if random.random() < 0.3:
            for event in GUEST[: random.randint(1, 3)]:
                vmm_calls.report(stage, random.choice(NAMES), event)
        if stage.processes() and random.random() < 0.3:
            stage.turn(random.randint(0, 40))
            if there := stage.processes():
                stage.host.world.end(random.choice(there), random.choice(ENDS))
        if random.random() < 0.1:
            failure = random.choice([*FAILURES.values()])
            stage.fail(random.randint(0, 10), failure, only="driver")
        if random.random() < 0.05:
            stage.fail(random.randint(0, 10), no_room, only="database")
        if random.random() < 0.2:
            vmm_calls.touch(stage, random.choice(NAMES))
        stage.wait(random.choice((0, 0.01, 0.3, 2, 40)))
    if random.random() < 0.5:
        vmm_calls.drain(stage)
        stage.wait(60)


@pytest.mark.parametrize("seed", range(SEED, SEED + STORIES))
def test_whatever_point_it_is_killed_at(seed):
    random = Random(seed)
    with Stage(seed) as stage:
        kills = Kills(stage)
        story(stage, random)
    assert kills.points > 50
    for kill in kills:
        try:
            survive(kill, random)
        except Exception as error:
            error.add_note(f"killed {kill.name}; NEXUS_CRASH_SEED={seed} NEXUS_CRASH_STORIES=1")
            raise
