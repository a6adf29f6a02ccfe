import pytest

from nexus_netd.kernel import KernelError
from nexus_netd.operations.plan import Undo


class World:
    def __init__(self):
        self.log = []
        self.failed = 0

    def count(self):
        self.failed += 1

    def step(self, name, *, fails=False):
        async def step():
            self.log.append(name)
            if fails:
                raise KernelError(None, f"{name} failed")

        return step

    async def try_and_fail(self, first, second):
        async with Undo(self.count) as undo:
            undo.push("a", first)
            undo.push("b", second)
            raise KernelError(None, "the cause")


async def test_what_went_well_is_not_taken_back():
    world = World()
    async with Undo(world.count) as undo:
        undo.push("a", world.step("a"))
    assert (world.log, world.failed) == ([], 0)


async def test_a_failure_takes_back_what_was_begun_last_first():
    world = World()
    with pytest.raises(KernelError, match="the cause"):
        await world.try_and_fail(world.step("a"), world.step("b"))
    assert (world.log, world.failed) == (["b", "a"], 0)


async def test_a_way_back_that_fails_hides_neither_the_cause_nor_the_rest(caplog):
    world = World()
    with pytest.raises(KernelError, match="the cause"):
        await world.try_and_fail(world.step("a"), world.step("b", fails=True))
    assert (world.log, world.failed) == (["b", "a"], 1)
    assert "could not undo 'b'" in caplog.text
