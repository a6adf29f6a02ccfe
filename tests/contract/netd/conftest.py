"""The kernel port, twice: in memory, and Linux in a network namespace made for the test."""

import os
from contextlib import contextmanager

import pytest
from fake_kernel import FakeKernel
from guests import open_tap
from netns import fresh

from nexus_netd.linux.port import Linux


@pytest.fixture
def namespace():
    """Be in a fresh network namespace; threads started in the test are in it too."""
    with fresh() as descriptor:
        yield descriptor


@pytest.fixture
def opened(kernel):
    """Have a TAP open, as a running VM has it, for the time of a block."""

    @contextmanager
    def opened(name):
        if isinstance(kernel, FakeKernel):
            kernel.held.add(name)
            yield
            kernel.held.remove(name)
            return
        descriptor = open_tap(name)
        try:
            yield
        finally:
            os.close(descriptor)

    return opened


@pytest.fixture(params=["fake", "linux"])
async def kernel(request):
    if request.param == "fake":
        yield FakeKernel()
        return
    request.getfixturevalue("namespace")
    kernel = await Linux.open()
    yield kernel
    await kernel.close()
