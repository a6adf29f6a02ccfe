"""When subsystems are looked at, and what is told of them."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from nexus_rpc.errors import Unavailable
from nexus_vmm.reports import health
from nexus_vmm.reports.health import Health, Subsystem, Unwell


class Check:
    """A check that says what it is told to, and counts."""

    def __init__(self, says="fine"):
        self.says = says
        self.count = 0
        self.asked = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self):
        self.count += 1
        self.asked.set()
        await self.open.wait()
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@pytest.fixture
def clock(monkeypatch):
    """Let the time be what the test sets."""
    times = [100.0]
    monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: times[0]))
    return times


async def test_it_is_looked_at_again_after_5_seconds(clock):
    check = Check()
    seen = Health({"store": check})
    for now, count in ((100.0, 1), (104.9, 1), (105.0, 2)):
        clock[0] = now
        assert await seen.now() == [Subsystem("store", ok=True, detail="fine")]
        assert check.count == count


async def test_many_who_ask_at_once_cost_one_look():
    check = Check()
    check.open.clear()
    seen = Health({"store": check})
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(seen.now()) for _ in range(100)]
        await asyncio.sleep(0)
        check.open.set()
    assert check.count == 1
    assert all(task.result()[0].ok for task in asked)


@pytest.mark.parametrize(
    ("says", "detail"),
    [
        (Unwell("no KVM"), "no KVM"),
        (Unavailable("SYSTEMD_UNREACHABLE", "it does not answer"), "it does not answer"),
        (OSError(5, "Input/output error"), "[Errno 5] Input/output error"),
        (KeyError("x"), "defect of vmm: KeyError('x')"),
    ],
)
async def test_what_is_wrong_is_told(says, detail):
    seen = Health({"one": Check(says), "two": Check()})
    assert await seen.now() == [
        Subsystem("one", ok=False, detail=detail),
        Subsystem("two", ok=True, detail="fine"),
    ]
    assert (seen.works("one"), seen.works("two"), seen.works("three")) == (False, True, False)


async def test_who_does_not_answer_is_not_asked_again_before_it_has(monkeypatch, clock):
    monkeypatch.setattr(health, "SECONDS", 0.01)
    slow, quick = Check(), Check()
    slow.open.clear()
    seen = Health({"disk": slow, "kvm": quick})
    for look in range(3):
        clock[0] += health.FRESH
        disk, kvm = await seen.now()
        assert (disk.ok, disk.detail) == (False, "no answer for 0.01 s")
        assert kvm.ok
        assert (slow.count, quick.count) == (1, look + 1)
    slow.open.set()
    clock[0] += health.FRESH
    assert (await seen.now())[0].ok


async def test_a_caller_who_hangs_up_takes_nothing_with_it(clock):
    check = Check()
    check.open.clear()
    seen = Health({"store": check})
    asking = asyncio.create_task(seen.now())
    await check.asked.wait()
    asking.cancel()
    await asyncio.wait({asking})
    check.open.set()
    assert (await seen.now())[0].ok
    assert check.count == 1


async def test_close_waits_for_no_answer(monkeypatch):
    monkeypatch.setattr(health, "SECONDS", 0.0)
    check = Check()
    check.open.clear()
    seen = Health({"disk": check})
    await seen.now()
    (asked,) = seen._asked.values()
    seen.close()
    await asyncio.wait({asked}, timeout=5)
    assert asked.cancelled()


async def test_the_log_tells_each_change_once(clock, caplog):
    caplog.set_level(logging.INFO)
    check = Check()
    seen = Health({"disk": check})
    for says in ("fine", Unwell("full"), Unwell("fuller"), "fine", "fine"):
        check.says = says
        clock[0] += health.FRESH
        await seen.now()
    assert caplog.messages == ["disk: full", "disk: well again: fine"]
