from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from netd_world import ULA, attach, other

from nexus_netd.kernel import Bridge, Changed, Matter, Tap
from nexus_netd.model import EgressRule, Mode, Policy
from nexus_rpc.errors import FailedPrecondition
from nexus_rpc.ids import new_vm_id

MADE = [
    "tables nexus written",
    "bridge nexbr0 made",
    "routes of subnets set: 172.16.0.0/12",
    "IPv4 forwarding turned on",
]
GATEWAY = frozenset({IPv4Address("172.16.0.1")})


async def test_ensure_makes_everything_once(netd, kernel, agree):
    assert await netd.ensure() == MADE
    assert kernel.links["nexbr0"] == Bridge("nexbr0", "default", "02:fc:ac:10:00:01", 1500, GATEWAY)
    await agree(netd)
    kernel.calls.clear()
    assert await netd.ensure() == []
    assert not [call for call in kernel.calls if call.startswith(("put", "remove", "new", "ch"))]


@pytest.mark.parametrize(
    ("harm", "repair"),
    [
        (lambda k: k.links.clear(), "bridge nexbr0 made"),
        (lambda k: k.links.update(nexbr0=replace(k.links["nexbr0"], up=False)), "bridge nexbr0 re"),
        (lambda k: k.links.update(nexbr0=replace(k.links["nexbr0"], mtu=9000)), "bridge nexbr0 re"),
        (lambda k: setattr(k, "unreachable", frozenset()), "routes of subnets"),
        (lambda k: setattr(k, "versions", set()), "IPv4 forwarding"),
        (lambda k: k.flush(), "tables nexus written"),
        (lambda k: setattr(k, "intact", False), "tables nexus written"),
        (lambda k: k.elements.popitem(), "rules repaired: 0 taken out, 1 put in"),
    ],
)
async def test_ensure_repairs_what_is_broken(netd, kernel, agree, harm, repair):
    await attach(netd)
    harm(kernel)
    (done,) = [line for line in await netd.ensure() if line.startswith(repair)]
    assert done
    assert await netd.ensure() == []
    await agree(netd)


async def test_attach_makes_the_network_first(netd, kernel, agree):
    await attach(netd)
    await agree(netd)
    kernel.flush()
    await attach(netd)  # it is told that there is no table, and writes it
    await agree(netd)


async def test_a_bridge_that_was_removed_comes_back_with_all_ports(netd, kernel, agree):
    for _ in range(3):
        await attach(netd)
    await kernel.remove_bridge("nexbr0")
    await attach(netd)
    await agree(netd)


async def test_a_failure_at_any_call_of_a_repair_is_made_up_for_by_the_next(start, kernel, agree):
    failures = 0
    for number in range(1, 100):
        netd = await start()
        for _ in range(2):
            await attach(netd)
        await kernel.remove_bridge("nexbr0")
        kernel.flush()
        if not await kernel.fails_at(number, netd.ensure()):
            break
        failures += 1
        await netd.ensure()
        await agree(netd)
        await netd.cleanup(force=False)
    assert failures > 10


@pytest.mark.parametrize("taken", ["172.17.0.0/16", "172.16.5.5/32", "172.0.0.0/8"])
async def test_a_subnet_in_use_is_refused_and_nothing_is_touched(netd, kernel, taken):
    kernel.foreign_routes.append((IPv4Network(taken), "docker0"))
    with pytest.raises(FailedPrecondition, match=f"overlaps {taken} on docker0") as caught:
        await attach(netd)
    assert caught.value.reason == "SUBNET_IN_USE"
    assert (kernel.links, kernel.versions, kernel.unreachable) == ({}, set(), frozenset())
    assert not kernel.elements
    assert netd.view().ports == {}
    kernel.foreign_routes.clear()
    await attach(netd)


async def test_one_unfit_network_does_not_stop_another(netd, kernel, agree):
    await netd.create_network(other())
    await attach(netd, network="blue")
    await kernel.remove_bridge("nexbr0")
    kernel.foreign_routes.append((IPv4Network("172.17.0.0/16"), "docker0"))
    with pytest.raises(FailedPrecondition, match="docker0"):
        await netd.ensure()
    await agree(netd)
    await attach(netd, network="blue")
    with pytest.raises(FailedPrecondition, match="docker0"):
        await attach(netd)
    await agree(netd)


async def test_a_network_that_stands_goes_on_beside_a_route_that_came_later(netd, kernel, agree):
    await attach(netd)
    kernel.foreign_routes.append((IPv4Network("172.17.0.0/16"), "docker0"))
    assert await netd.ensure() == []
    await attach(netd)
    await agree(netd)


async def test_the_network_of_an_older_netd_is_taken_over(netd, kernel, agree):
    kernel.links["nexbr0"] = Bridge("nexbr0", None, "02:fc:ac:10:00:01", 1500, GATEWAY)
    assert "bridge nexbr0 repaired" in await netd.ensure()
    await agree(netd)


@pytest.mark.parametrize(
    ("foreign", "named"),
    [
        (Bridge("nexbr0", None, "", 1500, frozenset(), kind="dummy"), "kind 'dummy'"),
        (Bridge("nexbr0", "blue", "", 1500, frozenset()), "network 'blue'"),
        (Bridge("nexbr0", None, "", 1500, frozenset({IPv4Address("10.0.0.1")})), "10.0.0.1"),
    ],
)
async def test_a_foreign_link_of_that_name_is_left_alone(netd, kernel, foreign, named):
    kernel.links["nexbr0"] = foreign
    with pytest.raises(FailedPrecondition, match=named) as caught:
        await netd.ensure()
    assert caught.value.reason == "BRIDGE_FOREIGN"
    kernel.links["nexbr0"] = replace(foreign, network=None)
    await netd.cleanup(force=False)
    assert kernel.links == {"nexbr0": replace(foreign, network=None)}


