"""Connections to guests, most of them hostile."""

import asyncio
import os

import pytest
from gateway_doubles import FakeGuest

from nexus_gateway import vsock
from nexus_gateway.vsock import dial
from nexus_guest.wire import MAX_PAYLOAD, Kind
from nexus_rpc.errors import DataLoss, InvalidArgument, Unavailable


@pytest.fixture
def guest(tmp_path):
    return FakeGuest(tmp_path / "agent.sock")


async def raw_server(path, script):
    return await asyncio.start_unix_server(script, path)


async def test_what_follows_the_ok_is_not_swallowed(guest):
    async def speaks_first(side):
        await side.message(Kind.REPLY, first=True)
        await side.closed()

    guest.ports[300] = speaks_first
    async with guest, await dial(guest.path, 300, timeout=5) as connection:
        assert (await connection.receive(timeout=5)).message == {"first": True}


async def test_no_socket(tmp_path):
    with pytest.raises(Unavailable, match="port 300") as caught:
        await dial(tmp_path / "none", 300, timeout=5)
    assert caught.value.reason == "GUEST_UNREACHABLE"


async def test_nothing_listens_on_the_port(guest):
    async with guest:
        with pytest.raises(Unavailable, match="nothing listens on port 300"):
            await dial(guest.path, 300, timeout=5)


@pytest.mark.parametrize(
    "answer", [b"OK\n", b"OK x\n", b"NO 1\n", b"OK " + b"1" * 64 + b"\n", b"\n", b"OK 1" * 1000]
)
async def test_an_answer_that_is_no_ok(tmp_path, answer):
    async def answers(reader, writer):
        writer.write(answer)
        await writer.drain()
        await reader.read()
        writer.close()

    async with await raw_server(tmp_path / "s", answers):
        with pytest.raises(Unavailable, match="expected OK"):
            await dial(tmp_path / "s", 300, timeout=5)


async def test_never_an_ok(tmp_path):
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    async with await raw_server(tmp_path / "s", silent):
        with pytest.raises(Unavailable, match=r"in 0\.05 s"):
            await dial(tmp_path / "s", 300, timeout=0.05)


def hostile(data, *, then_close=False):
    async def script(side):
        await side.send(data)
        if not then_close:
            await side.closed()

    return script


@pytest.mark.parametrize(
    "data",
    [
        pytest.param((2 << 30).to_bytes(4, "big"), id="a frame of 2 GB"),
        pytest.param(b"\0\0\0\0", id="an empty frame"),
        pytest.param(b"\0\0\0\x02\xffx", id="an unknown kind"),
        pytest.param(b"\0\0\0\x03\x02[]", id="JSON that is no object"),
        pytest.param(b"\0\0\0\x02\x02{", id="broken JSON"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="garbage"),
    ],
)
async def test_what_is_no_frame_ends_the_connection(guest, data):
    closed = asyncio.Event()

    async def script(side):
        await side.send(data)
        await side.closed()
        closed.set()

    guest.ports[300] = script
    async with guest:
        connection = await dial(guest.path, 300, timeout=5)
        with pytest.raises(DataLoss) as caught:
            await connection.receive(timeout=5)
        assert caught.value.reason == "GUEST_PROTOCOL"
        # Closed by the connection itself, before its user lets go.
        async with asyncio.timeout(5):
            await closed.wait()


async def test_half_open_in_the_middle_of_a_frame(guest):
    guest.ports[300] = hostile(b"\0\0\0\x10\x02{")
    async with guest, await dial(guest.path, 300, timeout=5) as connection:
        with pytest.raises(Unavailable, match="did not answer"):
            await connection.receive(timeout=0.05)


async def test_a_trickle_does_not_stretch_the_deadline(guest):
    async def trickles(side):
        await side.send(b"\0\0\x10\0\x02")
        while True:
            await side.send(b" ")
            await asyncio.sleep(0.01)

    guest.ports[300] = trickles
    async with guest, await dial(guest.path, 300, timeout=5) as connection:
        with pytest.raises(Unavailable, match="did not answer"):
            await connection.receive(timeout=0.1)


async def test_instant_close(guest):
    guest.ports[300] = hostile(b"", then_close=True)
    async with guest, await dial(guest.path, 300, timeout=5) as connection:
        with pytest.raises(Unavailable, match=r"closed the connection|broke"):
            await connection.receive(timeout=5)


async def test_a_guest_that_takes_nothing(guest):
    async def deaf(side):
        await asyncio.Event().wait()

    guest.ports[300] = deaf
    async with guest, await dial(guest.path, 300, timeout=5) as connection:

        async def send_on():
            while True:
                await connection.send(Kind.DATA, bytes(MAX_PAYLOAD), timeout=0.05)

        with pytest.raises(Unavailable, match="took no data"):
            await send_on()


async def test_a_flood_waits_in_the_guest(guest):
    sent = 0

    async def floods(side):
        nonlocal sent
        while True:
            await side.frame(Kind.STDOUT, bytes(64 << 10))
            sent += 64 << 10

    guest.ports[300] = floods
    async with guest, await dial(guest.path, 300, timeout=5) as connection:
        await connection.receive(timeout=5)
        for _ in range(200):
            await asyncio.sleep(0)
        before = sent
        for _ in range(200):
            await asyncio.sleep(0)
        # It stands still: only the kernel's buffers and our bounded one are full.
        assert sent == before < 4 << 20


async def test_an_answer_before_the_question(guest):
    async def eager(side):
        await side.message(Kind.REPLY, a=1)
        await side.message(Kind.REPLY, b=2)
        await side.closed()

    guest.ports[100] = eager
    async with guest, await dial(guest.path, 100, timeout=5) as connection:
        await connection.receive(timeout=5)
        with pytest.raises(DataLoss, match="before it was asked"):
            await connection.request({"op": "ping"}, timeout=5)


async def test_a_request_that_fits_no_frame(guest):
    async def waits(side):
        await side.closed()

    guest.ports[300] = waits
    async with guest, await dial(guest.path, 300, timeout=5) as connection:
        with pytest.raises(InvalidArgument):
            await connection.request({"op": "x" * (MAX_PAYLOAD + 1)}, timeout=5)


async def test_closing_is_idempotent(guest):
    async def waits(side):
        await side.closed()

    guest.ports[300] = waits
    async with guest:
        connection = await dial(guest.path, 300, timeout=5)
        await connection.close()
        await connection.close()


async def test_a_link_to_the_socket_of_another_vm_is_not_followed(guest, monkeypatch):
    """Its directory belongs to the VM's user; whoever broke out of Firecracker may write there."""
    whose = os.stat_result((0o40770, 0, 0, 1, 0x70000001, 0, 0, 0, 0, 0))
    monkeypatch.setattr(vsock.os, "stat", lambda path: whose)
    async with guest:
        with pytest.raises(Unavailable, match="leads to another's socket"):
            await dial(guest.path, 100, timeout=5)
