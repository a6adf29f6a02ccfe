from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from netd_world import ULA, attach, other, stored

from nexus_netd.kernel import Bridge, Flow, KernelError
from nexus_netd.model import EgressRule, HostPort, Limits, Link, Mode, Policy, Protocol
from nexus_netd.operations.network import MOST
from nexus_netd.subnet import Subnet
from nexus_rpc.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from nexus_rpc.ids import new_vm_id

RULES = Policy(Mode.RULES, (EgressRule(cidr=IPv4Network("192.0.2.0/24")),))


async def test_a_network_is_made_used_and_removed(netd, kernel, agree):
    await netd.ensure()
    spec = await netd.create_network(other(ipv6=ULA, default_policy=RULES))
    await agree(netd)
    assert await netd.create_network(spec) == spec
    guest = await attach(netd, network="blue")
    assert (str(guest.ipv4), guest.policy, guest.bridge) == ("10.1.0.2", RULES, "br-blue")
    await agree(netd)
    with pytest.raises(FailedPrecondition) as caught:
        await netd.delete_network("blue")
    assert caught.value.reason == "NETWORK_IN_USE"
    await netd.detach(guest.vm_id)
    assert await netd.delete_network("blue") is True
    assert kernel.links.keys() == {"nexbr0"}
    await agree(netd)
    assert await netd.delete_network("blue") is False


async def test_networks_outlive_a_restart_and_a_cleanup(start, kernel, agree):
    netd = await start()
    await netd.create_network(other(host_ports=(HostPort(Protocol.TCP, 80),)))
    await attach(netd, network="blue")
    await netd.cleanup(force=True)
    before = stored(netd)
    netd = await start()
    assert stored(netd) == before
    await netd.start()
    await agree(netd)


async def test_a_bridge_is_chosen_that_nobody_has(netd, kernel):
    kernel.links["nexbr2"] = Bridge("nexbr2", None, "", 1500, frozenset())
    made = []
    for number in range(2):
        spec = other(f"n{number}", f"10.{number}.0.0/24")
        made.append((await netd.create_network(replace(spec, bridge=""))).bridge)
    assert made == ["nexbr1", "nexbr3"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "default"}, "NETWORK_EXISTS"),
        ({"bridge": "nexbr0"}, "NETWORK_EXISTS"),
        ({"bridge": "nexbr0-1"}, "NETWORK_EXISTS"),
        ({"subnet": "172.16.0.0/24"}, "SUBNET_OVERLAPS"),
        ({"ipv6": ULA}, "SUBNET_OVERLAPS"),
        ({"subnet": "10.7.0.0/24"}, "SUBNET_IN_USE"),
        ({"bridge": "docker0"}, "BRIDGE_FOREIGN"),
    ],
)
async def test_what_is_another_s_is_refused_and_nothing_is_changed(
    start, kernel, agree, changes, reason
):
    netd = await start(ipv6=ULA)
    await netd.ensure()
    kernel.foreign_routes.append((IPv4Network("10.7.0.0/16"), "wg0"))
    kernel.links["docker0"] = Bridge("docker0", None, "", 1500, frozenset())
    if "subnet" in changes:
        changes = changes | {"subnet": Subnet.parse(changes["subnet"])}
    before = stored(netd)
    with pytest.raises((AlreadyExists, FailedPrecondition)) as caught:
        await netd.create_network(replace(other(), **changes))
    assert caught.value.reason == reason
    assert stored(netd) == before
    await agree(netd)


async def test_there_is_an_end_to_networks(netd):
    for number in range(MOST - 1):
        await netd.create_network(other(f"n{number}", f"10.{number}.0.0/24"))
    with pytest.raises(ResourceExhausted, match="64"):
        await netd.create_network(other())


async def test_default_stays(netd):
    with pytest.raises(FailedPrecondition) as caught:
        await netd.delete_network("default")
    assert caught.value.reason == "NETWORK_PERMANENT"


async def test_an_update_reaches_ports_without_their_own(netd, kernel, agree):
    plain, own = await attach(netd), await attach(netd, policy=Policy(Mode.NONE))
    spec = replace(
        netd.view().networks["default"],
        default_policy=RULES,
        default_limits=Limits(egress_bytes=1_000_000),
        host_ports=(HostPort(Protocol.TCP, 8080),),
    )
    forbidden = Flow(plain.ipv4, IPv4Address("198.51.100.1"), 6, 443, b"1")
    allowed = Flow(plain.ipv4, IPv4Address("192.0.2.1"), 6, 443, b"2")
    kernel.tracked = [forbidden, allowed]
    assert await netd.update_network(spec) == 1
    assert kernel.tracked == [allowed]
    assert netd.view().guests[plain.vm_id].policy == RULES
    assert netd.view().guests[own.vm_id].policy == Policy(Mode.NONE)
    assert netd.view().guests[own.vm_id].limits.egress_bytes == 1_000_000
    await agree(netd)
    await netd.update_network(replace(spec, default_policy=Policy()))
    assert not kernel.chains
    await agree(netd)


