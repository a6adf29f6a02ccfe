"""A VM's end of its port: made from the port, and kept in step with it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.vmm.v1 import vmm_pb2
from nexusctl.services import WRITE

if TYPE_CHECKING:
    from nexus.netd.v1 import netd_pb2
    from nexusctl.services import Services


def of_port(port: netd_pb2.Port) -> vmm_pb2.NetworkInterface:
    """Return the interface that a VM on `port` has."""
    return vmm_pb2.NetworkInterface(
        tap=port.tap,
        mac=port.mac,
        ipv4=port.ipv4,
        gateway=port.gateway,
        dns=port.dns,
        ipv6=port.ipv6,
        ipv6_gateway=port.ipv6_gateway,
        search=port.search,
        mtu=port.mtu,
    )


async def renew(services: Services, vm: vmm_pb2.Vm, port: netd_pb2.Port) -> bool:
    """Give the VM the interface that its port makes, and say whether it had another.

    Raises NexusError: FailedPrecondition (VM_STATE) where TAP or MAC differ and it is live.
    """
    wanted = of_port(port)
    if vm.spec.network == wanted:
        return False
    vmm = services.vmm
    request = vmm_pb2.UpdateNetworkInterfaceRequest(
        request_id=str(uuid4()), vm=vm.id, network=wanted
    )
    await vmm.ask(vmm.stub.UpdateNetworkInterface, request, WRITE)
    return True
