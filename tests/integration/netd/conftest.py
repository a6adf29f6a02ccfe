"""A real netd in a network namespace of its own, with real packets."""

import os

import pytest
from guests import Cables, Stack
from netd_process import configure, running
from netns import fresh


@pytest.fixture
def first_namespace():
    """The network namespace that the test run was started in."""
    descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def namespace(first_namespace):
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
