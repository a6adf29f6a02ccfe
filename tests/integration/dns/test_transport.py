"""UDP and TCP as guests may misuse them, and where the resolver listens."""

import asyncio
import random
import socket
import struct
import time
from contextlib import AsyncExitStack
from pathlib import Path

import dns.flags
import dns.message
import grpc
import pytest
from dns_doubles import Client, code, ended, receive, until, until_heard, values

QUERY = dns.message.make_query("worker.nexus", "A", use_edns=False)


async def metric(directory, name, **labels):
    """Return a metric's value."""
    reader, writer = await asyncio.open_unix_connection(directory / "metrics.sock")
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    for line in text.splitlines():
        if line.startswith(name) and all(each in line for each in wanted):
            return float(line.rpartition(" ")[2])
    raise LookupError(name)


def sockets(protocol):
    return Path("/proc/net", protocol).read_text()


def send_all(client, wires):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((client.source, 0))
        for each in wires:
            sender.sendto(each, (client.gateway, client.port))


@pytest.mark.parametrize(
    ("payload", "most"),
    [(None, 512), (0, 512), (512, 512), (900, 900), (1232, 1232), (65535, 1232)],
)
async def test_answers_by_udp_have_the_size_that_was_asked_for(
    names, netd, guest, opened, payload, most
):
    names.answers["pypi.org TXT"] = [f"pypi.org 60 TXT {n}{'x' * 150}" for n in range(7)]
    edns = {"use_edns": False} if payload is None else {"use_edns": 0, "payload": payload}
    for client in guest, opened:
        query = dns.message.make_query("pypi.org", "TXT", **edns)
        wire = await client.send(query.to_wire())
        assert len(wire) <= most
        answer = dns.message.from_wire(wire)
        assert bool(answer.flags & dns.flags.TC) == (most < 1232)
        assert answer.edns == (-1 if payload is None else 0)


async def test_a_later_version_of_edns(netd, opened):
    answer = await opened.ask("pypi.org", use_edns=1)
    assert code(answer) == "BADVERS"


async def test_a_stranger_gets_no_answer(netd, client, tmp_path):
    stranger = client("127.53.0.99")
    with pytest.raises(TimeoutError):
        await stranger.ask("worker.nexus", seconds=0.3)
    async with stranger.connected() as (reader, _):
        await ended(reader)
    assert await metric(tmp_path, "nexus_dns_queries_total", outcome="unknown source") >= 1


def header(flags=0x0100, questions=1, answers=0, authorities=0, additional=0):
    return struct.pack("!6H", 7, flags, questions, answers, authorities, additional)


BODY = b"\x04pypi\x03org\0\0\1\0\1"


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (header(flags=0x2000) + BODY, "NOTIMP"),  # NOTIFY
        (header(flags=0x2800) + BODY, "NOTIMP"),  # UPDATE
        (header(flags=0x7800) + BODY, "NOTIMP"),
        (header(questions=0), "FORMERR"),
        (header(questions=2) + BODY * 2, "FORMERR"),
        (header(questions=65535) + BODY, "FORMERR"),
        (header() + BODY[:-1], "FORMERR"),
        (header(answers=1) + BODY * 2, "FORMERR"),
        (header(additional=2) + BODY * 3, "FORMERR"),
        (header() + b"\xc0\x0c\0\1\0\1", "FORMERR"),  # a name that points to itself
        (header() + b"\x41" + b"x" * 65 + b"\0\0\1\0\1", "FORMERR"),
        (header() + b"\x01x" * 200 + b"\0\0\1\0\1", "FORMERR"),
        (header() + BODY + b"more", "FORMERR"),
    ],
)
async def test_what_is_no_query(netd, opened, wire, expected):
    answer = await opened.send(wire)
    assert answer[:2] == wire[:2]
    assert code(dns.message.from_wire(answer)) == expected


@pytest.mark.parametrize(
    "wire", [b"", b"x", header()[:11], header(flags=0x8180) + BODY, bytes(1233)]
)
async def test_what_gets_no_answer(netd, opened, wire):
    with pytest.raises(TimeoutError):
        await opened.send(wire, seconds=0.2)
    assert code(await opened.ask("browser.nexus")) == "NOERROR"


