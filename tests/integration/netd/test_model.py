"""The rules decide as the plain model does, and as ExplainFlow says: policies and flows at random.

Each policy is set on a real netd, and each flow is a real first packet from a guest to a host
outside, which answers whatever reaches it.
"""

import asyncio
import itertools
from collections import Counter
from contextlib import AsyncExitStack, suppress
from ipaddress import ip_address

import pytest
import told
from guests import Cables, Stack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netd_process import configure, running
from pinning import pinning_resolver
from tries import Answering, arrives

from nexus.netd.v1 import netd_pb2 as pb
from nexus_netd.rules import policy
from nexus_rpc.ids import new_vm_id

UPLINK4, UPLINK6 = "192.0.2.1", "2001:db8:f::1"
PUBLIC = ("192.31.196.7", "192.175.48.9", "2620:4f:8000::7", "2001:4:112::9")
"""Of AS112 (RFC 7534, RFC 7535): addresses for documentation are none that netd pins."""
PRIVATE = ("10.9.8.7", "192.168.4.4", "fd11:2233::7")
METADATA = ("169.254.169.254", "100.100.100.200", "fd00:ec2::254")
ADDRESSES = (*PUBLIC, *PRIVATE, *METADATA)
PORTS = (80, 81, 443, 8_080)
EXAMPLES = 400

PROTOCOLS = {"tcp": pb.PROTOCOL_TCP, "udp": pb.PROTOCOL_UDP, "icmp": pb.PROTOCOL_ICMP}
NUMBERS = {("tcp", 4): 6, ("udp", 4): 17, ("icmp", 4): 1, ("tcp", 6): 6, ("udp", 6): 17}
NUMBERS |= {("icmp", 6): 58}

NETWORKS = (
    *(f"{address}/{32 if '.' in address else 128}" for address in ADDRESSES),
    *("192.31.196.0/24", "192.0.0.0/8", "10.0.0.0/8", "192.168.0.0/16", "0.0.0.0/0"),
    *("169.254.0.0/16", "169.254.169.0/24", "2001::/16", "2620:4f:8000::/48", "fd00::/8", "::/0"),
)
DOMAINS = ("{}.one.test", "*.{}.two.test")


@st.composite
def rules(draw):
    rule = pb.EgressRule(action=pb.ACTION_ALLOW, protocol=draw(st.sampled_from([0, 0, 1, 1, 2, 3])))
    kind = draw(st.sampled_from(["cidr", "cidr", "domain", "any"]))
    if kind == "cidr":
        rule.cidr = draw(st.sampled_from(NETWORKS))
    if kind == "domain":
        rule.domain = draw(st.sampled_from(DOMAINS))
    else:
        rule.action = draw(st.sampled_from([pb.ACTION_ALLOW, pb.ACTION_DENY]))
    if rule.protocol in (pb.PROTOCOL_TCP, pb.PROTOCOL_UDP) and draw(st.booleans()):
        rule.first_port = draw(st.sampled_from([1, 80, 81, 443, 444]))
        last = draw(st.sampled_from([0, 80, 443, 8_080, 65_535]))
        rule.last_port = last if last >= rule.first_port else 0
    return rule


POLICIES = st.one_of(
    st.sampled_from([pb.EGRESS_MODE_OPEN, pb.EGRESS_MODE_NONE]).map(
        lambda mode: pb.EgressPolicy(mode=mode)
    ),
    *[
        st.lists(rules(), max_size=6).map(
            lambda rules: pb.EgressPolicy(mode=pb.EGRESS_MODE_RULES, rules=rules)
        )
    ]
    * 5,
)
PINS = st.lists(st.tuples(st.sampled_from(DOMAINS), st.sampled_from(PUBLIC)), max_size=4)


@st.composite
def cases(draw):
    """A policy, what the resolver has answered, and flows, most of them to what it has answered."""
    pins = draw(PINS)
    places = [*ADDRESSES, *[address for _, address in pins] * 5]
    flow = st.tuples(st.sampled_from(places), st.sampled_from([*PROTOCOLS]), st.sampled_from(PORTS))
    return draw(POLICIES), pins, draw(st.lists(flow, min_size=3, max_size=5, unique=True))