async def test_a_network_moves_and_its_ports_keep_what_is_theirs(start, kernel, agree):
    netd = await start()
    guests = [await attach(netd) for _ in range(3)]
    await netd.detach(guests[0].vm_id)
    await netd.link(Link(guests[1].vm_id, guests[2].vm_id))
    kernel.tracked = [Flow(guests[1].ipv4, IPv4Address("192.0.2.1"), 6, 443, b"1")]
    moved = await netd.migrate_network("default", Subnet.parse("10.9.0.0/24"))
    assert [str(one.ipv4) for one in moved] == ["10.9.0.3", "10.9.0.4"]
    assert [one.tap for one in moved] == [one.tap for one in guests[1:]]
    assert [one.mac for one in moved] == [one.mac for one in guests[1:]]
    assert kernel.tracked == []
    await agree(netd)
    # Addresses of before are free for others, whose MACs must be others' too.
    await netd.create_network(other("old", "172.16.0.0/12"))
    late = [await attach(netd, network="old") for _ in range(3)]
    assert len({one.mac for one in [*moved, *late]}) == 5
    await agree(netd)
    netd = await start()  # the settings still say the subnet of before
    assert str(netd.view().guests[moved[0].vm_id].ipv4) == "10.9.0.3"
    await netd.start()
    await agree(netd)


async def test_a_move_to_a_small_subnet_closes_the_gaps(netd, agree):
    guests = [await attach(netd) for _ in range(6)]
    for guest in guests[:4]:
        await netd.detach(guest.vm_id)
    moved = await netd.migrate_network("default", Subnet.parse("10.0.0.0/29"))
    assert [str(one.ipv4) for one in moved] == ["10.0.0.2", "10.0.0.3"]
    assert [str((await attach(netd)).ipv4) for _ in range(3)] == [f"10.0.0.{n}" for n in (4, 5, 6)]
    await agree(netd)
    with pytest.raises(ResourceExhausted) as caught:
        await netd.migrate_network("default", Subnet.parse("10.0.1.0/30"))
    assert caught.value.reason == "SUBNET_FULL"


async def test_moves_that_cannot_be(netd, kernel, agree):
    await attach(netd)
    await netd.create_network(other())
    kernel.foreign_routes.append((IPv4Network("10.7.0.0/16"), "wg0"))
    before = stored(netd)
    for subnet, reason in (("10.1.0.0/16", "SUBNET_OVERLAPS"), ("10.7.0.0/24", "SUBNET_IN_USE")):
        with pytest.raises(FailedPrecondition) as caught:
            await netd.migrate_network("default", Subnet.parse(subnet))
        assert caught.value.reason == reason
    with pytest.raises(NotFound):
        await netd.migrate_network("green", Subnet.parse("10.8.0.0/24"))
    assert stored(netd) == before
    await agree(netd)


OPERATIONS = ["create", "update", "delete", "migrate"]


async def _do(netd, operation):
    match operation:
        case "create":
            await netd.create_network(other("green", "10.5.0.0/24", ipv6=ULA))
        case "update":
            spec = netd.view().networks["default"]
            await netd.update_network(replace(spec, default_policy=RULES))
        case "delete":
            await netd.delete_network("blue")
        case "migrate":
            await netd.migrate_network("default", Subnet.parse("10.9.0.0/24"))


async def _prepare(start):
    netd = await start()
    await netd.start()
    await netd.create_network(other())
    for _ in range(2):
        await attach(netd)
    return netd


async def _restore(netd):
    await netd.cleanup(force=True)
    await netd.delete_network("blue")
    await netd.delete_network("green")
    spec = netd.view().networks["default"]
    await netd.update_network(replace(spec, default_policy=Policy()))
    await netd.migrate_network("default", Subnet.parse("172.16.0.0/12"))


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_failure_at_any_call_changes_nothing(start, kernel, agree, operation):
    failures = 0
    for number in range(1, 200):
        netd = await _prepare(start)
        before = stored(netd)
        if not await kernel.fails_at(number, _do(netd, operation)):
            break
        failures += 1
        assert stored(netd) == before
        await agree(netd)
        await _do(netd, operation)
        await agree(netd)
        await _restore(netd)
    assert failures >= 3


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_killed_at_any_call_the_next_start_finds_its_way(start, kernel, agree, operation):
    kills = 0
    for number in range(1, 200):
        netd = await _prepare(start)
        if not await kernel.kills_at(number, _do(netd, operation)):
            break
        kills += 1
        netd = await start()
        await netd.start()
        await agree(netd)
        await _do(netd, operation)
        await agree(netd)
        await _restore(netd)
    assert kills >= 3


async def test_a_vm_s_name_is_kept_and_told(netd):
    vm = new_vm_id()
    await netd.heard(vm, "web", live=True)
    await attach(netd, vm)
    assert netd.view().ports[vm].vm_name == "web"
    with netd.state.feed.watch(vm) as told:
        await netd.heard(vm, "api", live=True)
        assert (await anext(told)).what == "changed"
    assert netd.view().ports[vm].vm_name == "api"


async def test_connections_opened_during_a_move_are_cut_and_pins_move_back_with_a_failure(
    netd, kernel, agree
):
    named = Policy(Mode.RULES, (EgressRule(domain="pypi.org"),))
    guest = await attach(netd, policy=named)
    await netd.pin(guest.vm_id, "pypi.org", [IPv4Address("151.101.0.223")], 60.0, [0])
    put_bridge, cut = kernel.put_bridge, kernel.cut

    async def opening(want):
        kernel.tracked.append(Flow(guest.ipv4, IPv4Address("192.0.2.1"), 6, 80, b""))
        await put_bridge(want)

    async def failing(flows):
        raise KernelError(None, "no answer")

    kernel.put_bridge, kernel.cut = opening, failing
    with pytest.raises(KernelError):
        await netd.migrate_network("default", Subnet.parse("10.9.0.0/24"))
    assert (await kernel.pins()).keys() == {guest.ipv4}
    await agree(netd)
    kernel.cut = cut
    (moved,) = await netd.migrate_network("default", Subnet.parse("10.9.0.0/24"))
    assert kernel.tracked == []
    assert (await kernel.pins()).keys() == {moved.ipv4}
    await agree(netd)
