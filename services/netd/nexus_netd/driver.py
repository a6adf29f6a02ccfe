"""Driving the resolver: it is told whom to answer what, and asks for pins before it answers.

netd works without it; while it is away names are not resolved, and the rest goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol

import grpc

from nexus.netd.v1 import resolver_pb2 as pb
from nexus.netd.v1 import resolver_pb2_grpc
from nexus_netd import checks
from nexus_netd.feed import Missed
from nexus_netd.model import Mode
from nexus_netd.requested import MOST_RULES
from nexus_rpc.channel import OPTIONS
from nexus_rpc.errors import NexusError, from_rpc_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Sequence
    from typing import NoReturn

    from nexus_netd.feed import Feed, Happening
    from nexus_netd.model import Address, NetworkSpec, Policy
    from nexus_netd.view import View

    Call = grpc.aio.StreamStreamCall[pb.DriveRequest, pb.DriveResponse]

PIN_SECONDS = 1.5
"""What a pin may take: a guest's resolver asks again after 5 s (resolv.conf(5))."""

PINS_AT_ONCE = 32
_WRITE_SECONDS = 10.0
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 1.0
_MOST_ADDRESSES = 32  # of a PinRequest

_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
"""RFC 1918, 6598 and 4193: what a guest may reach, so it may be told of it, with an open policy."""

_log = logging.getLogger(__name__)


class Pin(Protocol):
    """Lets a guest reach addresses: `nexus_netd.netd.Netd.pin`."""

    async def __call__(
        self,
        vm_id: str,
        domain: str,
        addresses: Sequence[Address],
        ttl: float,
        slots: Sequence[int],
    ) -> None:
        """Pin them for `ttl` seconds, for the rules in these slots. Raises NexusError."""


class _Ended(Exception):  # no error
    """The stream is over: a new one begins with the whole view."""


class Driver:
    """Drives the resolver at `target`, a gRPC target; `report` takes what names it refused."""

    def __init__(
        self,
        target: str,
        view: View,
        feed: Feed,
        pin: Pin,
        report: Callable[[str, str, str], None],
    ) -> None:
        self._target = target
        self._view = view
        self._feed = feed
        self._pin = pin
        self._report = report

    async def run(self) -> None:
        """Drive for ever; a stream that ends is begun anew after 0.1 s, doubling to 1 s."""
        # gRPC's own waiting would grow to two minutes.
        options = [
            *OPTIONS,
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ]
        async with grpc.aio.insecure_channel(self._target, options) as channel:
            stub = resolver_pb2_grpc.ResolverServiceStub(channel)
            wait, heard = _FIRST_WAIT, True
            while True:
                session = _Session(self._view, self._feed, self._pin, self._report)
                error = await session.run(stub.Drive())
                if session.synced:
                    wait, heard = _FIRST_WAIT, True
                if heard:
                    _log.warning("the resolver is not heard: %s", error)  # once, not at each try
                    heard = False
                await asyncio.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT)


class _Session:
    """One stream, from the whole view to its end."""

    def __init__(
        self, view: View, feed: Feed, pin: Pin, report: Callable[[str, str, str], None]
    ) -> None:
        self._view = view
        self._feed = feed
        self._pin = pin
        self._report = report
        self._unsaid = _Unsaid(view)
        self._answers: deque[pb.DriveRequest] = deque()
        self._free = asyncio.Semaphore(PINS_AT_ONCE)  # freed when the answer has been written
        self._awake = asyncio.Event()
        self.synced = False

    async def run(self, call: Call) -> NexusError:
        """Drive until the stream ends. Returns why."""
        error = NexusError("ENDED", "the resolver ended the stream")
        try:
            # Watched before the view is looked at: no change falls between.
            with self._feed.watch() as happenings:
                self._unsaid.mark_all()
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._follow(happenings))
                    tasks.create_task(self._write(call))
                    await self._read(call, tasks)
        except* _Ended:
            pass
        except* TimeoutError:
            error = NexusError("SLOW", f"it took nothing in for {_WRITE_SECONDS:.0f} s")
        except* grpc.aio.AioRpcError as group:
            error = _rpc_error(group)
        finally:
            call.cancel()
        # A task group that fails while it is cancelled keeps the cancellation to itself, until
        # Python 3.13.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        return error

    async def _follow(self, happenings: AsyncIterable[Happening | Missed]) -> None:
        async for happening in happenings:
            if isinstance(happening, Missed):
                raise _Ended
            if happening.what != "repaired":  # then everything is as it was said
                self._unsaid.mark(happening)
                self._awake.set()

    async def _write(self, call: Call) -> None:
        """Say what there is to say, until the call is over, which `_read` is told."""
        while not call.done():
            if self._answers:
                await _say(call, self._answers.popleft())
                self._free.release()
            elif (unsaid := self._unsaid.take()) is not None:
                await _say(call, unsaid)
            elif not self.synced:
                await _say(call, pb.DriveRequest(synced=True))
                self.synced = True
                _log.info("the resolver has been told everything")
            else:
                self._awake.clear()
                await self._awake.wait()

    async def _read(self, call: Call, tasks: asyncio.TaskGroup) -> NoReturn:
        async for response in call:
            if response.HasField("pin"):
                # Where too many are under way, the resolver waits, and its guests with it.
                await self._free.acquire()
                tasks.create_task(self._answer(response.pin))
            elif response.HasField("denial"):
                denial = response.denial
                self._report(denial.vm_id, denial.domain, denial.rule)
        raise _Ended

    async def _answer(self, request: pb.PinRequest) -> None:
        try:
            domain, addresses, slots = _asked(request)
            async with asyncio.timeout(PIN_SECONDS):
                await self._pin(request.vm_id, domain, addresses, float(request.ttl), slots)
            answer = pb.DriveRequest(pinned=request.number)
        except (NexusError, ValueError, TimeoutError) as error:
            _log.debug("not pinned for VM %.64r: %r", request.vm_id, error)
            answer = pb.DriveRequest(not_pinned=request.number)
        self._answers.append(answer)
        self._awake.set()


