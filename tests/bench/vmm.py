"""`make bench-vmm`: measures vmm with many VMs and watchers, as a process on this machine.

    vmm.py [--vms N] [--live N] [--watchers N] [--events N] [--idle SECONDS] [--out FOLDER]

Systemd and Firecracker are stand-ins, all else is real. Prints a report; figures go to FOLDER.
"""

import argparse
import asyncio
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
import grpc
import vmm_guest
import vmm_units
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2, health_pb2_grpc
from report import Bar
from vmm_process import hosting

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus.vmm.v1 import vmm_pb2_grpc
from nexus_rpc.ids import new_vm_id
from nexus_vmm.api.convert import to_proto
from nexus_vmm.records import rows
from nexus_vmm.states import Event
from nexus_vmm.vm import Boot, Goal, Network

PAGE = 100
ROUNDS = 300
CALLERS = 8
"""Clients that change VMs at the same time."""
CHANNELS = 10
"""Connections that the watchers share."""
SECONDS = 900
TAGS = FieldMask(paths=["tags"])


async def stock(service, vms, live):
    """Put VMs into the store, the first `live` of them running."""
    database = sqlite3.connect(service.directory / "state/vmm.db", isolation_level=None)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA journal_mode = WAL")
    for script in rows.MIGRATIONS:
        database.executescript(script)
    database.execute(f"PRAGMA user_version = {len(rows.MIGRATIONS)}")
    database.execute("BEGIN")
    for number in range(vms):
        address = f"172.16.{number // 250}.{number % 250 + 2}/12"
        mac = f"02:fc:00:00:{number // 256:02x}:{number % 256:02x}"
        spec = vmm_guest.spec(
            memory_mib=128 * (1 + number % 4),
            network=Network(f"nx{number}", mac, address, "172.16.0.1", ("8.8.8.8", "1.1.1.1")),
            tags=(("env", "prod"), ("team", f"team-{number % 50}")),
        )
        vm = rows.insert(database, new_vm_id(), f"vm-{number}", spec, time.time_ns() // 1000)
        if number < live:
            await service.model.start(vm.id)
            unit = service.model.units[vm.id]
            vm = rows.move(database, vm, Event.START, "Firecracker runs", vm.created)
            vm = rows.set_boot(database, vm, Boot(unit.invocation, unit.pid, "1.15.0"))
            rows.set_goal(database, vm, Goal.RUN)
    database.execute("COMMIT")
    database.close()


def cpu_seconds(pid):
    """Return the seconds that all threads of a process ran (schedstat, in the kernel's docs)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def resident_mib(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


async def timed(call):
    began = time.perf_counter()
    await call()
    return (time.perf_counter() - began) * 1_000


async def lists(service, channel):
    """Time pages of a list and an empty answer in turns; return milliseconds by name."""
    stub, health = vmm_pb2_grpc.VmServiceStub(channel), health_pb2_grpc.HealthStub(channel)
    first = await stub.ListVms(pb.ListVmsRequest(page_size=PAGE))
    second = pb.ListVmsRequest(page_size=PAGE, page_token=first.next_page_token)
    named = FieldMask(paths=["id", "name", "state"])
    calls = {
        "empty echo": lambda: health.Check(health_pb2.HealthCheckRequest()),
        "page of 100": lambda: stub.ListVms(pb.ListVmsRequest(page_size=PAGE)),
        "the next page": lambda: stub.ListVms(second),
        "by memory": lambda: stub.ListVms(
            pb.ListVmsRequest(page_size=PAGE, order_by=pb.VM_ORDER_MEMORY)
        ),
        "of a team (20)": lambda: stub.ListVms(
            pb.ListVmsRequest(page_size=PAGE, filter=pb.VmFilter(tags={"team": "team-7"}))
        ),
        "masked": lambda: stub.ListVms(pb.ListVmsRequest(page_size=PAGE, field_mask=named)),
        "encoding alone": encoded(service),
    }
    taken = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name in random.sample(list(calls), len(calls)):
            taken[name].append(await timed(calls[name]))
    return {name: statistics.median(values) for name, values in taken.items()}


def encoded(service):
    """Return what makes, writes and reads the answer of a page, and does nothing else."""
    database = sqlite3.connect(service.directory / "state/vmm.db")
    database.row_factory = sqlite3.Row
    vms = rows.every(database)[:PAGE]
    database.close()

    async def encode():
        answer = pb.ListVmsResponse(vms=[to_proto(vm, service.places) for vm in vms])
        pb.ListVmsResponse.FromString(answer.SerializeToString())

    return encode


async def watch(stub, count, ready):
    """Return the revisions of the next `count` changes that a watcher is told."""
    revisions = []
    call = stub.WatchVms(pb.WatchVmsRequest())
    async for event in call:
        if event.synced:
            ready()
        elif event.revision:
            revisions.append(event.revision)
            if len(revisions) == count:
                break
    call.cancel()
    return revisions


async def stuck(stub):
    """Begin a watch and read nothing but its first event."""
    call = stub.WatchVms(pb.WatchVmsRequest())
    await call.read()
    return call


async def change(stub, names, events):
    """Change VMs until there were so many events."""
    left = iter(range(events))

    async def caller():
        for number in left:
            spec = pb.VmSpec(tags={"number": str(number)})
            await stub.UpdateVm(
                pb.UpdateVmRequest(vm=random.choice(names), spec=spec, update_mask=TAGS)
            )

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


async def watches(service, stack, watchers, events):
    """Let watchers see events; return the seconds, how many were lost, and vmm's memory."""
    stubs = []
    for _ in range(CHANNELS):
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(f"unix:{service.directory}/server/vmm.sock", options)
        )
        stubs.append(vmm_pb2_grpc.VmServiceStub(channel))
    answer = await stubs[0].ListVms(pb.ListVmsRequest(page_size=1_000))
    names = [vm.name for vm in answer.vms]
    waiting, everyone = watchers, asyncio.Event()

    def ready():
        nonlocal waiting
        waiting -= 1
        if not waiting:
            everyone.set()

    held = await stuck(stubs[0])
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        watching = [
            tasks.create_task(watch(stubs[number % CHANNELS], events, ready))
            for number in range(watchers)
        ]
        await everyone.wait()
        began = time.perf_counter()
        await change(stubs[-1], names, events)
        changed = time.perf_counter() - began
    taken = time.perf_counter() - began
    memory = resident_mib(service.process.pid)
    held.cancel()
    told = [watching[0].result()] + [one.result() for one in watching[1:]]
    lost = sum(len(set(told[0]) - set(one)) for one in told) + (len(set(told[0])) != events)
    return {"change": changed, "told": taken, "lost": lost, "memory": memory}


