"""nexusctl vm list."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nexus.vmm.v1 import vmm_pb2
from nexusctl import failure, table, terminal, views
from nexusctl.columns import COLUMNS
from nexusctl.progress import progress
from nexusctl.tags import once
from nexusctl.vms import every

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from nexusctl.services import Services

ORDERS = {
    "created": vmm_pb2.VM_ORDER_CREATE_TIME,
    "name": vmm_pb2.VM_ORDER_NAME,
    "changed": vmm_pb2.VM_ORDER_STATE_TIME,
    "memory": vmm_pb2.VM_ORDER_MEMORY,
}
"""By the words that `arguments.listing` takes."""


async def run(options: Namespace, services: Services) -> int:
    """Print the VMs that the options let through, in the order asked for."""
    request = _request(options)
    async with progress("listing"):
        vms = [vm async for vm in every(services, request)]
    if options.json:
        print(json.dumps({"vms": [views.vm(vm) for vm in vms]}, indent=2))
    elif options.quiet:
        print("".join(f"{vm.id}\n" for vm in vms), end="")
    else:
        _show(vms, options.columns)
    return failure.OK


def _request(options: Namespace) -> vmm_pb2.ListVmsRequest:
    request = vmm_pb2.ListVmsRequest(
        filter=vmm_pb2.VmFilter(
            states=[vmm_pb2.VmState.Value(f"VM_STATE_{word.upper()}") for word in options.states],
            tags=once(options.tags),
            name_prefix=options.name,
            image=options.image,
        ),
        order_by=ORDERS[options.order],
        descending=options.reverse,
    )
    if options.quiet:
        request.field_mask.paths.append("id")
    elif not options.json:
        fields = (field for name in options.columns for field in COLUMNS[name].fields)
        request.field_mask.paths.extend(dict.fromkeys(fields))
    return request


def _show(vms: Sequence[vmm_pb2.Vm], columns: Sequence[str]) -> None:
    now = datetime.now(UTC)
    text = table.render(
        [name.upper() for name in columns],
        [[COLUMNS[name].text(vm, now) for name in columns] for vm in vms],
        columns=terminal.width(sys.stdout),
        styles=views.STYLES if terminal.coloured(sys.stdout) else None,
    )
    print(text, end="")
