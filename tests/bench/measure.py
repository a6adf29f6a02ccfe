"""Measures Nexus against the raw thing, in one run. Runs in the dev host, as root.

    /usr/lib/nexus/gateway/bin/python measure.py [--rounds N]

prints one JSON object: figures in milliseconds (medians) and KiB. `run.py` makes the report.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc

from nexus.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from nexus.netd.v1 import netd_pb2, netd_pb2_grpc
from nexus.vmm.v1 import vmm_pb2, vmm_pb2_grpc
from nexus_guest import wire
from nexus_rpc.channel import connect
from nexus_rpc.ids import new_vm_id

GUEST = Path("/usr/lib/nexus/guest")
FIRECRACKER = "/usr/lib/nexus/bin/firecracker"
BOOT_SECONDS = 120
OVERLAY_BYTES = 2048 << 20


def milliseconds(began):
    return (time.perf_counter() - began) * 1000


class Nexus:
    """The three services, as any client would call them on this host."""

    def __init__(self, stack):
        def channel(name):
            return stack.enter_async_context(connect(f"unix:/run/nexus/{name}/{name}.sock"))

        self._channels = [channel(name) for name in ("vmm", "netd", "gateway")]

    async def open(self):
        vmm, netd, gateway = [await channel for channel in self._channels]
        self.vmm = vmm_pb2_grpc.VmServiceStub(vmm)
        self.netd = netd_pb2_grpc.NetworkServiceStub(netd)
        self.guest = gateway_pb2_grpc.GuestServiceStub(gateway)
        return self

    async def create(self, name):
        """Make a VM with a port; return its id."""
        vm_id = new_vm_id()
        port = (await self.netd.AttachPort(netd_pb2.AttachPortRequest(vm_id=vm_id))).port
        nic = vmm_pb2.NetworkInterface(
            tap=port.tap, mac=port.mac, ipv4=port.ipv4, gateway=port.gateway, dns=port.dns
        )
        spec = vmm_pb2.VmSpec(network=nic)
        await self.vmm.CreateVm(vmm_pb2.CreateVmRequest(vm_id=vm_id, name=name, spec=spec))
        return vm_id

    async def boot(self, vm_id):
        await self.vmm.StartVm(vmm_pb2.StartVmRequest(vm=vm_id), timeout=BOOT_SECONDS)
        await self.guest.GetGuest(
            gateway_pb2.GetGuestRequest(vm=vm_id, wait_ready=True), timeout=BOOT_SECONDS
        )

    async def exec(self, vm_id):
        async for answer in self.guest.Exec(gateway_pb2.ExecRequest(vm=vm_id, argv=["true"])):
            last = answer
        assert last.exit.code == 0

    async def delete(self, vm_id):
        await self.vmm.StopVm(vmm_pb2.StopVmRequest(vm=vm_id, grace_seconds=0))
        await self.vmm.DeleteVm(vmm_pb2.DeleteVmRequest(vm=vm_id))
        await self.netd.DetachPort(netd_pb2.DetachPortRequest(vm_id=vm_id))


def dial(path, port, deadline):
    """Open a vsock connection through Firecracker's socket, trying until `deadline`."""
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        try:
            client.connect(str(path))
            client.sendall(b"CONNECT %d\n" % port)
            line = b""
            while not line.endswith(b"\n"):
                byte = client.recv(1)
                if not byte:
                    raise ConnectionError
                line += byte
        except OSError:
            client.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return client


def bare_exec(path, deadline):
    """Run `true` in the guest over a connection of its own; return when its exit came."""
    with dial(path, wire.STREAM_PORT, deadline) as client:
        request = {"op": "exec", "argv": ["true"], "env": {}, "cwd": ""}
        client.sendall(wire.encode_message(wire.Kind.REQUEST, request) + wire.encode(wire.Kind.END))
        decoder = wire.Decoder()
        while True:
            data = client.recv(65536)
            if not data:
                raise ConnectionError("the guest closed")
            for frame in decoder.feed(data):
                if frame.kind is wire.Kind.EXIT:
                    return