async def test_bridges_that_no_network_has_are_removed(netd, kernel, agree):
    kernel.links["nexbr7"] = Bridge("nexbr7", "green", "", 1500, frozenset())
    kernel.links["virbr0"] = Bridge("virbr0", None, "", 1500, frozenset())
    assert "bridge nexbr7 removed: no network needs it" in await netd.ensure()
    assert kernel.links.keys() == {"nexbr0", "virbr0"}
    await agree(netd)


async def test_ipv6_is_not_forwarded_where_the_host_would_lose_its_way_out(start, kernel, agree):
    netd = await start(ipv6=ULA)
    kernel.advertised = ["eth0"]
    with pytest.raises(FailedPrecondition, match=r"eth0\.accept_ra=2") as caught:
        await attach(netd)
    assert caught.value.reason == "IPV6_BY_RA"
    assert kernel.versions == set()
    kernel.versions.add(6)  # somebody has decided already
    await attach(netd)
    await agree(netd)


async def test_start_survives_a_host_that_is_not_fit(netd, kernel, caplog):
    kernel.foreign_routes.append((IPv4Network("172.16.0.0/12"), "eth9"))
    await netd.start()
    assert "overlaps 172.16.0.0/12 on eth9" in caplog.text
    kernel.foreign_routes.clear()
    await attach(netd)


async def test_pins_come_back_with_the_tables(netd, kernel, agree):
    vm = new_vm_id()
    await attach(netd, vm, policy=Policy(Mode.RULES, (EgressRule(domain="pypi.org"),)))
    await netd.pin(vm, "pypi.org", [IPv4Address("151.101.0.223")], 60.0, [0])
    kernel.flush()
    await netd.ensure()
    assert len(kernel.pinned) == 1
    await agree(netd)


async def test_cleanup_says_what_it_removed_and_attach_brings_it_back(netd, kernel, agree):
    vms = [(await attach(netd)).vm_id for _ in range(3)]
    removed = await netd.cleanup(force=False)
    assert removed.taps == ["nexus0", "nexus1", "nexus2"]
    assert (removed.bridges, removed.leases, removed.ways) == (["nexbr0"], 3, 0)
    assert list(removed.tables) == ["bridge nexus", "inet nexus"]
    assert kernel.empty
    assert netd.view().ports == {}
    again = await netd.cleanup(force=False)
    assert (again.taps, again.bridges, list(again.tables), again.leases) == ([], [], [], 0)
    await attach(netd, vms[0])
    await agree(netd)


async def test_cleanup_takes_no_network_from_a_vm_that_runs(netd, kernel, agree):
    vm = new_vm_id()
    await attach(netd, vm)
    await netd.heard(vm, "web", live=True)
    with pytest.raises(FailedPrecondition, match=vm) as caught:
        await netd.cleanup(force=False)
    assert caught.value.reason == "VMS_RUNNING"
    await agree(netd)
    await netd.heard(vm, "web", live=False)
    assert (await netd.cleanup(force=False)).leases == 1
    await attach(netd, vm)
    await netd.heard(vm, "web", live=True)
    assert (await netd.cleanup(force=True)).leases == 1


async def test_a_bridge_is_put_up_before_what_is_on_it(netd, kernel, agree):
    await attach(netd)
    kernel.links["nexbr0"] = replace(kernel.links["nexbr0"], up=False)
    kernel.routed.clear()
    kernel.calls.clear()
    # Linux tells of the routes first, which went because their bridge is down.
    told = [Changed(Matter.ROUTES, "172.16.0.2"), Changed(Matter.LINK, "nexbr0")]
    await netd.repair.some(told)
    changes = [call for call in kernel.calls if call in ("put_bridge", "plug_tap", "route")]
    assert changes == ["put_bridge", "route"]
    await agree(netd)


async def test_a_tap_of_a_release_before_is_given_over(netd, kernel, agree):
    port = await attach(netd)
    kernel.present[port.tap] = replace(kernel.present[port.tap], owner=999)
    kernel.held.add(port.tap)
    assert await netd.ensure() == []  # a VM that was started then has it open
    assert kernel.present[port.tap].owner == 999
    kernel.held.clear()
    kernel.calls.clear()
    await netd.repair.some([Changed(Matter.LINK, port.tap)])
    assert "plug_tap" not in kernel.calls
    assert await netd.ensure() == []
    await agree(netd)


async def test_what_else_a_held_tap_lacks_is_repaired(netd, kernel):
    port = await attach(netd)
    kernel.present[port.tap] = replace(kernel.present[port.tap], owner=None, up=False)
    kernel.held.add(port.tap)
    assert await netd.ensure() == [f"TAP {port.tap} repaired"]
    assert kernel.present[port.tap] == replace(Tap.of(port), owner=None, addresses=frozenset())
    assert await netd.ensure() == []


async def test_attach_gives_a_tap_over(netd, kernel, agree):
    port = await attach(netd)
    kernel.present[port.tap] = replace(kernel.present[port.tap], owner=999)
    assert await attach(netd, port.vm_id) == port
    await agree(netd)


async def test_many_taps_are_looked_at_together(netd, kernel, agree):
    ports = [await attach(netd) for _ in range(40)]
    kernel.routed.clear()
    kernel.calls.clear()
    await netd.repair.some([Changed(Matter.LINK, port.tap) for port in ports])
    assert kernel.calls.count("taps") == 1
    assert kernel.calls.count("tap") == 0
    await agree(netd)
