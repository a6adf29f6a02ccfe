"""The tags of a VM: setting and taking away some of them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from nexus_rpc.errors import FailedPrecondition
from nexusctl import vms
from nexusctl.failure import USAGE, Failure
from nexusctl.services import WRITE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nexus.vmm.v1 import vmm_pb2
    from nexusctl.services import Services

_TRIES = 5


def once(tags: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return tags by their keys. Raises Failure where a key is given twice."""
    found: dict[str, str] = {}
    for key, value in tags:
        if key in found:
            raise Failure(f"the tag {key} is given twice", "give it once", USAGE)
        found[key] = value
    return found


async def retag(
    services: Services,
    request: vmm_pb2.UpdateVmRequest,
    added: dict[str, str],
    removed: Iterable[str],
) -> vmm_pb2.Vm:
    """Send `request`, whose mask names the tags, with the VM's own tags changed as asked for.

    vmm changes all tags at once, so they are read before, and read again where the VM changed
    meanwhile; unless the request has the etag of what it is about. Raises NexusError.
    """
    vmm = services.vmm
    given = request.etag
    for left in reversed(range(_TRIES)):
        vm = await vms.get(services, request.vm)
        request.vm = vm.id  # a name may come to mean another one
        request.etag = given or vm.etag
        request.request_id = str(uuid4())  # the tags may be others than in the last try
        kept = {key: value for key, value in vm.spec.tags.items() if key not in removed}
        request.spec.tags.clear()
        request.spec.tags.update(kept | added)
        try:
            return (await vmm.ask(vmm.stub.UpdateVm, request, WRITE)).vm
        except FailedPrecondition as error:
            if error.reason != "ETAG_MISMATCH" or given or not left:
                raise
    raise AssertionError  # the last try returned or raised