class _Unsaid:
    """What has to be said, each thing once, as it is when it is said."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._networks: dict[str, None] = {}
        self._guests: dict[str, None] = {}
        self._gone: dict[str, None] = {}

    def mark_all(self) -> None:
        """Mark the whole view."""
        self._networks |= dict.fromkeys(self._view.networks)
        self._guests |= dict.fromkeys(self._view.guests)

    def mark(self, happening: Happening) -> None:
        """Mark what it is about: a guest, or a network with all its guests."""
        vm_id, view = happening.vm_id, self._view
        if not vm_id:
            self._networks[happening.network] = None
            for port in view.ports.values():
                if port.network == happening.network:
                    self._guests[port.vm_id] = None
        elif vm_id in view.guests:
            self._guests[vm_id] = None
            self._gone.pop(vm_id, None)
        else:
            self._gone[vm_id] = None
            self._guests.pop(vm_id, None)

    def take(self) -> pb.DriveRequest | None:
        """Return the next thing to say: who is gone, whose address may be another's; networks
        before their guests, and networks that are gone after them.
        """
        view = self._view
        if self._gone:
            return pb.DriveRequest(guest_gone=_first(self._gone))
        for name in self._networks:
            if name in view.networks:
                del self._networks[name]
                return pb.DriveRequest(network=served_network(view.networks[name]))
        if self._guests:
            vm_id = _first(self._guests)
            if vm_id not in view.guests:
                return pb.DriveRequest(guest_gone=vm_id)
            return pb.DriveRequest(guest=served_guest(view, vm_id))
        if self._networks:
            return pb.DriveRequest(network_gone=_first(self._networks))
        return None


def served_network(spec: NetworkSpec) -> pb.ServedNetwork:
    """Return what the resolver is told of a network."""
    listen = [str(address) for address in (spec.gateway, spec.ipv6_gateway) if address]
    return pb.ServedNetwork(name=spec.name, listen=listen, upstream=spec.dns)


def served_guest(view: View, vm_id: str) -> pb.ServedGuest:
    """Return what the resolver is told of a guest."""
    port, guest = view.ports[vm_id], view.guests[vm_id]
    rules = guest.policy.rules if guest.policy.mode is Mode.RULES else ()
    return pb.ServedGuest(
        vm_id=vm_id,
        addresses=map(str, guest.addresses),
        network=port.network,
        name=port.vm_name,
        upstream=port.upstream_dns,
        any_name=resolves_any_name(guest.policy),
        names=[
            pb.AllowedName(pattern=rule.domain, slot=slot)
            for slot, rule in enumerate(rules)
            if rule.domain
        ],
        linked=dict.fromkeys(link.to_vm_id for link in view.links_from(vm_id)),
        private_ok=_PRIVATE
        if guest.policy.mode is Mode.OPEN
        else dict.fromkeys(str(rule.cidr) for rule in rules if rule.allow and rule.cidr),
    )


def resolves_any_name(policy: Policy) -> bool:
    """Whether the resolver answers every name: who may reach any address may know any name."""
    return policy.mode is Mode.OPEN or (
        policy.mode is Mode.RULES
        and any(rule.allow and not rule.cidr and not rule.domain for rule in policy.rules)
    )


def _asked(request: pb.PinRequest) -> tuple[str, tuple[Address, ...], tuple[int, ...]]:
    """Return the name, the addresses to pin, and the slots. Raises ValueError.

    What is without bounds here, a resolver that was taken over would have netd drown in.
    """
    if not checks.is_told_name(request.domain):
        raise ValueError(f"{request.domain[:64]!r} is no name")
    for what, number, most in (
        ("addresses", len(request.addresses), _MOST_ADDRESSES),
        ("slots", len(request.slots), MOST_RULES),
    ):
        if number > most:
            raise ValueError(f"{number} {what}: at most {most}")
    addresses = dict.fromkeys(map(ip_address, request.addresses))
    if any(address.version == 6 and address.scope_id for address in addresses):
        raise ValueError("an address has a scope")  # it would be one for the kernel with another
    return request.domain, tuple(addresses), tuple(dict.fromkeys(request.slots))


async def _say(call: Call, request: pb.DriveRequest) -> None:
    """Write it. Raises TimeoutError when the resolver does not read, AioRpcError."""
    # gRPC says InvalidStateError of a call that ended meanwhile.
    with suppress(asyncio.InvalidStateError):
        async with asyncio.timeout(_WRITE_SECONDS):
            await call.write(request)


def _first(names: dict[str, None]) -> str:
    """Take the first out."""
    name = next(iter(names))
    del names[name]
    return name


def _rpc_error(group: BaseExceptionGroup[grpc.aio.AioRpcError]) -> NexusError:
    """Return the first of the errors; reading and writing meet the same end of the stream."""
    first = group.exceptions[0]
    return from_rpc_error(first) if isinstance(first, grpc.aio.AioRpcError) else _rpc_error(first)
