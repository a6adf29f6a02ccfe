"""A real netd over gRPC: what it answers, what it leaves, and what it runs with."""

import asyncio
import json
import socket
import sqlite3
import subprocess
from contextlib import closing

import grpc
import pytest
from agreement import check_agreement as check_everything
from guests import Stack
from netd_ports import attach, check_agreement, list_ports, looking
from netd_process import SECONDS, configure, refused, running

from nexus.netd.v1 import netd_pb2 as pb
from nexus.vmm.v1 import vmm_pb2, vmm_pb2_grpc
from nexus_netd.records.schema import MIGRATIONS
from nexus_rpc.errors import from_rpc_error
from nexus_rpc.ids import new_vm_id, vm_uid


async def test_network_is_there_at_start_and_port_is_as_told(netd):
    answer = await netd.stub.EnsureNetwork(pb.EnsureNetworkRequest())
    assert (answer.network.gateway, list(answer.repaired)) == ("172.16.0.1", [])
    port = await attach(netd)
    assert (port.tap, port.ipv4, port.mac) == ("nexus0", "172.16.0.2/12", "02:fc:ac:10:00:02")
    assert (list(port.dns), list(port.search)) == (["172.16.0.1"], ["nexus"])
    details = json.loads(
        subprocess.run(
            ["ip", "-details", "-json", "link", "show", port.tap], check=True, capture_output=True
        ).stdout
    )[0]
    assert details["ifalias"] == f"nexus-vm@{port.vm_id}"
    assert int(details["linkinfo"]["info_data"]["user"]) == vm_uid(port.vm_id)
    assert details["linkinfo"]["info_data"]["persist"]
    assert details["linkinfo"]["info_slave_data"]["isolated"]


async def test_cleanup_leaves_nothing_and_ensure_brings_it_back(netd, namespace):
    vms = [(await attach(netd)).vm_id for _ in range(3)]
    removed = await netd.stub.CleanupNetwork(pb.CleanupNetworkRequest())
    assert (list(removed.taps), removed.leases) == (["nexus0", "nexus1", "nexus2"], 3)
    assert list(removed.bridges) == ["nexbr0"]
    assert sorted(removed.tables) == ["bridge nexus", "inet nexus"]
    assert socket.if_nameindex() == [(1, "lo")]
    again = await netd.stub.CleanupNetwork(pb.CleanupNetworkRequest())
    assert again == pb.CleanupNetworkResponse()
    answer = await netd.stub.EnsureNetwork(pb.EnsureNetworkRequest())
    assert "bridge nexbr0 made" in answer.repaired
    await attach(netd, vms[0])
    await check_agreement(netd)


async def test_a_full_subnet(namespace, tmp_path):
    configure(tmp_path, subnet="10.1.2.0/29")
    async with running(tmp_path) as netd:
        ports = [await attach(netd) for _ in range(5)]
        assert [port.ipv4 for port in ports] == [f"10.1.2.{n}/29" for n in range(2, 7)]
        error = from_rpc_error(await refused(attach(netd)))
        assert (error.reason, error.code) == ("SUBNET_FULL", grpc.StatusCode.RESOURCE_EXHAUSTED)
        await check_agreement(netd)
        await netd.stub.DetachPort(pb.DetachPortRequest(vm_id=ports[3].vm_id))
        assert (await attach(netd)).ipv4 == ports[3].ipv4


@pytest.mark.parametrize(
    "occupy",
    [
        "addr add 172.20.1.1/24 dev eth9",
        "route add 172.30.0.0/16 dev eth9",
        "route add blackhole 172.16.9.0/24",
    ],
)
async def test_a_subnet_in_use(namespace, tmp_path, occupy):
    here = Stack(namespace)
    here.ip("link add eth9 type veth peer name eth8")
    here.ip("link set eth9 up")
    here.ip("route add default dev eth9")  # does not count
    here.ip(occupy)
    configure(tmp_path)
    async with running(tmp_path) as netd:
        error = from_rpc_error(await refused(attach(netd)))
        assert (error.reason, error.code) == (
            "SUBNET_IN_USE",
            grpc.StatusCode.FAILED_PRECONDITION,
        )
        assert "nexbr0" not in dict(socket.if_nameindex()).values()
        here.ip(occupy.replace(" add ", " del "))
        await attach(netd)


