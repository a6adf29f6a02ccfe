"""Ways in: links between VMs, and ports of the host that are forwarded. Calls hold the turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_rpc.errors import AlreadyExists, FailedPrecondition, invalid_field

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nexus_netd.kernel import Listener
    from nexus_netd.model import Address, Link, Publication
    from nexus_netd.operations.repair import Repair
    from nexus_netd.operations.state import State


class Ways:
    """Links and publications."""

    def __init__(self, state: State, repair: Repair) -> None:
        self._state = state
        self._repair = repair
        self._store = state.store
        self._view = state.view

    async def link(self, link: Link) -> None:
        """Make a link; one that is there is left as it is. Raises NotFound, KernelError."""
        source = self._state.port(link.from_vm_id)
        self._state.port(link.to_vm_id)
        if link in self._view.links_from(link.from_vm_id):
            return
        await self._repair.stand(source.network)
        put, remove = self._store.links.put(link), self._store.links.remove(link)
        await self._state.change(
            lambda: self._state.wants.of_links(link.from_vm_id), [put], [remove]
        )
        self._tell_of(link, f"link from {link.from_vm_id} to {link.to_vm_id} made")

    async def unlink(self, link: Link) -> bool:
        """Take a link away, and cut its flows. Returns whether there was one."""
        if link not in self._view.links_from(link.from_vm_id):
            return False
        put, remove = self._store.links.put(link), self._store.links.remove(link)
        await self._state.change_settled(
            lambda: self._state.wants.of_links(link.from_vm_id), [remove], [put], [link.from_vm_id]
        )
        self._tell_of(link, f"link from {link.from_vm_id} to {link.to_vm_id} removed")
        return True

    async def publish(self, publication: Publication) -> None:
        """Forward a port of the host; one that is forwarded so is left as it is.

        Raises NotFound, AlreadyExists (HOST_PORT_PUBLISHED), FailedPrecondition (HOST_PORT_IN_USE),
        InvalidArgument, KernelError.
        """
        port = self._state.port(publication.vm_id)
        if publication in self._view.publications_of(publication.vm_id):
            return
        await self._check_host(publication)
        await self._repair.stand(port.network)
        store = self._store.publications
        await self._state.change(
            lambda: self._state.wants.of_publications(publication.vm_id),
            [store.put(publication)],
            [store.remove(publication)],
        )
        self._state.feed.tell(
            "changed", port.vm_id, port.network, f"{_place(publication)} is forwarded to it"
        )

    async def unpublish(self, protocol: int, host_ip: Address, host_port: int) -> bool:
        """End a forwarding, and cut its flows. Returns whether there was one."""
        publication = self._view.published(protocol, host_port).get(host_ip)
        if publication is None:
            return False
        port, store = self._view.ports[publication.vm_id], self._store.publications
        await self._state.change_settled(
            lambda: self._state.wants.of_publications(port.vm_id),
            [store.remove(publication)],
            [store.put(publication)],
            [port.vm_id],
        )
        self._state.feed.tell(
            "changed", port.vm_id, port.network, f"{_place(publication)} is no longer forwarded"
        )
        return True

    async def _check_host(self, publication: Publication) -> None:
        address, kernel = publication.host_ip, self._state.kernel
        guest = self._view.guests[publication.vm_id]
        if address.version not in {one.version for one in guest.addresses}:
            raise invalid_field(
                "publication.host_ip",
                str(address),
                f"the VM has no IPv{address.version} address to forward to",
            )
        if address.version == 6 and address.is_loopback:
            # Linux has no route_localnet for IPv6: an answer would find no way back.
            raise invalid_field(
                "publication.host_ip",
                str(address),
                "127.0.0.1, or an IPv6 address of the host: nothing is forwarded from ::1",
            )
        own = address.is_loopback or address.is_unspecified or await kernel.local(address)
        if not own:
            raise invalid_field(
                "publication.host_ip", str(address), "an address of the host, or 0.0.0.0 for all"
            )
        for other in self._view.published(publication.protocol, publication.host_port).values():
            if _meet(address, other.host_ip):
                raise AlreadyExists(
                    "HOST_PORT_PUBLISHED",
                    f"{_place(publication)} is forwarded to VM {other.vm_id}, port "
                    f"{other.guest_port}, by {_place(other)}; unpublish that first, or use another",
                    vm_id=other.vm_id,
                    host_ip=str(other.host_ip),
                    host_port=str(other.host_port),
                )
        if _is_heard(publication, await kernel.listeners()):
            raise FailedPrecondition(
                "HOST_PORT_IN_USE",
                f"a process of the host listens on {_place(publication)}; stop it, or use "
                "another port or address",
                host_ip=str(address),
                host_port=str(publication.host_port),
            )

    def _tell_of(self, link: Link, details: str) -> None:
        for vm_id in (link.from_vm_id, link.to_vm_id):
            network = self._view.ports[vm_id].network
            self._state.feed.tell("changed", vm_id, network, details)


def _meet(one: Address, other: Address) -> bool:
    """Whether two addresses of the host share packets."""
    return one.version == other.version and (
        one == other or one.is_unspecified or other.is_unspecified
    )


def _is_heard(publication: Publication, listeners: Iterable[Listener]) -> bool:
    for one in listeners:
        if (one.protocol, one.port) != (publication.protocol, publication.host_port):
            continue
        # A socket on "::" takes IPv4 too, unless it was told not to (ipv6(7), IPV6_V6ONLY).
        if _meet(one.address, publication.host_ip) or (
            one.address.version == 6 and one.address.is_unspecified
        ):
            return True
    return False


def _place(publication: Publication) -> str:
    address = publication.host_ip
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"{publication.protocol.name.lower()} {shown}:{publication.host_port}"
