"""What a kill of vmm leaves at each point of a story, and what becomes of it.

One run of a story is copied at every point at which a kill may come; each copy is a host on which
vmm is started again.
"""

from dataclasses import dataclass, field

from vmm_driver import Process, World
from vmm_fates import Host
from vmm_stage import QUIET, Stage

from nexus_rpc.errors import NexusError, NotFound
from nexus_vmm.records import rows
from nexus_vmm.states import LIVE, State
from nexus_vmm.vm import Condition, Goal


@dataclass
class Kill:
    """A kill at the point `name`: what is left, and the calls that got no answer.

    Of each such call the steps that it had brought about by then.
    """

    name: str
    host: Host
    witness: object
    now: float
    booted: float
    unanswered: list = field(default_factory=list)


class Kills:
    """Collects a kill at each point of a stage's story, those that leave the same once."""

    def __init__(self, stage):
        self._stage = stage
        self._kills = {}
        self.points = 0
        stage.fates.passed = self._passed

    def _passed(self, name):
        self.points += 1
        stage = self._stage
        left = (stage.host.connection.serialize(), traces(stage.host.world))
        unanswered = [
            (call, operation, tuple(call.steps))
            for task, (call, operation) in stage.under_way.items()
            if not task.done()
        ]
        if earlier := self._kills.get(left):
            # The later one has answered more, and so promised more.
            earlier.unanswered, earlier.name = unanswered, name
            return
        self._kills[left] = Kill(
            name,
            stage.host.copy(),
            stage.witness.copy(),
            stage.loop.time(),
            stage.loop.booted,
            unanswered,
        )

    def __iter__(self):
        """Yield the kills; the hosts that are left are the caller's."""
        while self._kills:
            yield self._kills.pop(next(iter(self._kills)))


def traces(world):
    """Return what there is in a world, to be compared."""
    processes = [
        (vm_id, process.boot, process.booted, process.paused)
        for vm_id, process in world.processes.items()
    ]
    disks = sorted(world.disks.items())
    return (
        *map(tuple, (sorted(processes), disks, sorted(world.written), sorted(world.runs))),
        tuple(sorted(world.ends)),
    )


def survive(kill, random, depth=1):
    """Start vmm on what a kill left, and assert that nothing is lost, doubled or left over.

    Power may be lost, a process end meanwhile, and vmm be killed once more while it repairs.
    Returns how many kills that were.
    """
    world = kill.host.world
    world.fault, world.obeys = "", True
    power = random.random() < 0.25
    if power:
        kill.host.lose_power()
    elif world.processes and random.random() < 0.3:
        meanwhile = random.choice((World.end, _restart))
        meanwhile(world, random.choice(sorted(world.processes)))
    kill.witness.meets(kill.host)
    left = list(kill.witness.looks[-1].values())
    stage = Stage(random.random(), kill.host, kill.witness, kill.now)
    stage.loop.booted = kill.now if power else kill.booted
    # A boot of the host that vmm was killed before it knew of is still to be answered.
    power = rows.host_boot(kill.host.connection) not in ("", kill.host.boot)
    again = Kills(stage) if depth and random.random() < 0.3 else None
    with stage:
        if again:
            stage.fates.passed = lambda name: None
        _check_adopted(stage, left)
        stage.wait(QUIET)
        stage.agree()
        _check_started(stage, left, power)
        _repeat(stage, kill.unanswered)
        stage.wait(QUIET)
        stage.agree()
        before = traces(stage.host.world), stage.witness.looks[-1]
        stage.kill()
        stage.turn(50)
        after = traces(stage.host.world), stage.witness.looks[-1]
        assert after == before, f"{before}\n{after}"
    kills = 1
    for other in again or ():
        if kills == 1 or random.random() < 0.1:
            kills += survive(other, random, depth - 1)
        else:
            other.host.close()
    return kills


def _restart(world, vm_id):
    """Have somebody else restart a VM's unit."""
    world.end(vm_id)
    del world.ends[vm_id]
    world.processes[vm_id] = Process(f"somebody's, {len(world.processes.boots)}", 1)


def _check_adopted(stage, left):
    """Assert that what ran as recorded, and was to, runs on."""
    for vm in left:
        if vm.state not in LIVE and vm.goal is Goal.RUN and vm.id in stage.found:
            # It was being started, and had got so far.
            now = stage.witness.looks[-1][vm.id]
            assert (now.boot, now.state in LIVE) == (stage.found[vm.id], True), f"{vm} became {now}"
        if stage.found.get(vm.id) == vm.boot and vm.goal in (Goal.RUN, Goal.PAUSE):
            now = stage.witness.looks[-1][vm.id]
            assert (now.boot, now.state in LIVE) == (vm.boot, True), f"{vm} became {now}"
            assert stage.host.world.processes[vm.id].boot == vm.boot


def _check_started(stage, left, power):
    """Assert that a boot of the host started what is to run after one, and nothing else did."""
    for vm in left:
        now = stage.witness.looks[-1].get(vm.id)
        wanted = vm.state in LIVE and vm.goal not in (Goal.STOP, Goal.DELETE)
        if power and (wanted or vm.restarts.drained):
            policy = vm.spec.restart.condition is not Condition.NONE
            assert not policy or now is None or now.boot != vm.boot, f"{vm} became {now}"
        elif (vm.state, vm.goal, vm.restarts.due) == (State.STOPPED, Goal.STOP, 0):
            assert (now.state, now.boot) == (vm.state, vm.boot), f"{vm} became {now}"


def _repeat(stage, unanswered):
    """Let clients repeat the calls that got no answer, as their manual says."""
    done = []
    for call, operation, steps in unanswered:
        if call.method == "DrainVms":
            continue  # it is the host's own, and the host is up again
        repeat = stage.call(
            call.method,
            call.ref,
            operation,
            request_id=call.request_id,
            body=call.body,
            boot=call.boot,
        )
        if steps and call.request_id:
            done.append((repeat, steps))
    stage.wait(QUIET)
    for repeat, steps in done:
        if steps == ("start failed",):
            continue  # it may be tried again
        # Its time may have ended meanwhile, and the VM with it.
        gone = isinstance(repeat.answer, NotFound)
        assert gone or not isinstance(repeat.answer, NexusError), repeat
        assert not repeat.steps, f"{repeat} did it again: {repeat.steps}"
