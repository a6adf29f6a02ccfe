"""Clients that attach and detach at random, all at one time, and say what they were given when.

    swarm.py SOCKET CLIENTS SECONDS SEED

prints one JSON object: `errors`, and `held`, the times from a port's answer to the call that ended
it: (VM, address, MAC, TAP, from, to), in seconds of the clock that all processes share.
"""

import asyncio
import json
import sys
import time
from random import Random

import grpc

from nexus.netd.v1 import netd_pb2 as pb
from nexus.netd.v1 import netd_pb2_grpc
from nexus_rpc.channel import OPTIONS
from nexus_rpc.ids import new_vm_id

_SECONDS = 30
_LONGEST_HOLD = 0.5
# Each client has a connection of its own, as separate programs do.
_OPTIONS = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]


async def client(target, end, random, held, errors):
    """Be one client until `end`; it leaves nothing behind."""
    async with grpc.aio.insecure_channel(target, _OPTIONS) as channel:
        stub = netd_pb2_grpc.NetworkServiceStub(channel)
        while time.monotonic() < end:
            vm_id = new_vm_id()
            try:
                held.append(await hold(stub, vm_id, random))
            except grpc.aio.AioRpcError as error:
                errors.append(f"{vm_id}: {error.code().name} {error.details()}")


async def hold(stub, vm_id, random):
    """Attach, hold for a while, detach."""
    request = pb.AttachPortRequest(vm_id=vm_id)
    port = (await stub.AttachPort(request, timeout=_SECONDS)).port
    since = time.monotonic()
    if random.random() < 0.2:  # a repeat gives the same
        again = (await stub.AttachPort(request, timeout=_SECONDS)).port
        assert again == port, f"{port} and then {again}"
    await asyncio.sleep(random.uniform(0, _LONGEST_HOLD))
    until = time.monotonic()
    await stub.DetachPort(pb.DetachPortRequest(vm_id=vm_id), timeout=_SECONDS)
    return vm_id, port.ipv4, port.mac, port.tap, since, until


async def main(target, clients, seconds, seed):
    held, errors = [], []
    end = time.monotonic() + seconds
    async with asyncio.TaskGroup() as tasks:
        for number in range(clients):
            random = Random(f"{seed} {number}")
            tasks.create_task(client(target, end, random, held, errors))
    print(json.dumps({"held": held, "errors": errors}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
