"""A real netd in a network namespace of its own, with real packets."""

import pytest
from guests import Cables, Stack
from netd_process import configure, running
from netns import fresh


@pytest.fixture
def namespace():
    """Be in a fresh network namespace; processes and threads started in the test are in it too."""
    with fresh() as descriptor:
        Stack(descriptor).ip("link set lo up")
        yield descriptor


@pytest.fixture
async def netd(namespace, tmp_path):
    configure(tmp_path)
    async with running(tmp_path) as netd:
        yield netd


@pytest.fixture
async def cables():
    with Cables() as cables:
        yield cables
