"""The way of a query, from its bytes to the answer's."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import dns.flags
import dns.rcode

from nexus_dns import answers, metrics, replies
from nexus_dns.driver import Denial, Pin
from nexus_dns.limits import IN_FLIGHT, IN_FLIGHT_PER_GUEST, Share
from nexus_dns.metrics import Outcome
from nexus_dns.policy import Local, decide_for_guest, decide_for_host
from nexus_dns.query import Malformed, parse
from nexus_dns.upstream import NoAnswer, Question

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nexus_dns.policy import Ask
    from nexus_dns.query import Query
    from nexus_dns.upstream import Upstream
    from nexus_dns.view import Guest, View
    from nexus_rpc.addresses import Address

_log = logging.getLogger(__name__)

Reply = tuple[bytes | None, Outcome]


@dataclass(frozen=True)
class Client:
    """Who asks: a guest, by the address that the query came from; None: the host."""

    address: Address | None
    share: Share


class Policing(Protocol):
    """What makes pins and takes denials."""

    async def pin(self, pin: Pin) -> bool:
        """Let a guest reach what it is about to be given. False: it was not done."""

    def deny(self, denial: Denial) -> None:
        """Tell of a denial."""


class Resolver:
    """Answers clients: from the view, or by the world's servers."""

    def __init__(self, view: View, upstream: Upstream, policing: Policing) -> None:
        self._view = view
        self._upstream = upstream
        self._policing = policing
        self._host = Client(None, Share())
        self._in_flight = 0

    def in_flight(self) -> int:
        """Return how many queries wait for a server or a pin."""
        return self._in_flight

    def is_guest(self, address: Address) -> bool:
        """Tell whether a guest has `address`."""
        return self._view.guest_at(address) is not None

    def guest(self, address: Address) -> Client | None:
        """Return the guest that may ask now from `address`, or None: it gets no answer.

        To be called once for each query, before anything of it is looked at.
        """
        guest = self._view.guest_at(address)
        if guest is None:
            metrics.count(Outcome.UNKNOWN)
            return None
        if not guest.share.queries.take(time.monotonic()):
            metrics.count(Outcome.RATE)
            return None
        return Client(address, guest.share)

    def host(self) -> Client:
        """Return the host."""
        return self._host

    async def answer(self, client: Client, wire: bytes, *, by_tcp: bool) -> bytes | None:
        """Return the answer to the query in `wire`, or None for no answer. Raises nothing."""
        try:
            reply, outcome = await self._answer(client, wire, by_tcp=by_tcp)
        except Exception:  # noqa: BLE001  # the last resort: one guest's query must not end the service
            _log.exception("defect in a query", extra={"query": wire[:512].hex()})
            reply, outcome = None, Outcome.DEFECT
        metrics.count(outcome)
        return reply

    async def _answer(self, client: Client, wire: bytes, *, by_tcp: bool) -> Reply:
        try:
            query = parse(wire, by_tcp=by_tcp)
        except Malformed as error:
            return error.reply, Outcome.MALFORMED
        if query.message.edns > 0:
            return replies.build(query, dns.rcode.BADVERS), Outcome.MALFORMED
        if client.address is None:
            return self._known(None, query, decide_for_host(self._view, query))
        return await self._answer_guest(client.address, client.share, query)

    async def _answer_guest(self, address: Address, share: Share, query: Query) -> Reply:
        guest = self._view.guest_at(address)
        if guest is None:
            return None, Outcome.UNKNOWN
        decision = decide_for_guest(self._view, guest, query)
        if isinstance(decision, Local):
            return self._known(guest, query, decision)
        if self._in_flight >= IN_FLIGHT or share.in_flight >= IN_FLIGHT_PER_GUEST:
            return replies.build(query, dns.rcode.REFUSED), Outcome.BUSY
        with self._counted(share):
            try:
                found = await self._upstream.ask(decision.servers, _question(query, decision))
            except NoAnswer:
                return _failed(query, Outcome.UPSTREAM)
            return await self._give(address, query, found)

    @contextmanager
    def _counted(self, share: Share) -> Iterator[None]:
        self._in_flight += 1
        share.in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            share.in_flight -= 1

    def _known(self, guest: Guest | None, query: Query, local: Local) -> Reply:
        why = ""
        if guest and local.outcome is Outcome.NAME:
            why = "the VM's policy does not allow this name"
            self._deny(guest, query, local.outcome)
        return replies.build(query, local.code, local.records, why=why), local.outcome

    async def _give(self, address: Address, query: Query, found: bytes) -> Reply:
        """Give a guest what a server answered."""
        # The policy may have changed in the meantime: what is given is what holds now.
        guest = self._view.guest_at(address)
        if guest is None:
            return None, Outcome.UNKNOWN
        decision = decide_for_guest(self._view, guest, query)
        if isinstance(decision, Local):
            return self._known(guest, query, decision)
        try:
            if decision.any_name:
                return replies.relay(query, found), Outcome.ANSWERED
            answer = answers.read(found, decision.private_ok)
        except (replies.Cut, answers.BadAnswer):
            return _failed(query, Outcome.UPSTREAM)
        if answer.struck:
            self._deny(guest, query, Outcome.PRIVATE)
        if answer.addresses and not await self._pin(guest, query, decision, answer):
            return _failed(query, Outcome.PIN)
        reply = replies.build(
            query,
            answer.code,
            answer.records,
            answer.authority,
            why="all addresses are private" if answer.code == dns.rcode.REFUSED else "",
        )
        return reply, Outcome.PRIVATE if answer.struck else Outcome.ANSWERED

    async def _pin(self, guest: Guest, query: Query, ask: Ask, answer: answers.Answer) -> bool:
        pin = Pin(guest.vm_id, query.domain, answer.addresses, answer.ttl, ask.slots)
        return await self._policing.pin(pin)

    def _deny(self, guest: Guest, query: Query, rule: Outcome) -> None:
        if guest.share.denials.take(time.monotonic()):
            self._policing.deny(Denial(guest.vm_id, query.domain, rule))


def _question(query: Query, ask: Ask) -> Question:
    if not ask.any_name:
        # No signatures: they would be left out. And whatever the server can check, it shall.
        return Question(query.name, query.kind)
    unchecked = bool(query.message.flags & dns.flags.CD)
    return Question(query.name, query.kind, dnssec=query.dnssec, unchecked=unchecked)


def _failed(query: Query, outcome: Outcome) -> Reply:
    return replies.build(query, dns.rcode.SERVFAIL), outcome
