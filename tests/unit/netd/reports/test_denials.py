import asyncio
import logging
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from nexus_netd.feed import Missed
from nexus_netd.kernel import KernelError, Refusal
from nexus_netd.reports import denials as module
from nexus_netd.reports.denials import Denial, Denials

MINE, OTHERS = ip_address("10.9.0.2"), ip_address("10.9.0.3")
OUTSIDE = ip_address("192.0.2.1")
WINDOW = 0.05


class TellingKernel:
    """Tells of the refusals that the test puts in."""

    def __init__(self):
        self.told = asyncio.Queue()
        self.faults = []
        self.asked = 0

    async def refusals(self):
        self.asked += 1
        if self.faults:
            raise self.faults.pop()
        while True:
            yield await self.told.get()


class Guests:
    guests = frozenset({"mine", "others", *(f"vm{number}" for number in range(50))})

    def at_tap(self, name):
        return {"nexus0": "mine", "nexus1": "others"}.get(name)

    def at_address(self, address):
        return {MINE: "mine", OTHERS: "others"}.get(address)


@pytest.fixture
def kernel():
    return TellingKernel()


def names(vm, address):
    return "pypi.org" if (vm, address) == ("mine", OUTSIDE) else ""


@asynccontextmanager
async def running(kernel, window=WINDOW):
    denials = Denials(kernel, Guests(), names, window=window)
    task = asyncio.create_task(denials.run())
    try:
        yield denials
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.fixture
async def denials(kernel):
    async with running(kernel) as denials:
        yield denials


async def follow(denials, number, vm="", last=0):
    """Return the next events."""
    found = []
    async with asyncio.timeout(10):
        async for one in denials.watch(vm, last, follow=True):
            found.append(one)
            if len(found) == number:
                break
    return found


@asynccontextmanager
async def next_of(denials, number, vm=""):
    """Watch while the block runs; yields the list that the events are in afterwards."""
    found = []
    task = asyncio.create_task(follow(denials, number, vm))
    await asyncio.sleep(0)
    yield found
    found += await task


async def past(denials, vm="", last=1_000):
    return [one async for one in denials.watch(vm, last, follow=False)]


def refusal(reason="no rule", *, tap=None, source=MINE, destination=OUTSIDE, protocol=6, port=443):
    return Refusal(reason, tap, source, destination, protocol, port)


async def test_a_packet_and_a_name_become_events(kernel, denials):
    async with next_of(denials, 2) as found:
        kernel.told.put_nowait(refusal())
        denials.report("others", "evil.example", "name")
    by_vm = {one.vm_id: one for one in found}
    assert by_vm == {
        "mine": Denial(by_vm["mine"].time, "mine", "no rule", 6, OUTSIDE, 443, "pypi.org", count=1),
        "others": Denial(by_vm["others"].time, "others", "name", domain="evil.example"),
    }


async def test_alike_ones_within_a_second_are_one_event(kernel, denials):
    async with next_of(denials, 3) as found:
        for port in (443, 80, 443, 443):
            kernel.told.put_nowait(refusal(port=port))
        for _ in range(2):
            denials.report("mine", "evil.example", "private answer")
    assert {(one.rule, one.port): one.count for one in found} == {
        ("no rule", 443): 3,
        ("no rule", 80): 1,
        ("private answer", 0): 2,
    }
    async with next_of(denials, 1) as later:
        kernel.told.put_nowait(refusal())
    assert later[0].count == 1
    assert denials.count("mine", "no rule") == 5
    assert denials.count("mine", "host") == denials.count("others", "no rule") == 0


@pytest.mark.parametrize(
    ("told", "culprit"),
    [
        (refusal(), "mine"),
        (refusal("spoofed", tap="nexus0", source=OTHERS), "mine"),
        (refusal("protocol", tap="nexus1", source=None, destination=None, protocol=0), "others"),
        (refusal("spoofed", tap="nexus7", source=OTHERS), None),
        (refusal("spoofed", tap="", source=OTHERS), None),
        (refusal("spoofed"), "mine"),  # an error about somebody else's connection
        (refusal(source=None), None),
        (refusal(source=OUTSIDE), None),
    ],
)
async def test_a_forged_source_blames_nobody_else(kernel, denials, told, culprit):
    async with next_of(denials, 1 if culprit is None else 2) as found:
        kernel.told.put_nowait(told)
        kernel.told.put_nowait(refusal("marker"))
    assert [one.vm_id for one in found if one.rule != "marker"] == [culprit] * (culprit is not None)


@pytest.mark.parametrize(
    ("vm", "domain", "rule"),
    [
        ("mine", "a.example", "open"),
        ("mine", "a.example", ""),
        ("mine", "a" * 1_013, "name"),
        ("mine", "", "name"),
        ("mine", "a\nb", "name"),
        ("mine", "\x1b[2J", "name"),
        ("mine", "\u202ea", "name"),
        ("nobody", "a.example", "name"),
    ],
)
async def test_what_no_resolver_says_is_left_out(denials, vm, domain, rule):
    async with next_of(denials, 1) as found:
        denials.report(vm, domain, rule)
        denials.report("mine", "marker", "name")
    assert found[0].domain == "marker"


async def test_a_name_that_is_not_printable_is_told_as_dns_has_it(denials):
    longest = ".".join(["\\000" * 63] * 3 + ["\\000" * 61])
    async with next_of(denials, 1) as found:
        denials.report("mine", longest, "name")
    assert found[0].domain == longest


