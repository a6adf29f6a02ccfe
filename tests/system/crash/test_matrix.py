"""kill -9 and loss of power in the dev host, with real VMs, at seeded points of each operation.

`make crash POINTS=200 SEED=1` tries 200 points of the seed 1; FIRST=37 POINTS=1 repeats the 37th.
After each, store and host agree in everything, what could live has lived, and nothing is left over.
"""

import asyncio
import os

import pytest
import pytest_asyncio
from crash_agreement import RUNS
from crash_host import CrashHost, state, told
from crash_points import points

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import NexusError

SEED = os.environ.get("NEXUS_CRASH_SEED", "310")
"""The first eight points of this one strike each kind of victim."""
FIRST = int(os.environ.get("NEXUS_CRASH_FIRST", "0"))
POINTS = int(os.environ.get("NEXUS_CRASH_POINTS", "8"))
TARGET = "struck"
BYSTANDERS = {
    "hello": vmm_pb2.RESTART_CONDITION_NONE,
    "bystander": vmm_pb2.RESTART_CONDITION_ON_BOOT,
}
ALWAYS = vmm_pb2.RESTART_CONDITION_ALWAYS
DONE = {"stop": {"stopped"}, "pause": {"paused"}, "start": RUNS, "resume": RUNS}


@pytest.fixture(scope="module", autouse=True)
def _tidy(devhost):
    yield
    for name in (TARGET, "bystander"):
        devhost.nexusctl("vm", "delete", name, "--force", "--yes", check=False)
    devhost.nexusctl("vm", "start", "hello", check=False, timeout=180)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(devhost):
    """The dev host, one for all points: none of them changes what it is to the next."""
    async with CrashHost() as host:
        yield host


@pytest.mark.timeout(1800)
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("point", points(SEED, FIRST, POINTS), ids=str)
async def test_nothing_is_lost_doubled_or_left_over(host, point):
    await host.be_up()
    await host.remove(TARGET)
    for name, condition in BYSTANDERS.items():
        await host.live(name, condition)
    call, vm = await _prepared(host, point)
    before = await host.agree()

    strike = await host.arm(point, vm.id if vm else "")
    under_way = asyncio.create_task(host.outcome(call))
    struck = await strike()
    answer = await under_way
    await host.be_up()
    story = f"{point}, {point.seconds} s: {struck}; answered {told(answer)}"

    comes_back = ["bystander"]
    if point.operation == "restart":
        comes_back.append(TARGET)
    else:
        again = await host.answer(call)
        story += f", then {told(again)}"
    after = await host.agree(comes_back)
    print(story)
    for name in BYSTANDERS if point.victim != "power" else ():
        assert after[name][2:] == before[name][2:], story
    if point.operation != "restart" and not isinstance(again, NexusError):
        assert (TARGET in after) == (point.operation != "delete"), story
        if point.operation in DONE and point.victim in ("vmm", "power"):
            assert _fits(point, again, after[TARGET][0]), f"{story}: {after[TARGET]}"


def _fits(point, again, now):
    """Whether the VM is as the answer to the repeat has it."""
    return (state(again.vm) in DONE[point.operation]) == (now in DONE[point.operation])


async def _prepared(host, point):
    """Return the operation of a point, about to begin, and its VM."""
    if point.operation == "create":
        return host.create(TARGET), None
    condition = ALWAYS if point.operation == "restart" else vmm_pb2.RESTART_CONDITION_NONE
    vm = (await host.create(TARGET, condition)()).vm
    at_rest = point.operation in ("start", "delete")
    if at_rest and not point.patience:
        return host.operation(point.operation, vm.id), vm  # of one that never ran
    vm = (await host.operation("start", vm.id)()).vm
    await asyncio.sleep(point.patience)
    if at_rest:
        await host.operation("stop", vm.id)()
    if point.operation == "resume":
        await host.operation("pause", vm.id)()
    if point.operation == "restart":
        pid = (await host.get(TARGET)).pid
        return lambda: host.kill(pid), vm
    return host.operation(point.operation, vm.id), vm
