"""The kernel port, twice: in memory, and Linux in a network namespace made for the test."""

import pytest
from fake_kernel import FakeKernel
from netns import fresh

from nexus_netd.linux.port import Linux


@pytest.fixture
def namespace():
    """Be in a fresh network namespace; threads started in the test are in it too."""
    with fresh() as descriptor:
        yield descriptor


@pytest.fixture(params=["fake", "linux"])
async def kernel(request):
    if request.param == "fake":
        yield FakeKernel()
        return
    request.getfixturevalue("namespace")
    kernel = await Linux.open()
    yield kernel
    await kernel.close()