async def test_unlike_ones_beyond_a_number_are_counted_without_destination(kernel, denials):
    async with next_of(denials, module.UNLIKE + 3) as found:
        for number in range(1_000):
            denials.report("mine", f"{number}.example", "name")
        for _ in range(2):
            denials.report("mine", "0.example", "name")
        denials.report("mine", "x.example", "private answer")
        denials.report("others", "x.example", "name")
    assert sum(one.count for one in found) == 1_004
    assert {(one.vm_id, one.rule, one.domain): one.count for one in found if one.count > 1} == {
        ("mine", "name", "0.example"): 3,
        ("mine", "name", ""): 1_000 - module.UNLIKE,
    }
    assert found[-1].vm_id == "others"
    assert found[-1].domain == "x.example"


async def test_memory_is_bounded_over_all_guests(kernel, monkeypatch):
    monkeypatch.setattr(module, "UNLIKE_IN_ALL", 100)
    async with running(kernel, window=60) as denials:
        for number in range(10_000):
            denials.report(f"vm{number % 50}", f"{number}.example", "name")
        assert len(denials._groups._open) <= 100 + 50


async def test_the_last_ones_come_first_then_those_that_happen(kernel, denials):
    async with next_of(denials, 4):
        for port in (1, 2, 3):
            kernel.told.put_nowait(refusal(port=port))
        denials.report("others", "evil.example", "name")
    events = await past(denials)
    assert len(events) == 4
    assert await past(denials, last=2) == events[-2:]
    assert await past(denials, last=0) == []
    assert [one.port for one in await past(denials, "mine")] == [1, 2, 3]
    assert [one.port for one in await past(denials, "mine", 2)] == [2, 3]
    assert await past(denials, "nobody") == []
    watching = asyncio.create_task(follow(denials, 2, "mine", last=1))
    await asyncio.sleep(0)
    denials.report("others", "evil.example", "name")
    kernel.told.put_nowait(refusal(port=4))
    assert [one.port for one in await watching] == [3, 4]


async def test_the_past_is_bounded_for_one_and_for_all(monkeypatch):
    monkeypatch.setattr(module, "KEPT_OF_ONE", 5)
    monkeypatch.setattr(module, "KEPT_IN_ALL", 12)
    history = module._History()
    for number in range(100):
        history.add(Denial(0, "loud", "name", domain=str(number)))
    history.add(Denial(0, "quiet", "name"))
    assert [one.domain for one in history.last("loud", 100)] == ["95", "96", "97", "98", "99"]
    assert len(history.last("", 100)) == 6
    for vm in ("a", "b"):
        for _ in range(5):
            history.add(Denial(0, vm, "name"))
    assert len(history.last("", 100)) == 12
    assert len(history.last("loud", 100)) == 1
    for _ in range(5):
        history.add(Denial(0, "c", "name"))
    assert history.last("loud", 100) == history.last("quiet", 100) == []
    assert history._of.keys() == {"a", "b", "c"}
    assert [one.vm_id for one in history.last("", 7)] == ["b"] * 2 + ["c"] * 5


async def test_a_watcher_that_is_slow_learns_how_many_it_lost(kernel):
    async with running(kernel, window=0.001) as denials:
        watching = denials.watch("", 0, follow=True)
        first = asyncio.create_task(anext(watching))
        await asyncio.sleep(0)
        denials.report("mine", "first", "name")
        await first
        seen = asyncio.create_task(follow(denials, 2_000))
        for number in range(2_000):
            denials.report(f"vm{number % 20}", f"{number}.example", "name")
        await seen
        denials.close()
        found = [one async for one in watching]
    assert found[-1] == Missed(1_000)
    assert len(found) == 1_001


async def test_closing_ends_watchers(denials):
    watching = asyncio.create_task(follow(denials, 1))
    await asyncio.sleep(0)
    denials.close()
    assert await watching == []


async def test_each_event_is_logged_once_within_bounds(denials, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "LOGGED_IN_ALL", 8)
    denials._emit(Denial(10.0, "vm", "no rule", 6, OUTSIDE, 443, "pypi.org", 3))
    (record,) = caplog.records
    fields = {name: getattr(record, name) for name in ("vm_id", "rule", "protocol", "address")}
    assert fields == {
        "vm_id": "vm", "rule": "no rule", "protocol": "TCP", "address": "192.0.2.1"
    }  # fmt: skip
    assert (record.message, record.port, record.domain, record.count) == (
        "denied", 443, "pypi.org", 3
    )  # fmt: skip
    for number in range(20):
        denials._emit(Denial(10.5, "vm", "name", domain=str(number)))
    for number in range(20):
        denials._emit(Denial(10.6, f"vm{number}", "name"))
    assert len(caplog.records) == 8
    denials._emit(Denial(11.0, "vm", "spoofed"))
    assert [record.message for record in caplog.records[8:]] == ["denials not logged", "denied"]
    assert caplog.records[8].denials == 33
    assert not hasattr(caplog.records[9], "address")


async def test_a_kernel_that_does_not_tell_costs_only_its_denials(kernel, monkeypatch, caplog):
    monkeypatch.setattr(module, "AGAIN", 0.001)
    kernel.faults = [KernelError(2, "hearing of refused packets: no such file")] * 3
    async with running(kernel) as denials:
        async with next_of(denials, 2) as found:
            denials.report("mine", "evil.example", "name")
            kernel.told.put_nowait(refusal())
        assert {one.rule for one in found} == {"name", "no rule"}
    assert kernel.asked == 4
    assert caplog.text.count("denials are not heard: hearing of refused") == 1
