import pytest

from nexus_netd.kernel import KernelError
from nexus_netd.plan import Step, carry_out


class World:
    def __init__(self, *present):
        self.present = set(present)
        self.log = []

    def step(self, name, *, fails=False, undo_fails=False, undo=True):
        async def needed():
            return name not in self.present

        async def do():
            self.present.add(name)
            self.log.append(name)
            if fails:
                raise KernelError(None, f"{name} failed")

        async def undone():
            self.log.append(f"un{name}")
            if undo_fails:
                raise KernelError(None, "undo failed")
            self.present.discard(name)

        return Step(name, needed, do, undone if undo else None)


async def test_only_what_is_needed_is_done():
    world = World("b")
    assert await carry_out([world.step(name) for name in "abc"]) == ["a", "c"]
    assert world.log == ["a", "c"]


async def test_a_failure_undoes_what_was_begun_last_first():
    world = World("b")
    steps = [world.step("a"), world.step("b"), world.step("c"), world.step("d", fails=True)]
    with pytest.raises(KernelError, match="d failed"):
        await carry_out(steps)
    assert world.log == ["a", "c", "d", "und", "unc", "una"]
    assert world.present == {"b"}


async def test_an_undo_that_fails_hides_neither_the_cause_nor_the_other_undos(caplog):
    world = World()
    steps = [
        world.step("a"),
        world.step("b", undo=False),
        world.step("c", undo_fails=True),
        world.step("d", fails=True),
    ]
    with pytest.raises(KernelError, match="d failed"):
        await carry_out(steps)
    assert world.log[-1] == "una"
    assert "could not undo 'c'" in caplog.text
