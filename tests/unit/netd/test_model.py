"""All operations in any order, failing and killed at any call: store and kernel agree after."""

import asyncio
import random
import tempfile
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from fake_kernel import FakeKernel, Killed
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from netd_world import ULA, MortalDatabase, attach, check_agreement, default, other, over, stored

from nexus_netd.model import EgressRule, Limits, Link, Mode, Policy, Protocol, Publication
from nexus_netd.records.schema import MIGRATIONS
from nexus_netd.subnet import Subnet
from nexus_rpc.database import Database
from nexus_rpc.errors import NexusError
from nexus_rpc.ids import new_vm_id

VMS = [new_vm_id() for _ in range(5)]
NETWORKS = ["default", "blue", "green"]
SUBNETS = ["172.16.0.0/12", "10.1.0.0/24", "10.2.0.0/28", "10.3.0.0/29", "10.4.0.0/24"]
POLICIES = [
    None,
    Policy(),
    Policy(Mode.NONE),
    Policy(Mode.RULES, (EgressRule(domain="pypi.org"),)),
    Policy(
        Mode.RULES, (EgressRule(cidr=IPv4Network("192.0.2.0/24")), EgressRule(domain="pypi.org"))
    ),
]
LOOPBACK = IPv4Address("127.0.0.1")

vms, policies = st.sampled_from(VMS), st.sampled_from(POLICIES)
pairs = st.lists(vms, min_size=2, max_size=2, unique=True)
links = st.builds(
    lambda pair, way: Link(*pair, *way),
    pairs,
    st.sampled_from([(), (Protocol.ICMP,), (Protocol.TCP, (80,)), (Protocol.TCP, (80, 443))]),
)
deaths = st.integers(1, 40)


class Host:
    """A store and a kernel, and a netd that lives and dies over them."""

    def __init__(self):
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.database = self.run(Database.open(Path(self.directory.name) / "netd.db", MIGRATIONS))
        self.kernel = FakeKernel()
        self.suspected = []
        self.start()

    def run(self, work):
        return self.runner.run(work)

    def start(self):
        async def start():
            database = MortalDatabase(self.database, self.kernel)
            netd = await over(self.kernel, database, default(ipv6=ULA))
            netd.state.on_suspicion(self.suspected.append)
            await netd.start()
            return netd

        self.netd = self.run(start())

    def do(self, operation):
        """Carry an operation out; what is refused must change nothing."""
        before = stored(self.netd)
        self.kernel.calls.clear()
        try:
            self.run(operation(self.netd))
        except NexusError:
            self.kernel.fail_at = 0
            assert stored(self.netd) == before
        except Killed:
            self.kernel.die_with_process()
            self.start()
        self.kernel.fail_at = self.kernel.kill_at = 0

    def agree(self):
        if not self.netd.state.wanted:
            assert self.kernel.empty
            return
        if self.suspected:  # the guard would look
            self.suspected.clear()
            with suppress(NexusError):
                self.run(self.netd.ensure())
        check_agreement(self.netd, self.kernel)

    def close(self):
        self.run(self.database.close())
        self.runner.close()
        self.directory.cleanup()