async def test_random_bytes(names, netd, guest, opened):
    seed = random.Random(53)
    good = dns.message.make_query("pypi.org", "A", use_edns=0).to_wire()
    wires = []
    for _ in range(300):
        wire = bytearray(good)
        for _ in range(seed.randrange(1, 6)):
            wire[seed.randrange(len(wire))] = seed.randrange(256)
        wires.append(bytes(wire[: seed.randrange(1, len(wire) + 1)]))
    send_all(guest, wires)
    send_all(opened, wires)
    await until_heard(guest, "worker.nexus")


async def test_a_flood_is_dropped_and_others_are_served(netd, guest, opened, tmp_path):
    wire = QUERY.to_wire()
    for _ in range(5):
        send_all(guest, [wire] * 400)
        await until_heard(opened)
    assert await metric(tmp_path, "nexus_dns_queries_total", outcome="rate") > 500
    await until_heard(guest, "worker.nexus")  # once it has stopped, it is served again


async def test_a_flood_of_names_is_denied_in_a_bounded_way(netd, guest):
    for n in range(100):
        assert code(await guest.ask(f"n{n}.evil.net")) == "REFUSED"
    assert 20 <= netd.denials.qsize() <= 40


async def test_questions_under_way_are_bounded(names, netd, guest, opened, tmp_path):
    names.answers["pypi.org A"] = lambda query: None
    asking = [asyncio.create_task(guest.ask("pypi.org")) for _ in range(80)]
    done, waiting = await asyncio.wait(asking, timeout=1)
    assert [code(task.result()) for task in done] == ["REFUSED"] * 16
    assert await metric(tmp_path, "nexus_dns_in_flight") == 64
    names.answers["pypi.org A"] = ["pypi.org 300 A 151.101.0.223"]
    assert values(await opened.ask("pypi.org")) == ["151.101.0.223"]
    for task in asyncio.as_completed(waiting):
        assert values(await task) == ["151.101.0.223"]
    assert await metric(tmp_path, "nexus_dns_in_flight") == 0


class TestTcp:
    async def test_many_queries_on_one_connection(self, names, netd, guest):
        numbers = range(1, 41)
        for n in numbers:
            names.answers[f"n{n}.pypi.org A"] = [f"n{n}.pypi.org 60 A 151.101.0.{n}"]
        async with guest.connected() as (reader, writer):
            for n in numbers:
                query = dns.message.make_query(f"n{n}.pypi.org", "A", id=n)
                writer.write(query.to_wire(prepend_length=True))
            answers = [dns.message.from_wire(await receive(reader)) for _ in numbers]
        assert {answer.id: values(answer) for answer in answers} == {
            n: [f"151.101.0.{n}"] for n in numbers
        }

    async def test_a_client_that_is_done_sending_is_answered(self, names, netd, guest):
        names.answers["pypi.org A"] = ["pypi.org 300 A 151.101.0.223"]
        async with guest.connected() as (reader, writer):
            writer.write(dns.message.make_query("pypi.org", "A").to_wire(prepend_length=True))
            writer.write_eof()
            assert values(dns.message.from_wire(await receive(reader))) == ["151.101.0.223"]
            await ended(reader)

    async def test_a_query_in_pieces(self, netd, guest):
        async with guest.connected() as (reader, writer):
            for byte in QUERY.to_wire(prepend_length=True):
                writer.write(bytes([byte]))
                await writer.drain()
            assert values(dns.message.from_wire(await receive(reader))) == ["127.53.0.2"]

    async def test_one_who_sends_no_whole_query(self, netd, guest):
        async def seconds(sent):
            began = time.monotonic()
            async with guest.connected() as (reader, writer):
                writer.write(sent)
                await ended(reader)
            return time.monotonic() - began

        assert await seconds(b"\xff\xff") < 5  # none is that long
        silent = await asyncio.gather(*map(seconds, (b"", b"\0", b"\0\x20half")))
        assert all(9 < each < 20 for each in silent)

    async def test_one_who_takes_no_answers(self, names, netd, opened, tmp_path):
        names.answers["pypi.org TXT"] = [f"pypi.org 60 TXT {n}{'x' * 200}" for n in range(70)]
        query = dns.message.make_query("pypi.org", "TXT").to_wire(prepend_length=True)
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.bind((opened.source, 0))
            client.setblocking(False)
            await loop.sock_connect(client, (opened.gateway, opened.port))
            await loop.sock_sendall(client, query * 300)

            async def let_go():
                # Others are answered meanwhile.
                assert code(await opened.ask("browser.nexus")) == "NOERROR"
                return await metric(tmp_path, "nexus_dns_tcp_connections") == 0

            await until(let_go)

    async def test_connections_of_a_guest_are_bounded(self, netd, guest, opened, tmp_path):
        async with AsyncExitStack() as stack:
            readers = [(await stack.enter_async_context(guest.connected()))[0] for _ in range(12)]
            for reader in readers[8:]:
                await ended(reader)
            assert await metric(tmp_path, "nexus_dns_tcp_connections") == 8
            assert code(await opened.ask_by_tcp("browser.nexus")) == "NOERROR"

    async def test_who_has_most_makes_room_for_others(self, netd, client, opened, tmp_path):
        async def full():
            return await metric(tmp_path, "nexus_dns_tcp_connections") == 256

        async with AsyncExitStack() as stack:
            for n in range(1, 33):
                await netd.guest(f"g{n}", f"127.53.2.{n}", name=f"g{n}")
            await until_heard(client("127.53.2.32"), "g32.nexus")
            for n in range(1, 33):
                for _ in range(8):
                    await stack.enter_async_context(client(f"127.53.2.{n}").connected())
            await until(full)
            assert code(await opened.ask_by_tcp("browser.nexus")) == "NOERROR"
            assert await metric(tmp_path, "nexus_dns_tcp_connections") <= 256


