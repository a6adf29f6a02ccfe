"""What the engineer on call meets at night: a host that is short of something, and who undoes."""

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import time
from collections import Counter

import grpc
import pytest
from agreement import check_agreement
from guests import Stack
from netd_process import SECONDS, configure, refused, running

from nexus.netd.v1 import netd_pb2 as pb
from nexus_rpc.errors import from_rpc_error
from nexus_rpc.ids import new_vm_id

WITHOUT_TUN = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh")
"""Runs a program for which there is no /dev/net/tun, as where the module is not loaded."""

STOP = 15
"""Seconds that netd's unit gives it to stop."""


async def attach(netd, vm_id=None, timeout=None, **fields):
    request = pb.AttachPortRequest(vm_id=vm_id or new_vm_id(), **fields)
    return (await netd.stub.AttachPort(request, timeout=timeout)).port


def warnings(directory, first=0):
    """Return what the log has from warnings on, from line `first`."""
    lines = [json.loads(line) for line in (directory / "log").read_text().splitlines()[first:]]
    return [line["message"] for line in lines if line["level"] != "info"]


def count_lines(directory):
    return len((directory / "log").read_text().splitlines())


async def until_agreement(netd, seconds=SECONDS):
    """Wait until a repair is done."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                await check_agreement(netd.stub)
            except (AssertionError, KeyError, subprocess.CalledProcessError):
                await asyncio.sleep(0.05)
            else:
                return


async def test_without_tun_an_attach_says_what_to_do_and_leaves_nothing(namespace, tmp_path):
    configure(tmp_path)
    async with running(tmp_path, *WITHOUT_TUN) as netd:
        error = from_rpc_error(await refused(attach(netd)))
        assert (error.reason, error.code) == (
            "TUN_UNAVAILABLE",
            grpc.StatusCode.FAILED_PRECONDITION,
        )
        assert "load the module tun" in str(error)
        await check_agreement(netd.stub)
        assert not (await netd.stub.ListPorts(pb.ListPortsRequest())).ports


async def test_tun_that_is_missing_once_leaves_the_ports_of_before(namespace, tmp_path):
    configure(tmp_path)
    async with running(tmp_path) as netd:
        ports = [await attach(netd) for _ in range(3)]
    Stack(namespace).ip(f"link del {ports[0].tap}")
    Stack(namespace).ip(f"link set {ports[2].tap} nomaster")
    async with running(tmp_path, *WITHOUT_TUN) as netd:
        links = {link["ifname"]: link for link in Stack(namespace).ask("-json link show")}
        assert {links[port.tap]["master"] for port in ports[1:]} == {"nexbr0"}
        assert any("load the module tun" in line for line in warnings(tmp_path))
    async with running(tmp_path) as netd:
        await check_agreement(netd.stub)


async def test_a_full_disk_changes_nothing_and_goes_on_when_there_is_room(namespace, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(f"mount -t tmpfs -o size=400k none {small}".split(), check=True)
    try:
        configure(tmp_path, state_dir=str(small))
        async with running(tmp_path) as netd:
            port = await attach(netd)
            fill(small / "fill")
            policy = pb.EgressPolicy(mode=pb.EGRESS_MODE_NONE)
            for call in (
                attach(netd),
                netd.stub.DetachPort(pb.DetachPortRequest(vm_id=port.vm_id)),
                netd.stub.SetPolicy(pb.SetPolicyRequest(vm_id=port.vm_id, policy=policy)),
            ):
                error = from_rpc_error(await refused(call))
                assert error.reason == "DISK_FULL", error
                assert str(small) in str(error)
                await check_agreement(netd.stub)
            (small / "fill").unlink()
            await attach(netd)
            await check_agreement(netd.stub)
    finally:
        subprocess.run(["umount", small], check=True)


def fill(path):
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017  # it is how the loop ends


async def test_deadlines_that_are_too_short_and_the_same_requests_again(netd):
    asked = [(new_vm_id(), os.urandom(8).hex()) for _ in range(40)]

    async def try_all(seconds):
        done = await asyncio.gather(
            *(attach(netd, vm_id, seconds, request_id=once) for vm_id, once in asked),
            return_exceptions=True,
        )
        return Counter(type(one) for one in done)

    assert (await try_all(0.05))[grpc.aio.AioRpcError] > 0
    assert await try_all(SECONDS) == {pb.Port: 40}
    ports = (await netd.stub.ListPorts(pb.ListPortsRequest(page_size=1_000))).ports
    assert {port.vm_id for port in ports} == {vm_id for vm_id, _ in asked}
    await check_agreement(netd.stub)


async def test_a_stop_under_load_with_streams_open(netd, tmp_path):
    happenings = netd.stub.WatchNetwork(pb.WatchNetworkRequest())
    denials = netd.stub.WatchDenials(pb.WatchDenialsRequest(follow=True))
    await happenings.initial_metadata()
    ended = [asyncio.create_task(read_all(stream)) for stream in (happenings, denials)]
    begun = asyncio.Event()

    async def load():
        try:
            while True:
                port = await attach(netd)
                begun.set()
                await netd.stub.DetachPort(pb.DetachPortRequest(vm_id=port.vm_id))
        except grpc.aio.AioRpcError as error:
            return error.code()

    loads = [asyncio.create_task(load()) for _ in range(16)]
    await begun.wait()
    before = time.monotonic()
    netd.process.terminate()
    async with asyncio.timeout(STOP):
        assert await netd.process.wait() == 0
    assert time.monotonic() - before < STOP / 2
    assert set(await asyncio.gather(*loads)) <= {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
    }
    await asyncio.gather(*ended)
    assert not [line for line in warnings(tmp_path) if "never retrieved" in line]
    async with running(tmp_path) as again:
        await check_agreement(again.stub)


async def read_all(stream):
    """Read a stream to its end, however it ends."""
    try:
        async for _ in stream:
            pass
    except grpc.aio.AioRpcError:
        pass


async def test_who_flushes_all_rules_again_and_again_is_told_of_once(netd, tmp_path):
    port = await attach(netd)
    first = count_lines(tmp_path)
    began = time.monotonic()
    while time.monotonic() - began < 6:
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        await asyncio.sleep(0.02)
    told = warnings(tmp_path, first)
    assert len([line for line in told if "somebody keeps undoing rules" in line]) == 1
    assert len(told) < 15
    assert (await attach(netd)).ipv4 != port.ipv4
    await until_agreement(netd)


HARMS = {
    "TAPs in numbers": "for n in $(seq 5 19); do ip link del nexus$n; done",
    "addresses": "ip addr flush dev nexbr0",
    "our routes": "ip route flush proto 110",
    "all routes": "ip route flush table main",
    "neighbours": "ip neigh flush dev nexbr0 nud permanent",
    "forwarding": "sysctl -q -w net.ipv4.ip_forward=0",
    "a TAP on another bridge": "ip link add br7 type bridge; ip link set nexus0 master br7;"
    "ip link del br7",
    "the bridge's name": "ip link set nexbr0 down; ip link set nexbr0 name other",
    "a reload as firewalld's": "nft flush ruleset; nft add table inet firewalld;"
    "nft delete table inet firewalld",
    "a rule among ours": "nft insert rule inet nexus forward accept",
}


async def test_all_that_people_do_at_night_is_put_right(netd, cables):
    ports = [await attach(netd) for _ in range(20)]
    guest = cables.guest(ports[0])
    for harm, command in HARMS.items():
        subprocess.run(["sh", "-ec", command], check=True)
        try:
            await until_agreement(netd, 3)
        except TimeoutError:
            pytest.fail(harm)
        assert await guest.ping(guest.gateway), harm


async def test_a_kill_and_a_restart_are_not_felt(netd, cables, tmp_path):
    guest = cables.guest(await attach(netd))
    netd.process.send_signal(signal.SIGKILL)
    await netd.process.wait()
    assert await guest.ping(guest.gateway)
    async with running(tmp_path) as again:
        assert await guest.ping(guest.gateway)
        await check_agreement(again.stub)
    assert not [line for line in warnings(tmp_path) if "TAP" in line]


async def test_a_cleanup_and_everything_back(netd, cables):
    before = [await attach(netd) for _ in range(3)]
    await netd.stub.CleanupNetwork(pb.CleanupNetworkRequest(force=True))
    assert socket.if_nameindex() == [(1, "lo")]
    await netd.stub.EnsureNetwork(pb.EnsureNetworkRequest())
    after = [await attach(netd, port.vm_id) for port in before]
    guest = cables.guest(after[0])
    assert await guest.ping(guest.gateway)
    await check_agreement(netd.stub)