class BareFirecracker:
    """Firecracker by hand: same kernel, drives, agent and a TAP; nothing around it."""

    def __init__(self, directory):
        self._directory = directory
        self.vsock = directory / "v.sock"
        self._process = None

    def _api(self, method, path, body):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self._directory / "api.sock"))
            data = json.dumps(body).encode()
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
            client.sendall(head.encode() + data)
            answer = client.recv(65536)
        assert b" 204 " in answer.split(b"\r\n", 1)[0], answer

    def _wait_for_api(self):
        deadline = time.monotonic() + 30
        while True:
            with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
                client.connect(str(self._directory / "api.sock"))
                return
            assert time.monotonic() < deadline, "Firecracker does not listen"
            time.sleep(0.002)

    def boot(self):
        subprocess.run(["ip", "tuntap", "add", "nxbare", "mode", "tap"], check=True)
        subprocess.run(["ip", "link", "set", "nxbare", "master", "nexbr0", "up"], check=True)
        with (self._directory / "overlay.img").open("wb") as overlay:
            overlay.truncate(OVERLAY_BYTES)
        self._process = subprocess.Popen(
            [FIRECRACKER, "--api-sock", "api.sock", "--id", "bare"],
            cwd=self._directory,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait_for_api()
        kernel = GUEST / "kernels/default"
        self._api("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 128})
        # As vmm has it: the tuning that came with the kernel goes behind the plain words.
        tuning = (kernel / "cmdline").read_text().strip()
        boot_args = f"console=ttyS0 reboot=k panic=1 pci=off {tuning}"
        images = {
            "kernel_image_path": str(kernel / "vmlinux"),
            "initrd_path": str(kernel / "initrd"),
        }
        self._api("PUT", "/boot-source", images | {"boot_args": boot_args})
        drives = {
            "image": (GUEST / "images/debian.img", True),
            "overlay": (self._directory / "overlay.img", False),
            "runtime": (GUEST / "runtime.img", True),
        }
        for name, (path, read_only) in drives.items():
            drive = {"drive_id": name, "path_on_host": str(path), "is_read_only": read_only}
            self._api("PUT", f"/drives/{name}", drive | {"is_root_device": False})
        nic = {"iface_id": "eth0", "guest_mac": "02:fc:00:00:00:fe", "host_dev_name": "nxbare"}
        self._api("PUT", "/network-interfaces/eth0", nic)
        self._api("PUT", "/vsock", {"guest_cid": 3, "uds_path": "v.sock"})
        self._api("PUT", "/entropy", {})
        self._api("PUT", "/actions", {"action_type": "InstanceStart"})

    def stop(self):
        if self._process:
            self._process.kill()
            self._process.wait()
        subprocess.run(["ip", "link", "del", "nxbare"], check=False, stderr=subprocess.DEVNULL)


async def create_to_first_exec(nexus, rounds):
    """Alternate both, so that whatever else the machine does hits both alike."""
    ours, bare = [], []
    for number in range(rounds):
        began = time.perf_counter()
        vm_id = await nexus.create(f"bench-{number}")
        await nexus.boot(vm_id)
        await nexus.exec(vm_id)
        ours.append(milliseconds(began))
        await nexus.delete(vm_id)

        with tempfile.TemporaryDirectory() as directory:
            firecracker = BareFirecracker(Path(directory))
            try:
                began = time.perf_counter()
                firecracker.boot()
                bare_exec(firecracker.vsock, time.monotonic() + BOOT_SECONDS)
                bare.append(milliseconds(began))
            finally:
                firecracker.stop()
    return ours, bare


async def exec_round_trip(nexus, rounds):
    vm_id = await nexus.create("bench-exec")
    await nexus.boot(vm_id)
    path = (await nexus.vmm.GetVm(vmm_pb2.GetVmRequest(vm=vm_id))).vm.vsock_path
    ours, bare = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        await nexus.exec(vm_id)
        ours.append(milliseconds(began))
        began = time.perf_counter()
        bare_exec(path, time.monotonic() + 10)
        bare.append(milliseconds(began))
    await nexus.delete(vm_id)
    return ours, bare


CNI = {
    "cniVersion": "1.0.0",
    "name": "bench",
    "type": "bridge",
    "bridge": "nxcni0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.254.0.0/16"}]],
        "dataDir": "/run/nxcni",
    },
}


