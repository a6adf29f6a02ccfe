"""The world's servers: the real client before a name server, and its stand-in in unit tests."""

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest
from dns_doubles import NameServer, reply, values
from dns_fakes import FakeUpstream

from nexus_dns.servers import HostServers
from nexus_dns.upstream import NoAnswer, Question, Servers

SERVER = "127.53.3.1"


@pytest.fixture(params=["real", "fake"])
async def world(request):
    """Give what asks, and what is told the answers."""
    if request.param == "fake":
        fake = FakeUpstream()
        yield fake, fake
        return
    async with NameServer(SERVER).serving() as server:
        yield Servers(HostServers(())), server


def question(name, kind="A"):
    return Question(dns.name.from_text(name), dns.rdatatype.from_text(kind))


async def test_a_name_that_is_there(world):
    upstream, server = world
    server.answers["pypi.org A"] = ["pypi.org 60 A 8.8.8.8"]
    answer = dns.message.from_wire(await upstream.ask([SERVER], question("PyPI.org")))
    assert values(answer) == ["8.8.8.8"]
    assert answer.question[0].name == dns.name.from_text("pypi.org")


async def test_a_name_that_is_not_there(world):
    upstream, _ = world
    answer = dns.message.from_wire(await upstream.ask([SERVER], question("gone.org", "TXT")))
    assert answer.rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize("code", ["SERVFAIL", "REFUSED", "FORMERR"])
async def test_a_server_that_fails(world, code):
    upstream, server = world
    server.answers["pypi.org A"] = lambda query: reply(query, code=dns.rcode.from_text(code))
    with pytest.raises(NoAnswer):
        await upstream.ask([SERVER], question("pypi.org"))


async def test_a_server_that_is_silent(world):
    upstream, server = world
    server.answers["pypi.org A"] = lambda query: None
    with pytest.raises(NoAnswer):
        await upstream.ask([SERVER], question("pypi.org"))
