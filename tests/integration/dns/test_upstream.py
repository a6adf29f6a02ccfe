"""Servers that are slow, dead, wrong or hostile."""

import asyncio
import struct
import time

import dns.flags
import dns.message
import pytest
from dns_doubles import NameServer, code, reply, until_heard, values

GOOD = "pypi.org 300 A 151.101.0.223"
BAD = "pypi.org 300 A 203.0.113.66"
DEAD = "127.53.1.9"


@pytest.fixture
async def second():
    async with NameServer("127.53.1.2").serving() as server:
        yield server


async def served_by(netd, guest, *servers):
    """Have these servers asked."""
    await netd.network(listen=[guest.gateway], upstream=servers)
    await netd.guest("guest", guest.source, name="moved", names=["pypi.org"])
    await until_heard(guest, "moved.nexus")


async def test_a_long_answer_is_fetched_by_tcp(names, netd, guest, opened):
    long = "x" * 250
    names.answers["pypi.org TXT"] = [f"pypi.org 60 TXT {n}{long}" for n in range(20)]
    for client in guest, opened:
        answer = await client.ask("pypi.org", "TXT", use_edns=0, payload=4096)
        assert answer.flags & dns.flags.TC
        answer = await client.ask_by_tcp("pypi.org", "TXT")
        assert len(values(answer)) == 20
    assert len(names.asked_by_tcp) == 4


async def test_a_long_answer_of_which_the_guest_gets_a_part_has_pins_for_all_of_it(
    names, netd, guest
):
    names.answers["pypi.org AAAA"] = [f"pypi.org 60 AAAA 2a04:4e42::{n:x}" for n in range(1, 31)]
    answer = await guest.ask("pypi.org", "AAAA")
    assert answer.flags & dns.flags.TC
    assert len(answer.to_wire()) <= 512
    assert len(netd.made[0].addresses) == 30


@pytest.mark.parametrize("length", [16_385, 65_535])
async def test_an_answer_that_is_too_long(names, netd, opened, length):
    def by_tcp(query):
        answer = reply(query)
        answer.flags |= dns.flags.TC
        wire = answer.to_wire()
        return wire if len(names.asked_by_tcp) == 0 else wire + bytes(length - len(wire))

    names.answers["pypi.org A"] = by_tcp
    assert code(await opened.ask_by_tcp("pypi.org")) == "SERVFAIL"


async def test_no_server_answers(netd, guest, opened):
    began = time.monotonic()
    answers = await asyncio.gather(guest.ask("pypi.org"), opened.ask("pypi.org"))
    assert [code(answer) for answer in answers] == ["SERVFAIL", "SERVFAIL"]
    assert time.monotonic() - began < 8  # the resolver takes 4; the rest is a busy machine's


async def test_a_server_that_is_silent_costs_its_part_of_the_time(names, second, netd, guest):
    names.answers["pypi.org A"] = lambda query: None
    second.answers["pypi.org A"] = [GOOD]
    await served_by(netd, guest, names.address, second.address)
    began = time.monotonic()
    assert values(await guest.ask("pypi.org")) == ["151.101.0.223"]
    assert 0.9 < time.monotonic() - began < 3.5  # not all of the 4


async def test_all_are_silent(names, netd, guest):
    names.answers["pypi.org A"] = lambda query: None
    began = time.monotonic()
    assert code(await guest.ask("pypi.org")) == "SERVFAIL"
    assert 3.5 < time.monotonic() - began < 8
    assert names.asked == ["pypi.org A"] * 2


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "FORMERR", "NOTIMP"])
async def test_a_server_that_fails_leaves_it_to_the_next(names, second, netd, guest, rcode):
    names.answers["pypi.org A"] = lambda query: reply(query, code=dns.rcode.from_text(rcode))
    second.answers["pypi.org A"] = [GOOD]
    await served_by(netd, guest, DEAD, names.address, second.address)
    assert values(await guest.ask("pypi.org")) == ["151.101.0.223"]


async def test_a_guests_own_servers(names, second, netd, guest):
    second.answers["pypi.org A"] = [GOOD]
    await netd.guest(
        "guest", guest.source, name="moved", names=["pypi.org"], upstream=[second.address]
    )
    await until_heard(guest, "moved.nexus")
    assert values(await guest.ask("pypi.org")) == ["151.101.0.223"]
    assert names.asked == []


async def test_a_network_without_servers(netd, guest):
    await served_by(netd, guest)
    assert code(await guest.ask("pypi.org")) == "SERVFAIL"


def other_number(query):
    query.id ^= 1
    return reply(query, BAD)


def other_name(query):
    return reply(dns.message.make_query("evil.net", "A", id=query.id), BAD)


def other_type(query):
    return reply(dns.message.make_query("pypi.org", "AAAA", id=query.id), BAD)


def a_query(query):
    return query.to_wire()


def no_question(query):
    return struct.pack("!6H", query.id, 0x8180, 0, 0, 0, 0)


def nothing(query):
    return b""


@pytest.mark.parametrize(
    "lie", [other_number, other_name, other_type, a_query, no_question, nothing]
)
async def test_what_is_no_answer_is_passed_over(names, netd, guest, opened, lie):
    def lie_then_answer(query):
        names.transport.sendto(wire(lie(dns.message.from_wire(query.to_wire()))), where[-1])
        return reply(query, GOOD)

    where = []
    received = names.datagram_received
    names.datagram_received = lambda data, address: (
        where.append(address),
        received(data, address),
    )
    names.answers["pypi.org A"] = lie_then_answer
    for client in guest, opened:
        assert values(await client.ask("pypi.org")) == ["151.101.0.223"]


def wire(answer):
    return answer if isinstance(answer, bytes) else answer.to_wire()


async def test_only_lies(names, netd, guest):
    names.answers["pypi.org A"] = other_number
    assert code(await guest.ask("pypi.org")) == "SERVFAIL"


async def test_an_answer_from_another_address(names, second, netd, guest):
    where = []
    received = names.datagram_received
    names.datagram_received = lambda data, address: (
        where.append(address),
        received(data, address),
    )

    def by_another(query):
        second.transport.sendto(reply(query, BAD).to_wire(), where[-1])

    names.answers["pypi.org A"] = by_another
    assert code(await guest.ask("pypi.org")) == "SERVFAIL"


@pytest.mark.parametrize("cut", [12, 15, 20])  # more than OPT, which is 11 bytes and the last
async def test_records_that_end_too_early(names, netd, guest, opened, cut):
    names.answers["pypi.org A"] = lambda query: reply(query, GOOD).to_wire()[:-cut]
    for client in guest, opened:
        assert code(await client.ask("pypi.org")) == "SERVFAIL"


async def test_what_it_adds_is_left_out(names, netd, guest, opened):
    def generous(query):
        answer = reply(query, GOOD)
        answer.additional.extend(reply(query, BAD).answer)
        answer.flags |= dns.flags.AD | dns.flags.AA
        return answer

    names.answers["pypi.org A"] = generous
    for client in guest, opened:
        answer = await client.ask("pypi.org")
        assert (values(answer), answer.additional) == (["151.101.0.223"], [])
        assert not answer.flags & (dns.flags.AD | dns.flags.AA)
