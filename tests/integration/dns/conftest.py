"""A resolver, a name server that it asks, and netd's stream; 127.x addresses stand for guests."""

import pytest
from dns_doubles import Client, NameServer, resolving, until_heard
from free_port import free_port

GATEWAY = "127.53.0.1"
GUEST = "127.53.0.2"
OTHER = "127.53.0.3"
OPEN = "127.53.0.4"
STRANGER = "127.53.0.99"
UPSTREAM = "127.53.1.1"


@pytest.fixture
async def names():
    async with NameServer(UPSTREAM).serving() as server:
        yield server


@pytest.fixture
async def resolver(tmp_path):
    async with resolving(tmp_path, free_port()) as resolver:
        yield resolver


@pytest.fixture
async def netd(resolver, client):
    """netd, which has said the network and three guests; the resolver listens."""
    netd = resolver.drive()
    await netd.network(listen=[GATEWAY], upstream=[UPSTREAM])
    await netd.guest(
        "guest", GUEST, name="worker", names=["pypi.org", "*.pypi.org", "files.pypi.org"]
    )
    await netd.guest("other", OTHER, name="database", names=["example.com"])
    await netd.say(synced=True)
    await netd.guest("open", OPEN, name="browser", any_name=True, linked=["other"])
    # What is said later is heard later: once the last thing is known, all is.
    await until_heard(client(OPEN))
    return netd


@pytest.fixture
def client(resolver):
    def make(source, gateway=GATEWAY):
        return Client(source, gateway, resolver.port)

    return make


@pytest.fixture
def guest(client):
    return client(GUEST)


@pytest.fixture
def opened(client):
    return client(OPEN)
