"""The control connection of one guest: hello, configure, ping, shutdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_gateway.reasons import error_of
from nexus_gateway.untrusted import text, texts
from nexus_guest.wire import Kind
from nexus_rpc.errors import DataLoss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nexus.vmm.v1.vmm_pb2 import Vm
    from nexus_gateway.vsock import Connection

_CONFIGURE_TIMEOUT = 30.0


@dataclass(frozen=True)
class Hello:
    """What an agent says of its guest; nothing of it is to be trusted."""

    boot_id: str
    agent_version: str
    kernel: str
    os: str


class Link:
    """Asks the agent one thing at a time. Errors: those of `Connection` and of `reasons`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def hello(self, *, timeout: float) -> Hello:
        """Return what the agent says of its guest."""
        said = await self._ask({"op": "hello"}, timeout)
        return Hello(
            boot_id=text(said.get("boot_id"), limit=64),
            agent_version=text(said.get("agent_version"), limit=64),
            kernel=text(said.get("kernel"), limit=256),
            os=text(said.get("os"), limit=256),
        )

    async def configure(self, vm: Vm) -> tuple[str, ...]:
        """Set hostname, addresses, routes and DNS. Returns the steps that failed, for people."""
        request: dict[str, object] = {"op": "configure", "hostname": vm.name}
        if vm.spec.HasField("network"):
            network = vm.spec.network
            request["network"] = {
                "mac": network.mac,
                "ipv4": network.ipv4,
                "gateway": network.gateway,
                "dns": list(network.dns),
                "ipv6": network.ipv6,
                "ipv6_gateway": network.ipv6_gateway,
                "search": list(network.search),
                "mtu": network.mtu,
            }
        said = await self._ask(request, _CONFIGURE_TIMEOUT)
        return texts(said.get("warnings"), count=32, limit=400)

    async def ping(self, *, timeout: float) -> None:
        """Return once the agent has answered."""
        await self._ask({"op": "ping"}, timeout)

    async def shut_down(self, *, timeout: float) -> None:
        """Return once the agent has answered; it ends the guest then, and this connection."""
        await self._ask({"op": "shutdown"}, timeout)

    async def _ask(self, request: Mapping[str, object], timeout: float) -> Mapping[str, object]:
        await self._connection.request(request, timeout=timeout)
        frame = await self._connection.receive(timeout=timeout)
        match frame.kind:
            case Kind.REPLY:
                return frame.message
            case Kind.ERROR:
                raise error_of(frame.message)
            case _:
                raise DataLoss(
                    "GUEST_PROTOCOL", f"the guest answered with {frame.kind.name}, expected REPLY"
                )