async def test_a_foreign_bridge_name(namespace, tmp_path):
    Stack(namespace).ip("link add nexbr0 type veth peer name other")
    configure(tmp_path)
    async with running(tmp_path) as netd:
        error = from_rpc_error(await refused(attach(netd)))
        assert error.reason == "BRIDGE_FOREIGN"


async def test_the_port_of_a_deleted_vm_is_released(namespace, tmp_path):
    configure(tmp_path)
    told = asyncio.Queue()

    class Vmm(vmm_pb2_grpc.VmServiceServicer):
        async def WatchVms(self, request, context):
            while True:
                yield await told.get()

    vmm = grpc.aio.server()
    vmm_pb2_grpc.add_VmServiceServicer_to_server(Vmm(), vmm)
    async with running(tmp_path) as netd:  # first without vmm, which is no matter
        kept, gone = [await attach(netd) for _ in range(2)]
        vmm.add_insecure_port(f"unix:{tmp_path}/vmm.sock")
        await vmm.start()
        for vm in (kept, gone):
            told.put_nowait(vmm_pb2.WatchVmsResponse(vm=vmm_pb2.Vm(id=vm.vm_id)))
        told.put_nowait(vmm_pb2.WatchVmsResponse(synced=True))
        told.put_nowait(vmm_pb2.WatchVmsResponse(deleted_vm_id=gone.vm_id))
        async with asyncio.timeout(SECONDS):
            while len(await list_ports(netd)) == 2:  # noqa: ASYNC110  # a call has no event
                await asyncio.sleep(0.02)
        assert await list_ports(netd) == [kept]
        await check_agreement(netd)
    await vmm.stop(None)


async def test_names_that_vmm_tells_are_kept_and_running_vms_their_network(namespace, tmp_path):
    configure(tmp_path)
    told = asyncio.Queue()

    class Vmm(vmm_pb2_grpc.VmServiceServicer):
        async def WatchVms(self, request, context):
            while True:
                yield await told.get()

    vmm = grpc.aio.server()
    vmm_pb2_grpc.add_VmServiceServicer_to_server(Vmm(), vmm)
    vmm.add_insecure_port(f"unix:{tmp_path}/vmm.sock")
    await vmm.start()
    async with running(tmp_path) as netd:
        port = await attach(netd)
        state = vmm_pb2.VM_STATE_READY
        vm = vmm_pb2.Vm(id=port.vm_id, name="web", state=state)
        told.put_nowait(vmm_pb2.WatchVmsResponse(vm=vm))
        told.put_nowait(vmm_pb2.WatchVmsResponse(synced=True))
        async with asyncio.timeout(SECONDS):
            while not (await list_ports(netd))[0].vm_name:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (await list_ports(netd))[0].vm_name == "web"
        error = await refused(netd.stub.CleanupNetwork(pb.CleanupNetworkRequest()))
        assert from_rpc_error(error).reason == "VMS_RUNNING"
        await check_agreement(netd)
        removed = await netd.stub.CleanupNetwork(pb.CleanupNetworkRequest(force=True))
        assert removed.leases == 1
    await vmm.stop(None)


