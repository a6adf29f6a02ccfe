"""Names of VMs, for people: netd knows them as far as vmm has told it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl import paged, protocols, publications

if TYPE_CHECKING:
    from typing import Self

    from nexus.netd.v1 import netd_pb2
    from nexusctl.services import Services


class Names:
    """The names of VMs that have a port. Use `Names.load`."""

    def __init__(self, by_id: dict[str, str]) -> None:
        self._by_id = by_id

    @classmethod
    async def load(cls, services: Services) -> Self:
        """Read them from netd. Raises NexusError."""
        return cls({port.vm_id: port.vm_name for port in await paged.ports(services)})

    def of(self, vm_id: str) -> str:
        """Return the VM's name, or its id where there is none."""
        return self._by_id.get(vm_id) or vm_id

    def link(self, link: netd_pb2.Link) -> str:
        """Return a link in words."""
        return f"{self.of(link.from_vm_id)} -> {self.of(link.to_vm_id)} {ports(link)}"

    def publication(self, publication: netd_pb2.Publication) -> str:
        """Return a forwarding in words."""
        to = f"{self.of(publication.vm_id)}:{publication.guest_port}"
        return f"{publications.text(publication)} -> {to}"


def ports(link: netd_pb2.Link) -> str:
    """Return what a link lets pass, "80,443/tcp"."""
    protocol = protocols.word(link.protocol)
    return f"{','.join(map(str, link.ports))}/{protocol}" if link.ports else protocol
