"""The resolver's surroundings: a name server that answers as told, netd's stream, and guests."""

import asyncio
import contextlib
import os
import socket
import struct
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from notifications import Notifications

from nexus.netd.v1 import resolver_pb2 as pb
from nexus.netd.v1 import resolver_pb2_grpc
from nexus_rpc.channel import connect

SECONDS = 30


def records(*lines):
    """Return records given as "NAME TTL TYPE VALUE"."""
    found = []
    for line in lines:
        name, ttl, kind, value = line.split(maxsplit=3)
        found.append(dns.rrset.from_text(f"{name}.", int(ttl), "IN", kind, value))
    return found


def reply(query, *lines, code=dns.rcode.NOERROR):
    """Return an answer to `query` with these records."""
    message = dns.message.make_response(query, recursion_available=True)
    message.set_rcode(code)
    message.answer.extend(records(*lines))
    return message


class NameServer(asyncio.DatagramProtocol):
    """A name server on `address`, port 53, by UDP and TCP.

    `answers` maps a question, "NAME TYPE", to records as lines, or to a function of the query that
    returns a message, bytes, or None for silence. What is not there does not exist.
    """

    def __init__(self, address):
        self.address = address
        self.answers = {}
        self.asked = []
        self.asked_by_tcp = []

    @asynccontextmanager
    async def serving(self):
        """Serve while the block runs."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=(self.address, 53)
        )
        self.transport = transport
        server = await asyncio.start_server(self._stream, self.address, 53)
        try:
            yield self
        finally:
            transport.close()
            server.close()
            await server.wait_closed()

    def datagram_received(self, data, address):
        """Answer by UDP, truncated where it does not fit."""
        query = dns.message.from_wire(data)
        self.asked.append(question_of(query))
        answer = self._answer(query)
        if isinstance(answer, dns.message.Message):
            answer = answer.to_wire(max_size=query.payload or 512, prefer_truncation=True)
        if answer is not None:
            self.transport.sendto(answer, address)

    async def _stream(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            query = dns.message.from_wire(await reader.readexactly(length))
            self.asked_by_tcp.append(question_of(query))
            answer = self._answer(query)
            if isinstance(answer, dns.message.Message):
                answer = answer.to_wire(max_size=65535)
            if answer is not None:
                writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        writer.close()

    def _answer(self, query):
        answer = self.answers.get(question_of(query))
        if callable(answer):
            return answer(query)
        if answer is None:
            return reply(query, code=dns.rcode.NXDOMAIN)
        return reply(query, *answer)


def question_of(query):
    """Return what is asked, as "NAME TYPE"."""
    (question,) = query.question
    name = question.name.to_text(omit_final_dot=True).lower()
    return f"{name} {dns.rdatatype.to_text(question.rdtype)}"


class Netd:
    """netd's end of the stream. Pins are made at once, unless `pins_by_itself` is false."""

    def __init__(self, call):
        self.call = call
        self.pins_by_itself = True
        self.pins = asyncio.Queue()
        self.denials = asyncio.Queue()
        self.made = []
        self._reading = asyncio.create_task(self._read())

    async def say(self, **what):
        """Say one thing."""
        await self.call.write(pb.DriveRequest(**what))

    async def network(self, name="default", *, listen, upstream):
        """Say a network."""
        network = pb.ServedNetwork(name=name, listen=listen, upstream=upstream)
        await self.say(network=network)

    async def guest(self, vm_id, address, *, names=(), network="default", **others):
        """Say a guest; `names` are patterns, and their places are the slots."""
        allowed = [pb.AllowedName(pattern=each, slot=slot) for slot, each in enumerate(names)]
        addresses = [address] if isinstance(address, str) else address
        guest = pb.ServedGuest(
            vm_id=vm_id, addresses=addresses, network=network, names=allowed, **others
        )
        await self.say(guest=guest)

    async def pin(self):
        """Return the next pin that is asked for."""
        return await asyncio.wait_for(self.pins.get(), SECONDS)

    async def denial(self):
        """Return the next denial."""
        return await asyncio.wait_for(self.denials.get(), SECONDS)

    async def status(self):
        """Return how the stream ended."""
        await asyncio.wait_for(asyncio.wait([self._reading]), SECONDS)
        return await self.call.code()

    async def close(self):
        """Go away without a word, as a netd that is killed."""
        self.call.cancel()
        await asyncio.wait([self._reading])

    async def _read(self):
        with contextlib.suppress(asyncio.CancelledError, Exception):
            async for response in self.call:
                if response.WhichOneof("say") == "denial":
                    self.denials.put_nowait(response.denial)
                    continue
                self.made.append(response.pin)
                if self.pins_by_itself:
                    await self.say(pinned=response.pin.number)
                else:
                    self.pins.put_nowait(response.pin)


