"""No attack of a hostile guest succeeds, and the like that is lawful passes."""

import asyncio

import pytest

from tests.integration.netd.hostile.attack import was_told
from tests.integration.netd.hostile.table import ATTACKS

REFUSAL_SECONDS = 5


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_refused(ours, attack):
    await ours.clear()
    assert await attack.twin(ours), "its twin does not pass"
    await ours.clear()
    assert not await attack.act(ours), "it succeeded"
    if attack.told:
        async with asyncio.timeout(REFUSAL_SECONDS):
            await until_told(ours, attack.told)
    await ours.clear()
    assert await attack.twin(ours), "its twin does not pass any more"


async def until_told(scene, by):
    while not was_told(scene, by):
        scene.cables.woken.clear()
        await scene.cables.woken.wait()
