"""The port that a VM is to have, as options ask for it, and getting it from netd."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.netd.v1 import netd_pb2
from nexusctl import policies
from nexusctl.services import WRITE

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


def wish(options: Namespace) -> netd_pb2.AttachPortRequest:
    """Return the port that the options ask for, of no VM yet. Raises Failure (USAGE)."""
    return netd_pb2.AttachPortRequest(
        network=options.net,
        ipv4=options.ip,
        policy=policies.of_options(options.policy, options.rules),
        upstream_dns=options.dns,
        search=options.search,
    )


async def attach(services: Services, vm_id: str, wish: netd_pb2.AttachPortRequest) -> netd_pb2.Port:
    """Return the VM's port, made or repaired. Raises NexusError."""
    request = netd_pb2.AttachPortRequest(vm_id=vm_id, request_id=str(uuid4()))
    request.MergeFrom(wish)
    netd = services.netd
    return (await netd.ask(netd.stub.AttachPort, request, WRITE)).port


async def publish(
    services: Services, vm_id: str, publication: netd_pb2.Publication
) -> netd_pb2.Publication:
    """Forward a port of the host to the VM, and return what is forwarded. Raises NexusError."""
    request = netd_pb2.PublishPortRequest(request_id=str(uuid4()))
    request.publication.CopyFrom(publication)
    request.publication.vm_id = vm_id
    netd = services.netd
    return (await netd.ask(netd.stub.PublishPort, request, WRITE)).publication
