"""netd over a fake kernel and a real store."""

import pytest
from fake_kernel import FakeKernel, Killed

from nexus_netd.leases import MIGRATIONS, Leases
from nexus_netd.netd import Netd
from nexus_netd.network import Network
from nexus_netd.ports import Ports
from nexus_netd.subnet import Subnet
from nexus_rpc.database import Database

BRIDGE = "nexbr0"
OWNER = 4242


@pytest.fixture
def kernel():
    return FakeKernel()


@pytest.fixture
async def database(tmp_path):
    database = await Database.open(tmp_path / "netd.db", MIGRATIONS)
    yield database
    await database.close()


class MortalDatabase:
    """A database that hears nothing from a process that was killed."""

    def __init__(self, database, kernel):
        self._database = database
        self._kernel = kernel

    async def read(self, work):
        return await self._reach(self._database.read, work)

    async def write(self, work):
        return await self._reach(self._database.write, work)

    async def _reach(self, method, work):
        if self._kernel.dead:
            raise Killed
        return await method(work)


@pytest.fixture
def start(database, kernel):
    """Start netd anew on the same store and kernel, without reconciling."""

    async def start(subnet="172.16.0.0/12"):
        parsed = Subnet.parse(subnet)
        leases = await Leases.open(MortalDatabase(database, kernel), parsed)
        ports = Ports(kernel, leases, bridge=BRIDGE, subnet=parsed, mtu=1500, owner=OWNER)
        return Netd(Network(kernel, BRIDGE, parsed, 1500), ports, leases)

    return start


@pytest.fixture
async def netd(start):
    return await start()


@pytest.fixture
def agree(kernel):
    """Check that store and kernel say the same."""

    async def agree(netd):
        leases = {lease.tap: lease.vm_id for lease in await netd.all()}
        assert {tap.name: tap.vm_id for tap in kernel.present.values()} == leases
        assert kernel.kept == leases.keys()
        for tap in kernel.present.values():
            assert (tap.bridge, tap.up, tap.isolated, tap.locked) == (BRIDGE, True, True, True)

    return agree