class World:
    """A netd, a guest of it, a host outside that answers, and a resolver that pins."""

    def __init__(self, stub, guest, resolver):
        self._stub = stub
        self._guest = guest
        self._vm_id = guest.port.vm_id
        self._resolver = resolver
        self._turns = itertools.count()
        self.tried = Counter()

    async def check(self, message, pins, flows):
        """Set the policy, let the resolver pin, and try the flows."""
        # Names of this turn alone: what was pinned before is no part of it.
        label = f"turn{next(self._turns)}"
        wanted = pb.EgressPolicy()
        wanted.CopyFrom(message)
        for rule in wanted.rules:
            if rule.domain:
                rule.domain = rule.domain.format(label)
        request = pb.SetPolicyRequest(vm_id=self._vm_id, policy=wanted)
        port = (await self._stub.SetPolicy(request)).port
        assert told.policy(port.policy) == told.policy(wanted)
        pinned = set()
        for template, address in pins:
            pattern = template.format(label)
            slots = [n for n, rule in enumerate(wanted.rules) if rule.domain == pattern]
            if slots:
                name = pattern.replace("*", "deep.down")
                assert await self._resolver.pin(self._vm_id, name, [address], slots)
                pinned |= {(address, slot) for slot in slots}
        for flow in flows:
            await self._try(told.policy(wanted), flow, pinned)

    async def _try(self, plain, flow, pinned):
        address, protocol, port = flow
        destination = ip_address(address)
        port = 0 if protocol == "icmp" else port
        decision = policy.decide(
            plain,
            destination,
            NUMBERS[protocol, destination.version],
            port,
            lambda slot: (address, slot) in pinned,
        )
        explained = await self._stub.ExplainFlow(
            pb.ExplainFlowRequest(
                vm_id=self._vm_id, destination=address, port=port, protocol=PROTOCOLS[protocol]
            )
        )
        arrived = await arrives(self._guest, protocol, address, port)
        assert (explained.allowed, explained.rule) == (decision.allowed, decision.rule)
        assert arrived == decision.allowed, f"{flow}: {explained.rule}, {plain}"
        self.tried["arrived" if arrived else "was refused"] += 1
        if decision.slot is not None and plain.rules[decision.slot].domain:
            self.tried["arrived by a name"] += 1


async def build(stack, namespace, directory):
    """Put the world together, to be closed with `stack`."""
    here = Stack(namespace)
    # What a guest is refused is told by ICMP, as often as it asks here.
    for name in ("ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"):
        here.set(name, 0)
    with suppress(OSError):
        here.set("ipv4/icmp_msgs_per_sec", 100_000)  # of the namespace since Linux 6.11
    cables = stack.enter_context(Cables())
    outside = cables.host(f"{UPLINK4}/24", "192.0.2.2/24")
    outside.ip("addr add 2001:db8:f::2/64 dev eth0 nodad")
    here.ip(f"addr add {UPLINK6}/64 dev out{outside.descriptor} nodad")
    here.ip("route add default via 192.0.2.2")
    here.ip("-6 route add default via 2001:db8:f::2")
    for address in ADDRESSES:
        nodad = "nodad" if ":" in address else ""
        outside.ip(f"addr add {address} dev lo {nodad}")
    stack.enter_context(Answering(outside, ADDRESSES, PORTS))
    resolver = await stack.enter_async_context(pinning_resolver(directory / "dns.sock"))
    configure(directory, resolver=f"unix:{directory}/dns.sock", ipv6_subnet="fd6e:6578:7573::/64")
    netd = await stack.enter_async_context(running(directory))
    request = pb.AttachPortRequest(vm_id=new_vm_id())
    port = (await netd.stub.AttachPort(request)).port
    return World(netd.stub, cables.guest(port), resolver)


@pytest.mark.timeout(180)
def test_rules_decide_as_the_model_does(namespace, short_path):
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            world = runner.run(build(stack, namespace, short_path))

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=[HealthCheck.too_slow],
            )
            @given(cases())
            def decides_alike(case):
                runner.run(world.check(*case))

            decides_alike()
        finally:
            runner.run(stack.aclose())
    print(f"flows tried: {dict(world.tried)}")
    assert world.tried["arrived"] > EXAMPLES / 2
    assert world.tried["was refused"] > EXAMPLES / 2
    assert world.tried["arrived by a name"] > EXAMPLES / 20