async def measure(options, directory):
    """Measure everything."""
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(hosting(directory, lambda _: vmm_units.idle))
        await stock(service, options.vms, options.live)
        began = time.perf_counter()
        await service.start()
        await service.call("GetInfo")
        figures = {"start_seconds": time.perf_counter() - began}
        pid = service.process.pid
        figures["memory_fresh"] = resident_mib(pid)
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(f"unix:{directory}/server/vmm.sock")
        )
        figures["lists"] = await lists(service, channel)
        figures["watch"] = await watches(service, stack, options.watchers, options.events)
        await asyncio.sleep(5)  # what the calls left to do is not idling
        before = cpu_seconds(pid)
        await asyncio.sleep(options.idle)
        figures["idle_percent"] = (cpu_seconds(pid) - before) / options.idle * 100
        figures["memory"] = resident_mib(pid)
        return figures


def report(figures, options):
    """Print the figures; return 1 if something does not hold, otherwise 0."""
    print(f"{options.vms} VMs, {options.live} of them live; ready {figures['start_seconds']:.2f} s")
    print("\nListVms, p50, ms")
    for name, taken in figures["lists"].items():
        print(f"  {name:16} {taken:8.2f}")
    watched = figures["watch"]
    print(
        f"\n{options.events} events to {options.watchers} watchers and one that does not read: "
        f"made in {watched['change']:.0f} s, told in {watched['told']:.0f} s"
    )
    print(
        f"Memory: {figures['memory_fresh']:.1f} MiB fresh, {figures['memory']:.1f} MiB at the end"
    )
    names = ("page of 100", "empty echo", "encoding alone")
    page, echo, encoding = (figures["lists"][name] for name in names)
    bars = [
        Bar("page of 100 / (3 empty echoes + encoding)", page / (3 * echo + encoding), 1),
        Bar("events lost", watched["lost"], 0),
        Bar(f"idle with {options.live} live VMs, % of a core", figures["idle_percent"], 0.5),
        Bar("resident memory with all watchers, MiB", watched["memory"], 70),
    ]
    print("\nWhat must hold:")
    for bar in bars:
        print(bar)
    return int(not all(bar.holds for bar in bars))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--vms", type=int, default=1_000)
    parser.add_argument("--live", type=int, default=200)
    parser.add_argument("--watchers", type=int, default=100)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path(".cache/bench"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nexus-") as directory:
        figures = asyncio.run(measure(options, Path(directory)))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "vmm.json").write_text(json.dumps(figures) + "\n")
    return report(figures, options)


if __name__ == "__main__":
    sys.exit(main())
