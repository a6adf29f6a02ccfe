"""ExplainFlow says what real packets then meet."""

import asyncio
import socket
from contextlib import ExitStack

import grpc
import pytest
from fake_resolver import FakeResolver, serving
from guests import Stack
from netd_process import configure, refused, running

from nexus.netd.v1 import netd_pb2 as pb
from nexus.netd.v1 import resolver_pb2
from nexus_rpc.errors import from_rpc_error
from nexus_rpc.ids import new_vm_id

OUTSIDE, UPLINK = "198.51.100.2", "198.51.100.1"  # TEST-NET-2 (RFC 5737)
OTHER_OUTSIDE = "198.51.100.3"
PORT, CLOSED, HOST_PORT = 7001, 7002, 8080
SECONDS = 15


@pytest.fixture
async def netd(namespace, tmp_path):
    configure(tmp_path, resolver=f"unix:{tmp_path}/dns.sock", host_ports=[f"tcp/{HOST_PORT}"])
    async with running(tmp_path) as netd:
        yield netd


@pytest.fixture
def outside(netd, cables):
    stack = cables.host(f"{UPLINK}/24", f"{OUTSIDE}/24")
    for more in (OTHER_OUTSIDE, "169.254.169.254", "203.0.113.9"):
        stack.ip(f"addr add {more}/32 dev eth0")
    return stack


@pytest.fixture
def routes(namespace, outside):
    """Let this host find all that `outside` has."""
    for address in ("169.254.169.254", "203.0.113.9"):
        Stack(namespace).ip(f"route add {address} via {OUTSIDE}")


async def attach(netd, cables, *rules, mode=pb.EGRESS_MODE_RULES, **port):
    policy = pb.EgressPolicy(mode=mode, rules=rules)
    request = pb.AttachPortRequest(vm_id=new_vm_id(), policy=policy, **port)
    return cables.guest((await netd.stub.AttachPort(request)).port)


async def explain(netd, guest, destination, port=0, protocol=pb.PROTOCOL_TCP):
    request = pb.ExplainFlowRequest(
        vm_id=guest.port.vm_id, destination=destination, port=port, protocol=protocol
    )
    return await netd.stub.ExplainFlow(request)