OPERATIONS = {
    "attach": st.builds(
        lambda vm, network, policy: lambda netd: attach(netd, vm, network=network, policy=policy),
        vms,
        st.sampled_from(NETWORKS),
        policies,
    ),
    "detach": st.builds(lambda vm: lambda netd: netd.detach(vm), vms),
    "policy": st.builds(lambda vm, policy: lambda netd: netd.set_policy(vm, policy), vms, policies),
    "limits": st.builds(
        lambda vm, number: lambda netd: netd.set_limits(vm, Limits(egress_bytes=number)),
        vms,
        st.sampled_from([0, 1_000, 2_000]),
    ),
    "pin": st.builds(
        lambda vm, slot, last: (
            lambda netd: netd.pin(
                vm, "pypi.org", [IPv4Address(f"151.101.0.{last}")], 3_600.0, [slot]
            )
        ),
        vms,
        st.integers(0, 1),
        st.integers(0, 3),
    ),
    "link": st.builds(lambda link: lambda netd: netd.link(link), links),
    "unlink": st.builds(lambda link: lambda netd: netd.unlink(link), links),
    "publish": st.builds(
        lambda vm, ports: lambda netd: netd.publish(Publication(vm, LOOPBACK, *ports)),
        vms,
        st.tuples(st.sampled_from([8000, 8001]), st.sampled_from([80, 81])),
    ),
    "unpublish": st.builds(
        lambda port: lambda netd: netd.unpublish(Protocol.TCP, LOOPBACK, port),
        st.sampled_from([8000, 8001]),
    ),
    "create": st.builds(
        lambda name, subnet: lambda netd: netd.create_network(other(name, subnet)),
        st.sampled_from(NETWORKS[1:]),
        st.sampled_from(SUBNETS),
    ),
    "update": st.builds(
        lambda name, policy: (
            lambda netd: netd.update_network(
                replace(netd.state.network(name), default_policy=policy or Policy())
            )
        ),
        st.sampled_from(NETWORKS),
        policies,
    ),
    "delete": st.builds(
        lambda name: lambda netd: netd.delete_network(name), st.sampled_from(NETWORKS)
    ),
    "migrate": st.builds(
        lambda name, subnet: lambda netd: netd.migrate_network(name, Subnet.parse(subnet)),
        st.sampled_from(NETWORKS),
        st.sampled_from(SUBNETS),
    ),
    "cleanup": st.just(lambda netd: netd.cleanup(force=True)),
}
operations = st.one_of(*OPERATIONS.values(), OPERATIONS["attach"], OPERATIONS["attach"])


class Operations(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.host = Host()
        # Otherwise most sequences would end before anything is there to be changed.
        for vm in VMS[:3]:
            self.host.do(lambda netd, vm=vm: attach(netd, vm))

    @rule(operation=operations)
    def do(self, operation):
        self.host.do(operation)

    @rule(operation=operations, call=deaths)
    def fail(self, operation, call):
        self.host.kernel.fail_at = call
        self.host.do(operation)

    @rule(operation=operations, call=deaths)
    def kill(self, operation, call):
        self.host.kernel.kill_at = call
        self.host.do(operation)

    @rule()
    def restart(self):
        before = stored(self.host.netd)
        self.host.start()
        assert stored(self.host.netd) == before

    @rule()
    def flush(self):
        if self.host.netd.state.wanted:
            self.host.kernel.flush()
            self.host.run(self.host.netd.ensure())

    @invariant()
    def store_and_kernel_agree(self):
        if hasattr(self, "host"):
            self.host.agree()

    def teardown(self):
        if hasattr(self, "host"):
            self.host.close()


TestOperations = Operations.TestCase
TestOperations.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_500_points_the_next_start_finds_its_way(seed):
    """As above, with plain chance: more points in less time."""
    chance = random.Random(seed)
    host = Host()
    kills = 0
    try:
        while kills < 500:
            operation = _random_operation(chance)
            host.kernel.kill_at = chance.randint(1, 12)
            before = host.netd
            host.do(operation)
            host.agree()
            kills += host.netd is not before
    finally:
        host.close()


def _random_operation(chance):
    vm, peer = chance.sample(VMS, 2)
    name, policy = chance.choice(NETWORKS), chance.choice(POLICIES)
    subnet = chance.choice(SUBNETS)
    host_port, guest_port = chance.choice([8000, 8001]), chance.choice([80, 81])
    link = Link(vm, peer, Protocol.TCP, chance.choice([(80,), (80, 443)]))
    return chance.choice(
        [
            lambda netd: attach(netd, vm, network=name, policy=policy),
            lambda netd: attach(netd, vm),
            lambda netd: attach(netd, peer),
            lambda netd: netd.detach(vm),
            lambda netd: netd.set_policy(vm, policy),
            lambda netd: netd.link(link),
            lambda netd: netd.unlink(link),
            lambda netd: netd.publish(Publication(vm, LOOPBACK, host_port, guest_port)),
            lambda netd: netd.unpublish(Protocol.TCP, LOOPBACK, host_port),
            lambda netd: netd.create_network(other(chance.choice(NETWORKS[1:]), subnet)),
            lambda netd: netd.delete_network(name),
            lambda netd: netd.migrate_network(name, Subnet.parse(subnet)),
            lambda netd: netd.cleanup(force=True),
        ]
    )
