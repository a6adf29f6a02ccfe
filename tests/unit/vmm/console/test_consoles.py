"""All consoles: what a request asks for, following, typing, and the stop of the service."""

import asyncio
import contextlib
import os

import pytest
import vmm_guest
from google.protobuf.timestamp_pb2 import Timestamp
from vmm_guest import ID
from vmm_ring import Ring

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus_rpc.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from nexus_vmm.console import consoles as module
from nexus_vmm.console import follower
from nexus_vmm.console.consoles import Consoles, Wanted, check_wanted
from nexus_vmm.states import State

VM = vmm_guest.vm(state=State.READY, spec=vmm_guest.spec(serial_input=True))
FOLLOW = Wanted(follow=True)


@pytest.fixture
def places(short_path):
    places = vmm_guest.places(short_path)
    places.console(ID).mkdir(parents=True)
    places.run(ID).mkdir(parents=True)
    return places


@pytest.fixture
def ring(places):
    return Ring(places.console(ID))


@pytest.fixture
def consoles(places):
    return Consoles(places)


@pytest.fixture(autouse=True)
async def bound():
    async with asyncio.timeout(20):
        yield


async def whole(consoles, wanted):
    return [chunk async for chunk in consoles.read(VM, wanted)]


def test_a_request_says_what_is_wanted():
    since = Timestamp(seconds=3, nanos=5)
    request = pb.GetConsoleLogRequest(tail_bytes=1, tail_lines=2, since=since, follow=True)
    assert check_wanted(request) == Wanted(1, 2, 3_000_000_005, follow=True)
    assert check_wanted(pb.GetConsoleLogRequest()) == Wanted()


@pytest.mark.parametrize(
    "since",
    [
        Timestamp(seconds=-1),
        Timestamp(seconds=2**62),
        Timestamp(nanos=-1),
        Timestamp(nanos=1_000_000_000),
    ],
)
def test_what_is_no_time_is_refused(since):
    with pytest.raises(InvalidArgument, match=r"since is '.* s and .* ns': a time from 1970"):
        check_wanted(pb.GetConsoleLogRequest(since=since))


async def test_a_log_is_read_in_chunks(consoles, ring):
    ring.print(b"a\n" * follower.CHUNK)
    chunks = await whole(consoles, Wanted())
    assert [(len(data), dropped) for data, dropped in chunks] == [(follower.CHUNK, 0)] * 2
    assert await whole(consoles, Wanted(tail_lines=1)) == [(b"a\n", 0)]
    assert await whole(consoles, Wanted(since=ring.now + 1)) == []


async def test_what_is_typed_is_looked_for_at_once(consoles, ring, places, monkeypatch):
    monkeypatch.setattr(follower, "_SOON", 1000.0)
    monkeypatch.setattr(follower, "_RARELY", 1000.0)
    os.mkfifo(places.serial(ID))
    guest = os.open(places.serial(ID), os.O_RDWR)
    ring.print(b"login: ")
    async with contextlib.aclosing(consoles.read(VM, FOLLOW)) as chunks:
        assert await anext(chunks) == (b"login: ", 0)
        echo = asyncio.create_task(anext(chunks))
        await asyncio.sleep(0)
        ring.print(b"root")
        consoles.type(VM, b"root")
        assert os.read(guest, 100) == b"root"
        assert await echo == (b"root", 0)
    os.close(guest)


async def test_only_the_console_of_that_vm_is_looked_at(consoles, ring, places, monkeypatch):
    stirred = []

    def note(stirred_one):
        stirred.append(stirred_one)

    monkeypatch.setattr(follower.Follower, "stir", note)
    monkeypatch.setattr(module, "type_into", lambda *_: None)
    ring.print(b"x")
    async with contextlib.aclosing(consoles.read(VM, FOLLOW)) as chunks:
        await anext(chunks)
        consoles.type(vmm_guest.vm("b" * 13, state=State.READY, spec=VM.spec), b"x")
        assert stirred == []
        consoles.type(VM, b"x")
        assert len(stirred) == 1


async def test_a_vm_without_serial_input_is_not_typed_into(consoles):
    with pytest.raises(FailedPrecondition, match="set that"):
        consoles.type(vmm_guest.vm(state=State.READY), b"x")


async def test_only_so_many_follow_at_one_time(consoles, ring, monkeypatch):
    monkeypatch.setattr(module, "FOLLOWERS", 1)
    ring.print(b"x")
    async with contextlib.aclosing(consoles.read(VM, FOLLOW)) as chunks:
        await anext(chunks)
        with pytest.raises(ResourceExhausted) as caught:
            await whole(consoles, FOLLOW)
        assert caught.value.reason == "TOO_MANY_FOLLOWERS"
        assert await whole(consoles, Wanted()) == [(b"x", 0)]
    async with contextlib.aclosing(consoles.read(VM, FOLLOW)) as chunks:
        assert await anext(chunks) == (b"x", 0)


async def test_the_stop_of_the_service_ends_those_that_follow(consoles, ring):
    ring.print(b"x")
    async with contextlib.aclosing(consoles.read(VM, FOLLOW)) as chunks:
        await anext(chunks)
        more = asyncio.create_task(anext(chunks))
        await asyncio.sleep(0)
        consoles.close()
        with pytest.raises(Unavailable, match="follow again"):
            await more
    with pytest.raises(Unavailable, match="follow again"):
        await whole(consoles, FOLLOW)
