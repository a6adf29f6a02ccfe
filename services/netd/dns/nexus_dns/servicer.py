"""ResolverService: converts between messages and the domain, and nothing else."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, TypeVar

from nexus.netd.v1 import resolver_pb2 as pb
from nexus.netd.v1.resolver_pb2_grpc import ResolverServiceServicer
from nexus_dns.driver import Denial, Pin, Session
from nexus_dns.names import allowed
from nexus_dns.servers import FROM_HOST
from nexus_dns.view import Guest, Served
from nexus_rpc.errors import Cancelled, invalid_field

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable

    from grpc.aio import ServicerContext

    from nexus_dns.driver import Driver
    from nexus_dns.view import View

    Context = ServicerContext[pb.DriveRequest, pb.DriveResponse]

_T = TypeVar("_T")


class Servicer(ResolverServiceServicer):
    """See resolver.proto."""

    def __init__(self, view: View, driver: Driver) -> None:
        self._view = view
        self._driver = driver

    async def Drive(  # type: ignore[override]  # it writes its answers: see nexus_gateway.servicer
        self, request_iterator: AsyncIterator[pb.DriveRequest], context: Context
    ) -> None:
        """See resolver.proto."""
        session = Session()
        with self._driver.driven_by(session):
            await _first_of(
                self._listen(session, request_iterator), _tell(session, context), session.over()
            )
            if not self._driver.is_driven_by(session):
                raise Cancelled(
                    "DRIVER_REPLACED", "another stream drives the resolver now, or it stops"
                )

    async def _listen(self, session: Session, requests: AsyncIterator[pb.DriveRequest]) -> None:
        networks: set[str] = set()
        guests: set[str] = set()
        async for request in requests:
            match request.WhichOneof("say"):
                case "network":
                    if not session.synced:
                        networks.add(request.network.name)
                    self._view.put_network(_served(request.network))
                case "network_gone":
                    self._view.remove_network(request.network_gone)
                case "guest":
                    if not session.synced:
                        guests.add(request.guest.vm_id)
                    self._view.put_guest(_guest(request.guest))
                case "guest_gone":
                    self._view.remove_guest(request.guest_gone)
                case "synced" if not session.synced:
                    self._view.keep(networks, guests)
                    session.synced = True
                case "pinned":
                    session.settle(request.pinned, pinned=True)
                case "not_pinned":
                    session.settle(request.not_pinned, pinned=False)
                case other:
                    raise invalid_field("say", other, "expected `synced` once, or another thing")


async def _first_of(*works: Coroutine[object, object, None]) -> None:
    """Run all until one ends; raise what it raised. None is left running."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _tell(session: Session, context: Context) -> None:
    while True:
        said = await session.next()
        await context.write(_denial(said) if isinstance(said, Denial) else _pin(*said))


def _pin(number: int, pin: Pin) -> pb.DriveResponse:
    return pb.DriveResponse(
        pin=pb.PinRequest(
            number=number,
            vm_id=pin.vm_id,
            domain=pin.domain,
            addresses=pin.addresses,
            ttl=pin.ttl,
            slots=pin.slots,
        )
    )


def _denial(denial: Denial) -> pb.DriveResponse:
    return pb.DriveResponse(
        denial=pb.NameDenial(vm_id=denial.vm_id, domain=denial.domain, rule=denial.rule)
    )


def _served(message: pb.ServedNetwork) -> Served:
    return Served(
        name=message.name,
        listen=frozenset(_each("network.listen", ip_address, message.listen)),
        upstream=_upstream("network.upstream", message.upstream),
    )


def _guest(message: pb.ServedGuest) -> Guest:
    try:
        names = allowed(tuple((each.pattern, each.slot) for each in message.names))
    except ValueError as error:
        raise invalid_field("guest.names", message.vm_id, str(error)) from None
    return Guest(
        vm_id=message.vm_id,
        addresses=frozenset(_each("guest.addresses", ip_address, message.addresses)),
        network=message.network,
        name=message.name,
        upstream=_upstream("guest.upstream", message.upstream),
        any_name=message.any_name,
        names=names,
        linked=frozenset(message.linked),
        private_ok=tuple(_each("guest.private_ok", ip_network, message.private_ok)),
    )


def _upstream(field: str, servers: Iterable[str]) -> tuple[str, ...]:
    found = tuple(servers)
    _each(field, ip_address, [server for server in found if server != FROM_HOST])
    return found


def _each(field: str, parse: Callable[[str], _T], values: Iterable[str]) -> list[_T]:
    found = []
    for value in values:
        try:
            found.append(parse(value))
        except ValueError as error:
            raise invalid_field(field, value, str(error)) from None
    return found
