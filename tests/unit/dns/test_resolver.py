"""The way of a query, with stand-ins for servers and netd."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address

import dns.message
import dns.rcode
import pytest
from dns_doubles import reply
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexus_dns.driver import Denial, Pin
from nexus_dns.metrics import Outcome, _outcomes
from nexus_dns.names import Allowed
from nexus_dns.view import Guest

GUEST, OPEN, NONE = (ip_address(f"172.16.0.{last}") for last in (2, 3, 4))


ADDRESSES = ("8.8.8.8", "10.9.9.9", "10.1.0.1")
GOOD = ["pypi.org 60 A 8.8.8.8"]


@pytest.fixture
def outcomes():
    _outcomes.clear()
    return _outcomes


async def test_an_answer_is_pinned(ask, upstream, netd, outcomes):
    upstream.answers["pypi.org A"] = [f"pypi.org 60 A {each}" for each in ADDRESSES]
    answer = await ask(GUEST, "PyPI.org")
    assert sorted(each.to_text() for each in answer.answer[0]) == ["10.1.0.1", "8.8.8.8"]
    (pin,) = netd.pins
    assert sorted(pin.addresses) == ["10.1.0.1", "8.8.8.8"]
    assert replace(pin, addresses=()) == Pin("guest", "pypi.org", (), 60, (0, 7))
    assert netd.denials == [Denial("guest", "pypi.org", "private answer")]
    assert outcomes == {Outcome.PRIVATE: 1}


async def test_without_a_pin_there_is_no_answer(ask, upstream, netd, outcomes):
    netd.makes_pins = False
    upstream.answers["pypi.org A"] = GOOD
    answer = await ask(GUEST, "pypi.org")
    assert (answer.rcode(), answer.answer) == (dns.rcode.SERVFAIL, [])
    assert outcomes == {Outcome.PIN: 1}


async def test_no_server_answers(ask, upstream, resolver, outcomes):
    upstream.answers["pypi.org A"] = lambda query: None
    for address in GUEST, OPEN:
        assert (await ask(address, "pypi.org")).rcode() == dns.rcode.SERVFAIL
    assert (outcomes, resolver.in_flight()) == ({Outcome.UPSTREAM: 2}, 0)


async def test_dnssec_is_asked_for_only_where_it_is_passed_on(ask, upstream):
    upstream.answers["pypi.org A"] = GOOD
    for address in GUEST, OPEN:
        await ask(address, "pypi.org", want_dnssec=True, flags=dns.flags.RD | dns.flags.CD)
    asked = [(question.dnssec, question.unchecked) for _, question in upstream.asked]
    assert asked == [(False, False), (True, True)]


async def test_a_guest_that_is_gone_meanwhile_is_owed_nothing(view, resolver, upstream, outcomes):
    def answer(query):
        view.remove_guest("guest")
        return reply(query, *GOOD)

    upstream.answers["pypi.org A"] = answer
    wire = dns.message.make_query("pypi.org", "A").to_wire()
    assert await resolver.answer(resolver.guest(GUEST), wire, by_tcp=False) is None
    assert resolver.in_flight() == 0


async def test_a_policy_that_is_closed_meanwhile(view, ask, upstream, netd):
    def answer(query):
        view.put_guest(Guest("open", frozenset({OPEN}), "default", names=Allowed([("a.org", 3)])))
        return reply(query, "a.org 60 A 8.8.8.8")

    upstream.answers = {"a.org A": answer, "b.org A": answer}
    assert (await ask(OPEN, "b.org")).rcode() == dns.rcode.REFUSED
    await ask(OPEN, "a.org")
    assert netd.pins == [Pin("open", "a.org", ("8.8.8.8",), 60, (3,))]


async def test_denials_are_bounded(ask, netd):
    for n in range(50):
        assert (await ask(NONE, f"n{n}.org")).rcode() == dns.rcode.REFUSED
    assert 20 <= len(netd.denials) <= 25


async def test_queries_are_bounded(resolver, outcomes):
    taken = sum(resolver.guest(GUEST) is not None for _ in range(1000))
    assert 400 <= taken <= 450
    assert outcomes[Outcome.RATE] == 1000 - taken
    assert resolver.guest(OPEN) is not None
    assert resolver.guest(ip_address("172.16.0.99")) is None


async def test_all_together_wait_for_at_most_1024(view, resolver, upstream, outcomes):
    hold, answer = asyncio.Event(), upstream.ask

    async def ask(servers, question):
        await hold.wait()
        return await answer(servers, question)

    upstream.ask = ask
    wire = dns.message.make_query("pypi.org", "A").to_wire()
    tasks = []
    for n in range(20):
        address = ip_address(f"172.16.1.{n}")
        view.put_guest(Guest(f"g{n}", frozenset({address}), "default", any_name=True))
        client = resolver.guest(address)
        tasks += [
            asyncio.create_task(resolver.answer(client, wire, by_tcp=False)) for _ in range(64)
        ]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert resolver.in_flight() == 1024
    assert {dns.message.from_wire(task.result()).rcode() for task in done} == {dns.rcode.REFUSED}
    hold.set()
    await asyncio.gather(*tasks)
    assert outcomes == {Outcome.BUSY: 20 * 64 - 1024, Outcome.ANSWERED: 1024}
    assert resolver.in_flight() == 0


async def test_a_defect_costs_one_query(ask, resolver, upstream, outcomes, caplog):
    def fail(query):
        raise ZeroDivisionError

    upstream.answers["pypi.org A"] = fail
    wire = dns.message.make_query("pypi.org", "A").to_wire()
    assert await resolver.answer(resolver.guest(GUEST), wire, by_tcp=False) is None
    assert outcomes == {Outcome.DEFECT: 1}
    assert "defect" in caplog.text
    assert resolver.in_flight() == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.binary(max_size=1300), by_tcp=st.booleans())
async def test_any_bytes_from_anybody(resolver, upstream, outcomes, data, by_tcp):
    upstream.answers["pypi.org A"] = GOOD
    for address in GUEST, OPEN, None:
        client = resolver.guest(address) if address else resolver.host()
        if client:
            reply = await resolver.answer(client, data, by_tcp=by_tcp)
            assert reply is None or reply[:2] == data[:2]
    assert not outcomes[Outcome.DEFECT]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    head=st.binary(min_size=10, max_size=10),
    labels=st.lists(st.binary(min_size=1, max_size=63), max_size=5),
    kind=st.integers(0, 65_535),
    rest=st.binary(max_size=40),
)
async def test_any_question_from_anybody(resolver, upstream, outcomes, head, labels, kind, rest):
    name = b"".join(bytes([len(label)]) + label for label in labels)
    wire = b"\0\1\1\0\0\1\0\0\0\0" + head[:2] + name + b"\0" + kind.to_bytes(2, "big") + b"\0\1"
    for address in GUEST, OPEN, None:
        client = resolver.guest(address) if address else resolver.host()
        if client:
            await resolver.answer(client, wire + rest, by_tcp=False)
    assert not outcomes[Outcome.DEFECT]
