"""netd over a fake kernel and a real store."""

import pytest
from fake_kernel import FakeKernel
from netd_world import MortalDatabase, check_agreement, default, over

from nexus_netd.records.schema import MIGRATIONS
from nexus_rpc.database import Database


@pytest.fixture
def kernel():
    return FakeKernel()


@pytest.fixture
async def database(tmp_path):
    database = await Database.open(tmp_path / "netd.db", MIGRATIONS)
    yield database
    await database.close()


@pytest.fixture
def start(database, kernel):
    """Start netd anew on the same store and kernel, without looking at the kernel."""

    async def start(**changes):
        return await over(kernel, MortalDatabase(database, kernel), default(**changes))

    return start


@pytest.fixture
async def netd(start):
    return await start()


@pytest.fixture
def agree(kernel):
    """Check that store and kernel say the same."""

    async def agree(netd):
        check_agreement(netd, kernel)

    return agree
