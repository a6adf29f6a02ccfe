"""The scene of the attacks, once as netd makes it and once without it."""

import pytest_asyncio
from netns import fresh

from tests.integration.netd.hostile.bare import bare_scene
from tests.integration.netd.hostile.nameserver import name_server
from tests.integration.netd.hostile.ours import our_scene


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bare():
    with fresh() as namespace, bare_scene(namespace) as scene:
        async with name_server(scene.outside):
            await scene.begin()
            yield scene


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ours(tmp_path_factory):
    with fresh() as namespace:
        async with our_scene(namespace, tmp_path_factory.mktemp("netd")) as scene:
            await scene.begin()
            yield scene