async def reaches(stack, address, port):
    """Whether TCP connects to somebody."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with stack.socket(family, socket.SOCK_STREAM) as tcp:
        try:
            async with asyncio.timeout(2):
                await loop.sock_connect(tcp, (address, port))
                await loop.sock_recv(tcp, 1024)  # who serves says something first
        except (OSError, TimeoutError):
            return False
    return True


async def test_what_it_says_is_what_packets_meet(netd, cables, outside, routes, namespace):
    sibling = await attach(netd, cables, mode=pb.EGRESS_MODE_OPEN)
    stranger = await attach(netd, cables, mode=pb.EGRESS_MODE_OPEN)
    guest = await attach(
        netd,
        cables,
        pb.EgressRule(action=pb.ACTION_DENY, cidr=f"{OTHER_OUTSIDE}/32"),
        pb.EgressRule(
            cidr="198.51.100.0/24", protocol=pb.PROTOCOL_TCP, first_port=PORT, last_port=PORT
        ),
    )
    await netd.stub.CreateLink(
        pb.CreateLinkRequest(
            link=pb.Link(
                from_vm_id=guest.port.vm_id,
                to_vm_id=sibling.port.vm_id,
                protocol=pb.PROTOCOL_TCP,
                ports=[PORT],
            )
        )
    )
    gateway = guest.port.gateway
    expected = {
        (OUTSIDE, PORT): "rule 1",
        (OUTSIDE, CLOSED): "no rule",
        (OTHER_OUTSIDE, PORT): "rule 0",
        ("203.0.113.9", PORT): "no rule",
        ("169.254.169.254", PORT): "metadata",
        (gateway, HOST_PORT): "host port",
        (gateway, PORT): "host",
        (UPLINK, PORT): "host",
        (UPLINK, HOST_PORT): "host",
        (sibling.address, PORT): "link",
        (sibling.address, CLOSED): "other guest",
        (stranger.address, PORT): "other guest",
        ("172.31.0.9", PORT): "foreign network",
        ("127.0.0.1", PORT): "no address",
        ("2001:db8::1", PORT): "no address",
    }
    here = Stack(namespace)
    async with (
        outside.telling_peers("0.0.0.0", PORT),
        outside.telling_peers("0.0.0.0", CLOSED),
        here.telling_peers("0.0.0.0", PORT),
        here.telling_peers("0.0.0.0", HOST_PORT),
        sibling.telling_peers("0.0.0.0", PORT),
        sibling.telling_peers("0.0.0.0", CLOSED),
        stranger.telling_peers("0.0.0.0", PORT),
    ):
        for (address, port), rule in expected.items():
            told = await explain(netd, guest, address, port)
            assert told.rule == rule, (address, port, told.explanation)
            assert told.allowed == await reaches(guest, address, port), (address, port, rule)
            assert told.explanation.startswith(address)


async def test_ping_and_dns_of_the_gateway(netd, cables):
    guest = await attach(netd, cables, mode=pb.EGRESS_MODE_NONE)
    told = await explain(netd, guest, guest.port.gateway, protocol=pb.PROTOCOL_ICMP)
    assert (told.allowed, told.rule) == (True, "ping")
    assert await guest.ping(guest.port.gateway)
    told = await explain(netd, guest, guest.port.gateway, 53, pb.PROTOCOL_UDP)
    assert (told.allowed, told.rule) == (True, "dns")


async def test_a_name_with_its_pin_refusals_and_connections(netd, cables, outside, tmp_path):
    resolver = FakeResolver()
    guest = await attach(
        netd,
        cables,
        pb.EgressRule(domain="pypi.org", protocol=pb.PROTOCOL_TCP, first_port=PORT),
        pb.EgressRule(cidr=f"{OUTSIDE}/32", protocol=pb.PROTOCOL_UDP, first_port=9),
    )
    told = await explain(netd, guest, "pypi.org", PORT)
    assert (told.allowed, told.rule, len(told.pins)) == (True, "rule 0", 0)
    async with serving(resolver, tmp_path / "dns.sock"):
        await resolver.until_synced()
        pin = resolver_pb2.PinRequest(
            number=1, vm_id=guest.port.vm_id, domain="pypi.org", addresses=[OUTSIDE], ttl=60,
            slots=[0],
        )  # fmt: skip
        resolver.to_say.put_nowait(resolver_pb2.DriveResponse(pin=pin))
        assert (await resolver.next())[0].pinned == 1
    async with outside.telling_peers(OUTSIDE, PORT):
        assert await guest.talk(OUTSIDE, PORT) == UPLINK
        told = await explain(netd, guest, "PyPI.org.", PORT)
        assert (told.allowed, told.rule) == (True, "rule 0")
        assert told.egress_rule.domain == "pypi.org"
        ((name, address),) = [(one.domain, one.address) for one in told.pins]
        assert (name, address) == ("pypi.org", OUTSIDE)
    with pytest.raises(ConnectionRefusedError):
        await guest.talk(OUTSIDE, CLOSED)
    call = netd.stub.WatchDenials(pb.WatchDenialsRequest(last=1, follow=True))
    async with asyncio.timeout(SECONDS):
        await call.read()
    call.cancel()
    told = await explain(netd, guest, OUTSIDE, CLOSED)
    assert (told.allowed, told.rule, told.denied_packets) == (False, "no rule", 1)
    assert "given as pypi.org" in told.explanation


async def until_all_closed(netd, guest):
    """Return once the kernel has passed on the last segments of what was closed."""
    async with asyncio.timeout(SECONDS):
        while (await explain(netd, guest, OUTSIDE, CLOSED)).connections:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_too_many_connections(netd, cables, outside):
    guest = await attach(netd, cables, mode=pb.EGRESS_MODE_OPEN, limits=pb.Limits(connections=2))
    loop = asyncio.get_running_loop()
    with outside.socket(socket.AF_INET, socket.SOCK_STREAM) as server, ExitStack() as held:
        server.bind((OUTSIDE, PORT))
        server.listen()
        for _ in range(2):
            assert (await explain(netd, guest, OUTSIDE, PORT)).allowed
            client = held.enter_context(guest.socket(socket.AF_INET, socket.SOCK_STREAM))
            await loop.sock_connect(client, (OUTSIDE, PORT))
        told = await explain(netd, guest, OUTSIDE, PORT)
        assert (told.allowed, told.rule, told.connections) == (False, "connections", 2)
        assert not await reaches(guest, OUTSIDE, PORT)
    # Closed ones are tracked for a while, and do not count.
    async with outside.telling_peers(OUTSIDE, CLOSED):
        for _ in range(3):
            await until_all_closed(netd, guest)
            assert (await explain(netd, guest, OUTSIDE, CLOSED)).allowed
            assert await reaches(guest, OUTSIDE, CLOSED)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"destination": ""}, "destination"),
        ({"destination": "a..b"}, "destination"),
        ({"destination": "*.pypi.org"}, "destination"),
        ({"destination": "::ffff:1.2.3.4"}, "destination"),
        ({"destination": "fe80::1%eth0"}, "destination"),
        ({"destination": "x" * 70_000}, "destination"),
        ({"port": 0}, "port"),
        ({"port": 65_536}, "port"),
        ({"protocol": pb.PROTOCOL_ICMP}, "port"),
        ({"protocol": 9}, "protocol"),
        ({"vm_id": "?"}, "vm_id"),
    ],
)
async def test_what_cannot_be_meant_is_told(netd, change, field):
    asked = {"vm_id": new_vm_id(), "destination": "pypi.org", "port": 443} | change
    vm_id = asked["vm_id"]
    if field != "vm_id":
        await netd.stub.AttachPort(pb.AttachPortRequest(vm_id=vm_id))
    error = await refused(netd.stub.ExplainFlow(pb.ExplainFlowRequest(**asked)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(error).metadata["field"] == field


async def test_a_vm_without_a_port(netd):
    request = pb.ExplainFlowRequest(vm_id=new_vm_id(), destination="pypi.org", port=443)
    error = from_rpc_error(await refused(netd.stub.ExplainFlow(request)))
    assert error.reason == "PORT_NOT_FOUND"
