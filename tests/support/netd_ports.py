"""Ports of a real netd over gRPC, and whether its links are as it says."""

import asyncio
import time
from contextlib import asynccontextmanager

from nexus.netd.v1 import netd_pb2 as pb
from nexus_netd.linux.port import Linux
from nexus_rpc.ids import new_vm_id


async def attach(netd, vm=None, **fields):
    request = pb.AttachPortRequest(vm_id=vm or new_vm_id(), **fields)
    return (await netd.stub.AttachPort(request)).port


async def list_ports(netd):
    return list((await netd.stub.ListPorts(pb.ListPortsRequest(page_size=1000))).ports)


@asynccontextmanager
async def looking():
    """Give another look at the kernel than netd's own."""
    kernel = await Linux.open()
    try:
        yield kernel
    finally:
        await kernel.close()


async def check_agreement(netd):
    """Compare store and kernel as far as links go; tests/support/agreement.py looks at all."""
    ports = await list_ports(netd)
    async with looking() as kernel:
        present = {tap.name: tap for tap in await kernel.taps()}
    assert {port.tap: port.vm_id for port in ports} == {
        name: tap.vm_id for name, tap in present.items()
    }
    for port in ports:
        tap = present[port.tap]
        assert (tap.bridge, tap.up, tap.isolated, tap.locked) == (port.bridge, True, True, True)
        assert {str(address) for address in tap.addresses} == {port.ipv4.split("/")[0]}
        assert tap.mac == port.mac
    assert len({port.ipv4 for port in ports}) == len(ports)


async def until_it_agrees(netd, seconds):
    """Wait until a repair is done."""
    began = time.monotonic()
    while True:
        try:
            await check_agreement(netd)
        except AssertionError:
            if time.monotonic() - began > seconds:
                raise
            await asyncio.sleep(0.02)
        else:
            return time.monotonic() - began
