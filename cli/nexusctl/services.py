"""The three services as nexusctl calls them: channels opened on first use, a deadline on every
call, and one place where a status of gRPC becomes an error that says what happened.
"""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import grpc

from nexus.gateway.v1.gateway_pb2_grpc import GuestServiceStub
from nexus.netd.v1.netd_pb2_grpc import NetworkServiceStub
from nexus.vmm.v1.settings_pb2_grpc import SettingsServiceStub
from nexus.vmm.v1.vmm_pb2_grpc import VmServiceStub
from nexus_rpc.channel import connect
from nexus_rpc.errors import DeadlineExceeded, NexusError, from_rpc_error
from nexusctl import reach
from nexusctl.endpoint import RESOLVER

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType
    from typing import Self

    from nexus.gateway.v1.gateway_pb2_grpc import GuestServiceAsyncStub
    from nexus.netd.v1.netd_pb2_grpc import NetworkServiceAsyncStub
    from nexus.vmm.v1.settings_pb2_grpc import SettingsServiceAsyncStub
    from nexus.vmm.v1.vmm_pb2_grpc import VmServiceAsyncStub
    from nexusctl.endpoint import Endpoint

_Q = TypeVar("_Q")
_A = TypeVar("_A")

READ = 10.0
"""Seconds for a call that only looks something up."""
WRITE = 60.0
"""Seconds for a call that changes something; a boot in an emulated machine takes a few."""
LONG = 24 * 3600.0
"""Seconds for what lasts as long as its work does: a command, a file."""
SESSION = 30 * LONG
"""Seconds for an MCP session, which a client may leave open."""


class Service:
    """One service: its name, its target, and calls to it."""

    def __init__(self, name: str, target: str, channel: grpc.aio.Channel, trace: str) -> None:
        self.name = name
        self.target = target
        self.channel = channel
        self.metadata = (("traceparent", trace),)

    async def ask(
        self, method: grpc.aio.UnaryUnaryMultiCallable[_Q, _A], request: _Q, seconds: float = READ
    ) -> _A:
        """Return the answer. Raises NexusError."""
        try:
            return await method(request, timeout=seconds, metadata=self.metadata)
        except grpc.aio.AioRpcError as error:
            raise await self.error(error, f"within {seconds:g} s") from error

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[_Q, _A], request: _Q, seconds: float = LONG
    ) -> AsyncGenerator[_A, None]:
        """Yield the answers; leaving the loop ends the call. Raises NexusError."""
        call = method(request, timeout=seconds, metadata=self.metadata)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise await self.error(error, f"within {seconds:g} s") from error
        finally:
            call.cancel()

    async def error(self, error: grpc.aio.AioRpcError, bound: str) -> NexusError:
        """Return what the call ended with; a failed connection is looked into.

        `bound` says how long an answer was waited for. The error's metadata has `service`.
        """
        told = from_rpc_error(error)
        # CANCELLED is what a call under way gets when the service stops.
        if told.reason in {"UNAVAILABLE", "CANCELLED"}:
            told = await reach.why(self.name, self.target, told.message)
        elif told.reason == "DEADLINE_EXCEEDED":
            told = DeadlineExceeded(
                told.reason, f"{self.name} did not answer {bound}; it may still be at work"
            )
        told.metadata.setdefault("service", self.name)
        return told


class Vmm(Service):
    """vmm, which owns the VMs."""

    @cached_property
    def stub(self) -> VmServiceAsyncStub:
        """The calls of vmm.proto."""
        return VmServiceStub(self.channel)

    @cached_property
    def settings(self) -> SettingsServiceAsyncStub:
        """The calls of settings.proto."""
        return SettingsServiceStub(self.channel)


class Netd(Service):
    """netd, which owns the network."""

    @cached_property
    def stub(self) -> NetworkServiceAsyncStub:
        """The calls of netd.proto."""
        return NetworkServiceStub(self.channel)


class Gateway(Service):
    """agent-gateway, which reaches into guests."""

    @cached_property
    def stub(self) -> GuestServiceAsyncStub:
        """The calls of gateway.proto."""
        return GuestServiceStub(self.channel)


class Services:
    """The three services at one endpoint. Use it as a context: leaving closes the channels."""

    def __init__(self, endpoint: Endpoint, traceparent: str = "") -> None:
        self._endpoint = endpoint
        # W3C trace context: all calls of one command belong to one trace.
        self._trace = traceparent or f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        self._stack = AsyncExitStack()

    @cached_property
    def vmm(self) -> Vmm:
        """vmm."""
        return Vmm("vmm", *self._open("vmm"))

    @cached_property
    def netd(self) -> Netd:
        """netd."""
        return Netd("netd", *self._open("netd"))

    @cached_property
    def gateway(self) -> Gateway:
        """agent-gateway."""
        return Gateway("gateway", *self._open("gateway"))

    @cached_property
    def resolver(self) -> Service | None:
        """The resolver, which tells how it is and nothing else; None where it is out of reach."""
        if RESOLVER not in self._endpoint.targets:
            return None
        return Service(RESOLVER, *self._open(RESOLVER))

    @property
    def is_here(self) -> bool:
        """Whether they are on this host."""
        return self._endpoint.tls is None

    @property
    def all(self) -> tuple[Service, ...]:
        """The three in the order of the composition, and the resolver where it can be asked."""
        three = (self.netd, self.vmm, self.gateway)
        return three if self.resolver is None else (*three, self.resolver)

    def _open(self, name: str) -> tuple[str, grpc.aio.Channel, str]:
        target = self._endpoint.targets[name]
        channel = connect(target, self._endpoint.tls)
        self._stack.push_async_callback(channel.close)
        return target, channel, self._trace

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