@dataclass
class Resolver:
    """A resolver process: where it listens, and its stub."""

    process: asyncio.subprocess.Process
    stub: resolver_pb2_grpc.ResolverServiceStub
    port: int
    drivers: list = field(default_factory=list)

    def drive(self):
        """Begin a stream."""
        netd = Netd(self.stub.Drive())
        self.drivers.append(netd)
        return netd


@asynccontextmanager
async def resolving(directory, port):
    """Run a resolver, from when it is ready to the end of the block."""
    config = f'port = {port}\n[server]\nruntime_dir = "{directory}"\n'
    (directory / "dns.toml").write_text(config)
    with Notifications(directory / "notify") as notifications:
        with (directory / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "nexus_dns", "--config", directory / "dns.toml"),
                env=os.environ | {"NOTIFY_SOCKET": str(notifications.path)},
                stderr=log,
            )
        try:
            await notifications.until("READY=1", process)
            async with connect(f"unix:{directory}/dns.sock") as channel:
                resolver = Resolver(process, resolver_pb2_grpc.ResolverServiceStub(channel), port)
                yield resolver
                for netd in resolver.drivers:
                    await netd.close()
        finally:
            if process.returncode is None:
                process.terminate()
            assert await asyncio.wait_for(process.wait(), SECONDS) == 0
    assert "defect" not in (directory / "log").read_text()


@dataclass(frozen=True)
class Client:
    """One who asks, from `source`, the resolver on `gateway`."""

    source: str
    gateway: str
    port: int

    async def send(self, wire, seconds=SECONDS):
        """Return the answer to the bytes of a datagram. TimeoutError: there is none."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self.source else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            client.bind((self.source, 0))
            client.connect((self.gateway, self.port))
            await loop.sock_sendall(client, wire)
            return await asyncio.wait_for(loop.sock_recv(client, 65535), seconds)

    async def ask(self, name, kind="A", *, seconds=SECONDS, **options):
        """Return the answer to a query by UDP."""
        query = dns.message.make_query(name, kind, **options)
        return self._checked(query, await self.send(query.to_wire(), seconds))

    async def ask_by_tcp(self, name, kind="A", **options):
        """Return the answer to a query by TCP."""
        query = dns.message.make_query(name, kind, **options)
        async with self.connected() as (reader, writer):
            writer.write(query.to_wire(prepend_length=True))
            return self._checked(query, await receive(reader))

    @asynccontextmanager
    async def connected(self):
        """Give a TCP connection for the time of the block."""
        reader, writer = await asyncio.open_connection(
            self.gateway, self.port, local_addr=(self.source, 0)
        )
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _checked(self, query, wire):
        answer = dns.message.from_wire(wire)
        assert query.is_response(answer)
        return answer


async def receive(reader):
    """Return the next message of a TCP connection."""
    async with asyncio.timeout(SECONDS):
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)


async def ended(reader):
    """Return once the other side has ended a TCP connection, without another byte."""
    async with asyncio.timeout(SECONDS):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""


def values(answer, kind=None):
    """Return the records of an answer as text, sorted, or those of one type."""
    return sorted(
        each.to_text()
        for rrset in answer.answer
        if kind is None or rrset.rdtype == dns.rdatatype.from_text(kind)
        for each in rrset
    )


def code(answer):
    """Return an answer's code as text."""
    return dns.rcode.to_text(answer.rcode())


async def until(condition):
    """Return once the coroutine function `condition` returns true: none can be awaited there."""
    async with asyncio.timeout(SECONDS):
        while not await condition():  # noqa: ASYNC110  # what is waited for is another process's
            await asyncio.sleep(0.02)


async def until_heard(client, name="browser.nexus", expected="NOERROR"):
    """Return once a name is answered so; until then nobody may even listen."""

    async def heard():
        with contextlib.suppress(TimeoutError, ConnectionRefusedError):
            return code(await client.ask(name, seconds=0.2)) == expected

    await until(heard)
