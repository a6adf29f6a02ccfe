"""vmm on a host of its own in made-up time, for tests that let many things happen at once."""

import asyncio
import sqlite3
from contextlib import ExitStack
from random import Random
from unittest import mock

import vmm_calls
from virtual_time import VirtualLoop
from vmm_driver import SHUTDOWN
from vmm_fates import Fates, Host
from vmm_life import Vmm, check
from vmm_witness import CALL, Witness, ended_at

from nexus_rpc.errors import NexusError, ResourceExhausted, Unavailable
from nexus_vmm.operations.ladder import HEARD
from nexus_vmm.states import LIVE, State
from nexus_vmm.vm import Condition, Goal, Vm

QUIET = 3_600
"""Seconds after which nothing is under way any more."""


class Stage:
    """One host, and one life of vmm after the other on it. Use it as a context.

    What goes wrong in the background is raised by the next method that is called.
    """

    def __init__(self, seed, host=None, witness=None, now=0.0):
        self.random = Random(seed)
        self._ids = Random(f"ids {seed}")
        self.fates = Fates(self.random, self._failing)
        self.loop = VirtualLoop(self.fates.delay, now)
        self.loop.set_exception_handler(lambda _, context: self._broke(context))
        self.host = host or Host.new()
        self.witness = witness or Witness(self.host.room.memory)
        self.found = {}
        """The boots of the machines that there were before the last start of vmm."""
        self.under_way = {}
        self.failed = []
        self.lives = 0
        self._failures = {}
        self._broken = []

    def __enter__(self):
        with ExitStack() as stack:
            stack.callback(self._end)
            stack.enter_context(self.loop.clocks())
            # Ids of VMs, by which they are sorted now and then, are those of the seed.
            stack.enter_context(mock.patch("secrets.randbits", self._ids.getrandbits))
            self.be_up()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        self._stack.close()

    def _end(self):
        self._stop()
        self.loop.close()
        self.host.close()

    def be_up(self):
        """Start vmm, as often as it takes: a failure that ends it while it reconciles passes."""
        self.found = {
            vm_id: process.boot
            for vm_id, process in self.host.world.processes.items()
            if process.booted
        }
        self.loop.about, self.loop.ran = self._about, self._ran
        self.witness.meets(self.host)
        while True:
            self.lives += 1
            up = asyncio.Event()
            self._life = self.loop.create_task(self._live(up))
            waiting = self.loop.create_task(up.wait())
            self.loop.run_until_complete(
                asyncio.wait({self._life, waiting}, return_when=asyncio.FIRST_COMPLETED)
            )
            waiting.cancel()
            self._check()
            if not self._life.done():
                return
            self._check_end()

    async def _live(self, up):
        async with asyncio.TaskGroup() as tasks:
            self.vmm = await Vmm.compose(self.host, self.fates, tasks)
            up.set()
            await self._be_gateway()

    async def _be_gateway(self):
        """Ask the agent of a guest to shut down where its VM is being stopped; some obey."""
        async for _, vm in self.vmm.hub.watch():
            if isinstance(vm, Vm) and vm.stopping and vm.state in HEARD:
                process = self.host.world.processes.get(vm.id)
                if process and process.boot == vm.boot and self.random.random() < 0.5:
                    self.host.world.end(vm.id, SHUTDOWN)

    def _check_end(self):
        """Assert that vmm ended by itself for nothing less than what failed at its ports."""
        for error in _leaves(self._life.exception()):
            if error not in self.failed and not isinstance(error, Unavailable):
                raise error

    def call(self, method, ref, operation, **known):
        """Let a client call: `operation(vmm)`."""
        call = self.witness.begin(method, ref, **known)
        task = self.loop.create_task(self._client(call, operation))
        self.under_way[task] = (call, operation)
        return call

    async def _client(self, call, operation):
        CALL.set(call)
        try:
            answer = await operation(self.vmm)
        except NexusError as error:
            answer = error
        except (OSError, sqlite3.Error) as error:
            if error not in self.failed:
                raise
            answer = error
        self.witness.answered(call, answer)

    def fail(self, touches, failure, only=""):
        """Let the driver or database fail at one of the next touches whose name has `only`."""
        self._failures[only] = (touches, failure)

    def heal(self):
        """Let nothing fail any more."""
        self._failures.clear()
        self.host.world.fault = ""

    def _failing(self, name):
        for only, (left, failure) in list(self._failures.items()):
            if only not in name:
                continue
            if left > 0:
                self._failures[only] = (left - 1, failure)
                continue
            del self._failures[only]
            error = failure()
            self.failed.append(error)
            return error
        return None

    def _about(self, work):
        self.fates.point("before a job")
        if failure := self._failing("database"):
            raise failure

    def _ran(self, work):
        self.witness.look(self.host)
        self.fates.point("after a job")

    def turn(self, times):
        """Let the next `times` things happen that need no time."""
        for _ in range(times):
            self.loop.stop()
            self.loop.run_forever()
        self._check()

    def wait(self, seconds):
        """Let time pass."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self._check()

    def kill(self, power=False):
        """kill -9 of vmm, or loss of the host's power; and its next start."""
        host = self.host.copy()
        if power:
            host.lose_power()
            self.loop.booted = self.loop.time()
        self._stop()
        self.host.close()
        self.host = host
        self.be_up()

    def _stop(self):
        """Let the dead life come to its end, unseen: its host is another one by then."""
        self.loop.about = self.loop.ran = self.fates.passed = lambda _: None
        for _ in range(3):  # what was started begins, or Python complains
            self.loop.stop()
            self.loop.run_forever()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks))
        for task in tasks:
            task.cancelled() or task.exception()
        self.under_way.clear()

    def settle(self):
        """Let all that is under way come to its end, with nothing that fails, and look at it."""
        self.heal()
        self.wait(QUIET)
        assert not self.under_way, [str(call) for call, _ in self.under_way.values()]
        if not self.failed:
            self.agree()
        elif len(self.failed) == 1 and not isinstance(self.failed[0], ResourceExhausted):
            self._check_goals()
        self.kill()
        self.failed.clear()
        self.wait(QUIET)
        self.agree()

    def drain(self, power):
        """Shut the host down, or only vmm, once all VMs are stopped."""
        self.heal()
        self.wait(QUIET)
        known = [(vm, vm.restarts) for vm in self.vms()]
        ran = {vm.id for vm, its in known if vm.state in LIVE or its.due or its.drained}
        ran |= {vm.id for vm in self.vms(State.CRASHED, State.FAILED)}
        vmm_calls.drain(self)
        self.wait(QUIET)
        assert not self.vms(*LIVE)
        before = self.vms()
        self.kill(power)
        self.wait(QUIET)
        for vm in before:
            now = self.witness.looks[-1].get(vm.id)
            if power and vm.id in ran and vm.spec.restart.condition is not Condition.NONE:
                assert now is None or now.boot != vm.boot or "room" in now.reason, now
            elif now is None or (now.state, now.boot) != (vm.state, vm.boot):
                assert ended_at(vm), f"{vm} became {now}"

    def agree(self):
        """Assert that store, hub and world agree in everything, and that no time is over."""
        vms = list(self.witness.looks[-1].values())
        check(vms, self.host.world)
        assert not [vm for vm in vms if ended_at(vm)]
        assert sorted(self.vmm.hub.present(), key=lambda vm: vm.seq) == vms

    def _check_goals(self):
        """Assert that a call of the driver that failed left nothing wanted that is not so."""
        for vm in self.vms(*LIVE):
            assert vm.goal is (Goal.PAUSE if vm.state is State.PAUSED else Goal.RUN), vm
            process = self.host.world.processes.get(vm.id)
            assert process is None or process.paused == (vm.state is State.PAUSED), vm

    def processes(self):
        """Return the ids of VMs with a process."""
        return sorted(self.host.world.processes)

    def vms(self, *states):
        """Return the VMs, those in `states` or all."""
        return [vm for vm in self.witness.looks[-1].values() if vm.state in (states or State)]

    def _broke(self, context):
        self._broken.append(context.get("exception") or AssertionError(context["message"]))

    def _check(self):
        """Raise what went wrong since the last time."""
        for task in [task for task in self.under_way if task.done()]:
            del self.under_way[task]
            # Those of a life that ended by itself got no answer.
            if not task.cancelled() and (error := task.exception()):
                self._broken.append(error)
        if self._broken:
            raise self._broken[0]
        if self._life.done():
            self._check_end()
            self.kill()


def _leaves(error):
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
