import pytest
from vmm_life import Host


@pytest.fixture
async def host():
    async with Host.fresh() as host:
        yield host