class TestListening:
    async def test_a_network_that_is_gone(self, netd, guest):
        async with guest.connected() as (reader, _):
            await netd.say(network_gone="default")
            await ended(reader)
        with pytest.raises(ConnectionRefusedError):
            await guest.ask("worker.nexus", seconds=1)
        with pytest.raises(ConnectionRefusedError):
            await guest.ask_by_tcp("worker.nexus")

    async def test_a_gateway_that_moves(self, netd, client, guest):
        await netd.network(listen=["127.53.0.77"], upstream=[])
        await until_heard(client(guest.source, "127.53.0.77"), "worker.nexus")
        with pytest.raises(ConnectionRefusedError):
            await guest.ask("worker.nexus", seconds=1)

    async def test_a_gateway_that_is_not_there_yet(self, netd, guest):
        await netd.network(listen=["203.0.113.53", "2001:db8::53", guest.gateway], upstream=[])
        await netd.guest("guest", guest.source, name="moved")
        await until_heard(guest, "moved.nexus")
        # As the kernel writes it: an IPv4 address, and the words of an IPv6 one, turned round.
        port = f"{guest.port:04X}"
        for kind, address in ("", "357100CB"), ("6", "B80D0120000000000000000053000000"):
            for protocol in "tcp", "udp":
                assert f" {address}:{port} " in sockets(f"{protocol}{kind}")

    async def test_a_port_that_another_has(self, netd, client, guest, tmp_path):
        async def told():
            return "cannot listen on 127.53.0.78" in (tmp_path / "log").read_text()

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.53.0.78", guest.port))
            await netd.network("second", listen=["127.53.0.78"], upstream=[])
            await until(told)
            assert code(await guest.ask("worker.nexus")) == "NOERROR"  # the first goes on
        await until_heard(client(guest.source, "127.53.0.78"), "worker.nexus")

    async def test_ipv6(self, names, netd, resolver):
        names.answers["pypi.org AAAA"] = ["pypi.org 60 AAAA 2a04:4e42::223"]
        await netd.network("six", listen=["::1"], upstream=["127.53.1.1"])
        await netd.guest(
            "six", ["127.53.0.6", "::1"], name="six", network="six", names=["pypi.org"]
        )
        six = Client("::1", "::1", resolver.port)
        await until_heard(six, "six.nexus")
        assert values(await six.ask("six.nexus", "AAAA")) == ["::1"]
        assert values(await six.ask_by_tcp("pypi.org", "AAAA")) == ["2a04:4e42::223"]
        reverse = f"1.{'0.' * 31}ip6.arpa"
        assert values(await six.ask(reverse, "PTR")) == ["six.nexus."]


async def test_a_stop_ends_the_stream_and_is_quick(resolver, netd):
    resolver.process.terminate()
    async with asyncio.timeout(4):
        assert await resolver.process.wait() == 0
        assert await netd.status() != grpc.StatusCode.OK