async def test_two_networks_with_all_there_is_and_a_restart(namespace, tmp_path):
    configure(tmp_path)
    async with running(tmp_path) as netd:
        network = pb.Network(name="blue", subnet="10.1.0.0/24", ipv6_subnet="fd6e:1::/64")
        request = pb.CreateNetworkRequest(network=network, request_id="one")
        blue = (await netd.stub.CreateNetwork(request)).network
        assert (blue.bridge, blue.gateway, blue.ipv6_gateway) == (
            "nexbr1",
            "10.1.0.1",
            "fd6e:1::1",
        )
        assert (await netd.stub.CreateNetwork(request)).network == blue
        rule = pb.EgressRule(domain="*.pypi.org", protocol=pb.PROTOCOL_TCP, first_port=443)
        policy = pb.EgressPolicy(mode=pb.EGRESS_MODE_RULES, rules=[rule])
        one = await attach(netd, network="blue", policy=policy)
        two = await attach(netd)
        assert one.ipv6 == "fd6e:1::2/128"
        link = pb.Link(from_vm_id=one.vm_id, to_vm_id=two.vm_id)
        await netd.stub.CreateLink(pb.CreateLinkRequest(link=link))
        publication = pb.Publication(vm_id=two.vm_id, host_port=8080, guest_port=80)
        await netd.stub.PublishPort(pb.PublishPortRequest(publication=publication))
        before = await list_ports(netd)
        async with looking() as kernel:
            rules = await kernel.contents()
    async with running(tmp_path) as netd:
        assert await list_ports(netd) == before
        async with looking() as kernel:
            assert await kernel.contents() == rules
        moved = await netd.stub.MigrateNetwork(
            pb.MigrateNetworkRequest(name="blue", subnet="10.2.0.0/24")
        )
        assert moved.ports[0].ipv4 == "10.2.0.2/24"
        assert not (await netd.stub.EnsureNetwork(pb.EnsureNetworkRequest())).repaired
        for vm in (one, two):
            await netd.stub.DetachPort(pb.DetachPortRequest(vm_id=vm.vm_id))
        assert (await netd.stub.DeleteNetwork(pb.DeleteNetworkRequest(name="blue"))).deleted
        assert {name for _, name in socket.if_nameindex()} == {"lo", "nexbr0"}


OLD_TABLE = """
table inet nexus {
  chain input { type filter hook input priority filter; iifname "nexbr0" drop; }
}
"""


async def test_the_network_of_an_older_netd_goes_on(namespace, tmp_path):
    here, vm = Stack(namespace), new_vm_id()
    with closing(sqlite3.connect(tmp_path / "netd.db")) as database:
        database.executescript(MIGRATIONS[0] + "; PRAGMA user_version = 1")
        database.execute("INSERT INTO pool VALUES (1, '172.16.0.0/12', 3)")
        database.execute("INSERT INTO leases VALUES (2, ?, 'nexus0', 1000.0)", (vm,))
        database.commit()
    here.ip("link add nexbr0 address 02:fc:ac:10:00:01 type bridge")
    here.ip("addr add 172.16.0.1/12 dev nexbr0")
    here.ip("link set nexbr0 up")
    here.ip("tuntap add nexus0 mode tap user 4242")
    here.ip(f"link set nexus0 alias nexus-vm@{vm} master nexbr0 up")
    here.ip("neigh add 172.16.0.2 lladdr 02:fc:ac:10:00:02 dev nexbr0 nud permanent")
    subprocess.run(["nft", "-f", "-"], input=OLD_TABLE.encode(), check=True)
    index = socket.if_nametoindex("nexus0")
    configure(tmp_path)
    async with running(tmp_path) as netd:
        (port,) = await list_ports(netd)
        assert (port.vm_id, port.tap, port.ipv4) == (vm, "nexus0", "172.16.0.2/12")
        assert (port.mac, port.network) == ("02:fc:ac:10:00:02", "default")
        assert socket.if_nametoindex("nexus0") == index  # a VM that runs has it open
        await check_agreement(netd)
        await check_everything(netd.stub)


async def test_a_listener_of_the_host_keeps_its_port(netd):
    port = await attach(netd)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        number = listener.getsockname()[1]
        request = pb.PublishPortRequest(
            publication=pb.Publication(vm_id=port.vm_id, host_port=number)
        )
        error = from_rpc_error(await refused(netd.stub.PublishPort(request)))
        assert error.reason == "HOST_PORT_IN_USE"
    await netd.stub.PublishPort(request)
