"""The scene of the attacks, once as netd makes it and once without it."""

import pytest_asyncio
from netns import fresh

from tests.integration.netd.hostile.bare import bare_scene


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bare():
    with fresh() as namespace, bare_scene(namespace) as scene:
        await scene.begin()
        yield scene
