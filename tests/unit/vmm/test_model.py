"""Random calls of 16 clients at once, failures and kills: every answer is held against the table.

`NEXUS_MODEL_EXAMPLES` is how many such stories are told, `NEXUS_MODEL_SEED` makes them others.
"""

import os
from dataclasses import dataclass

import vmm_calls
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from vmm_calls import ENDS, GUEST
from vmm_fates import FAILURES, Host, no_room, read_only
from vmm_stage import Stage

from nexus_vmm.vm import Condition, Delay, ExpireAction, RestartPolicy, TimeToLive

CLIENTS = 16
MEMORY_MIB = 300
"""Of the host: not for all VMs that there may be."""
NAMES = ("ant", "bee", "cat")
IDS = ("aaaaaaaaaaaaa", "bbbbbbbbbbbbb")

names = st.sampled_from(NAMES)
refs = st.one_of(names, names, names, st.sampled_from((*IDS, "nobody")))
request_ids = st.sampled_from(("", "", "", "", "r1", "r2", "r3"))
policies = st.builds(
    RestartPolicy, st.sampled_from(Condition), st.sampled_from((Delay.BACKOFF, Delay.IMMEDIATE))
)


times = st.one_of(
    st.just(TimeToLive()),
    st.builds(
        TimeToLive,
        st.sampled_from((0, 10, 100)),
        st.sampled_from((0, 10, 60)),
        st.sampled_from(ExpireAction),
    ),
)


@dataclass(repr=False)
class _Call:
    function: object
    arguments: tuple
    options: dict

    def __repr__(self):
        words = [*map(repr, self.arguments), *(f"{k}={v!r}" for k, v in self.options.items())]
        return f"{self.function.__name__}({', '.join(words)})"

    def __call__(self, stage):
        self.function(stage, *self.arguments, **self.options)


def call(function, *arguments, **options):
    """Return calls by `function`, with arguments and options drawn from these strategies."""
    drawn = st.tuples(st.tuples(*arguments), st.fixed_dictionaries(options))
    return drawn.map(lambda made: _Call(function, *made))


calls = st.one_of(
    call(
        vmm_calls.create,
        names,
        st.sampled_from(("", "", *IDS)),
        request_ids,
        st.sampled_from((128, 128, 256)),
        policies,
        times,
    ),
    call(vmm_calls.start, refs, request_ids, st.sampled_from((None, None, None, 60, 0.3))),
    call(vmm_calls.start, refs, request_ids),
    call(vmm_calls.stop, refs, request_ids, st.sampled_from((0, 10))),
    call(vmm_calls.pause, refs, request_ids),
    call(vmm_calls.resume, refs, request_ids),
    call(vmm_calls.delete, refs, request_ids),
    call(vmm_calls.touch, refs),
    call(
        vmm_calls.update,
        refs,
        request_ids,
        st.sampled_from(
            (
                *(("restart",), ("memory_mib",), ("disk_mib",), ("ttl",), ("image",)),
                ("restart", "ttl", "memory_mib", "disk_mib"),
            )
        ),
        st.sampled_from(("", "", "0-0")),
        restart=policies,
        ttl=times,
        memory_mib=st.sampled_from((128, 256)),
        disk_mib=st.sampled_from((16, 32)),
        image=st.just("alpine"),
    ),
    call(vmm_calls.report, names, st.sampled_from(GUEST), st.sampled_from((False, False, True))),
)
troubles = st.one_of(
    st.tuples(st.just("ends"), st.integers(0, 9), st.sampled_from(ENDS)),
    st.tuples(st.just("ends"), st.integers(0, 9), st.sampled_from(ENDS)),
    st.tuples(st.just("fails"), st.integers(0, 30), st.sampled_from(tuple(FAILURES.values()))),
    st.tuples(st.just("is full"), st.integers(0, 30), st.sampled_from((no_room, read_only))),
    st.tuples(
        st.just("obey"), st.booleans(), st.sampled_from(("", "", "Invalid Elf magic number"))
    ),
)


class Stories(RuleBasedStateMachine):
    """What may happen, in any order."""

    @initialize(number=st.integers(0, 2**32), policy=policies)
    def begin(self, number, policy):
        host = Host.new()
        host.room.memory = MEMORY_MIB
        self.stage = Stage(number, host)
        self.stage.__enter__()
        for name in NAMES:
            vmm_calls.create(self.stage, name, policy=policy)
        self.stage.wait(10)
        for name in NAMES[1:]:
            vmm_calls.start(self.stage, name)
        self.stage.wait(10)

    @rule(
        several=st.lists(calls, min_size=CLIENTS // 2, max_size=CLIENTS), times=st.integers(0, 90)
    )
    def clients_call(self, several, times):
        for call in several:
            self._call(call)
        self.stage.turn(times)

    @rule(call=calls, seconds=st.sampled_from((0.05, 1, 30)))
    def a_client_calls(self, call, seconds):
        self._call(call)
        self.stage.wait(seconds)

    def _call(self, call):
        if len(self.stage.under_way) < CLIENTS:
            call(self.stage)

    @rule(trouble=troubles, times=st.integers(0, 30))
    def something_befalls(self, trouble, times):
        what, one, other = trouble
        world, there = self.stage.host.world, self.stage.processes()
        if what == "ends" and there:
            world.end(there[one % len(there)], other)
        elif what == "fails":
            self.stage.fail(one, other, only="driver")
        elif what == "is full":
            self.stage.fail(one, other, only="database")
        elif what == "clock":
            self.stage.loop.wall += one
        elif what == "obey":
            world.obeys, world.fault = one, other
        self.stage.turn(times)

    @rule(how=st.sampled_from(("killed", "killed", "drained", "at rest")), power=st.booleans())
    def it_comes_to_an_end(self, how, power):
        if how == "at rest":
            self.stage.settle()
        elif how == "drained":
            self.stage.drain(power)
        else:
            self.stage.kill(power)

    def teardown(self):
        if hasattr(self, "stage"):
            try:
                self.stage.settle()
            finally:
                self.stage.__exit__()


TestStories = seed(int(os.environ.get("NEXUS_MODEL_SEED", "1")))(Stories).TestCase
TestStories.settings = settings(
    max_examples=int(os.environ.get("NEXUS_MODEL_EXAMPLES", "100")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