def cni(command, number):
    environment = os.environ | {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": f"bench{number}",
        "CNI_NETNS": f"/run/netns/nxcni{number}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/usr/lib/cni",
    }
    subprocess.run(
        ["/usr/lib/cni/bridge"],
        input=json.dumps(CNI).encode(),
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )


async def attach_port(nexus, rounds):
    ours, theirs = [], []
    for number in range(rounds):
        vm_id = new_vm_id()
        began = time.perf_counter()
        await nexus.netd.AttachPort(netd_pb2.AttachPortRequest(vm_id=vm_id))
        ours.append(milliseconds(began))
        await nexus.netd.DetachPort(netd_pb2.DetachPortRequest(vm_id=vm_id))

        # The namespace is the runtime's part, so it is made before the clock starts.
        subprocess.run(["ip", "netns", "add", f"nxcni{number}"], check=True)
        try:
            began = time.perf_counter()
            cni("ADD", number)
            theirs.append(milliseconds(began))
            cni("DEL", number)
        finally:
            subprocess.run(["ip", "netns", "del", f"nxcni{number}"], check=True)
    subprocess.run(["ip", "link", "del", "nxcni0"], check=True)
    return ours, theirs


async def serve_echo(path):
    """An empty gRPC echo with nothing around it: the floor of any call."""

    async def echo(request, _context):
        return request

    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("e.E", {"E": method})])
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


async def get_vm(nexus, rounds):
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/echo.sock"
        server = subprocess.Popen(
            [sys.executable, __file__, "--echo", path], stdout=subprocess.PIPE
        )
        try:
            server.stdout.readline()
            vm_id = await nexus.create("bench-get")
            request = vmm_pb2.GetVmRequest(vm=vm_id)
            ours, floor = [], []
            async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
                echo = channel.unary_unary("/e.E/E")
                for number in range(rounds + 20):
                    began = time.perf_counter()
                    await nexus.vmm.GetVm(request)
                    middle = time.perf_counter()
                    await echo(b"")
                    if number >= 20:  # the first ones warm both up
                        ours.append((middle - began) * 1000)
                        floor.append(milliseconds(middle))
            await nexus.vmm.DeleteVm(vmm_pb2.DeleteVmRequest(vm=vm_id))
            await nexus.netd.DetachPort(netd_pb2.DetachPortRequest(vm_id=vm_id))
        finally:
            server.kill()
            server.wait()
    return ours, floor


def resident_kib(unit):
    pid = subprocess.run(
        ["systemctl", "show", "-P", "MainPID", unit], check=True, capture_output=True, text=True
    ).stdout.strip()
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise LookupError(f"{unit} is not running")


async def measure(rounds):
    def pair(samples):
        ours, raw = (statistics.median(each) for each in samples)
        return {"nexus": ours, "raw": raw, "ratio": ours / raw, "rounds": len(samples[0])}

    async with contextlib.AsyncExitStack() as stack:
        nexus = await Nexus(stack).open()
        units = ("nexus-vmm", "nexus-netd", "nexus-gateway")
        return {
            "rss_kib": {unit: resident_kib(unit) for unit in units},
            "get_vm": pair(await get_vm(nexus, 300)),
            "attach_port": pair(await attach_port(nexus, 20)),
            "exec_round_trip": pair(await exec_round_trip(nexus, 30)),
            "create_to_first_exec": pair(await create_to_first_exec(nexus, rounds)),
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--echo")
    options = parser.parse_args()
    if options.echo:
        asyncio.run(serve_echo(options.echo))
    else:
        print(json.dumps(asyncio.run(measure(options.rounds))))
