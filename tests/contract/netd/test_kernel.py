"""What netd relies on in a kernel. Each case runs against the fake and against Linux."""

import asyncio
import errno
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from kernel_values import GATEWAY, GATEWAY6, NAME, SUBNETS, attach, bridge, contents, guest, vm

from nexus_netd.kernel import KernelError, Tap
from nexus_netd.model import EgressRule, Mode, Policy
from nexus_netd.rules import elements
from nexus_netd.rules.ruleset import Change
from nexus_rpc.ids import vm_uid


async def until_local(kernel, address):
    """Linux has an IPv6 address at once, and its route from a work queue."""
    async with asyncio.timeout(5):
        while not await kernel.local(address):  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.001)


async def test_a_bridge_is_made_changed_and_removed(kernel):
    assert await kernel.bridge(NAME) is None
    assert await kernel.remove_bridge(NAME) is False
    changed = replace(bridge(), mtu=1500, mac="02:fc:0a:09:00:02", network="other")
    for want in (bridge(), bridge(), changed):
        await kernel.put_bridge(want)
        assert await kernel.bridge(NAME) == want
        assert list(await kernel.bridges()) == [want]
    assert await kernel.remove_bridge(NAME) is True
    assert await kernel.bridge(NAME) is None
    assert list(await kernel.bridges()) == []


async def test_a_bridge_has_exactly_its_addresses(kernel):
    for addresses in (
        {GATEWAY},
        {GATEWAY, GATEWAY6},
        {IPv4Address("10.9.0.9"), GATEWAY6},
        {GATEWAY},
        set(),
    ):
        want = bridge(addresses=addresses)
        await kernel.put_bridge(want)
        assert await kernel.bridge(NAME) == want


async def test_bridges_of_a_network_share_its_gateway(kernel):
    wanted = [bridge(name) for name in (NAME, f"{NAME}-1", f"{NAME}-2")]
    for want in wanted:
        await kernel.put_bridge(want)
    assert sorted(await kernel.bridges(), key=lambda found: found.name) == wanted
    await kernel.remove_bridge(NAME)
    assert sorted(await kernel.bridges(), key=lambda found: found.name) == wanted[1:]
    assert await kernel.local(GATEWAY)
    await until_local(kernel, GATEWAY6)


async def test_subnets_are_unreachable_as_a_whole(kernel):
    assert await kernel.subnets() == frozenset()
    for want in (SUBNETS, SUBNETS[:1], (*SUBNETS, ip_network("10.8.0.0/16")), ()):
        await kernel.put_subnets(want)
        assert await kernel.subnets() == frozenset(want)


async def test_what_is_ours_is_no_overlap(kernel):
    await kernel.put_bridge(bridge())
    await kernel.put_subnets(SUBNETS)
    await attach(kernel, guest())
    assert list(await kernel.overlaps(SUBNETS, [NAME])) == []


async def test_forwarding(kernel):
    assert await kernel.forwarding() == frozenset()
    await kernel.put_forwarding(4)
    assert await kernel.forwarding() == {4}
    await kernel.put_forwarding(6)
    await kernel.put_forwarding(6)
    assert await kernel.forwarding() == {4, 6}
    assert list(await kernel.has_route_by_ra()) == []


async def test_the_host_s_own_addresses(kernel):
    await kernel.put_bridge(bridge())
    await kernel.put_subnets(SUBNETS)
    await attach(kernel, guest())
    assert await kernel.local(GATEWAY)
    await until_local(kernel, GATEWAY6)
    for address in ("10.9.0.2", "10.9.0.3", "192.0.2.1", "fd6e:6578:7573::2", "2001:db8::1"):
        assert not await kernel.local(ip_address(address))


RULES = Policy(Mode.RULES, (EgressRule(cidr=ip_network("192.0.2.0/24")),))


async def test_tables_are_replaced_as_a_whole_and_read_back(kernel):
    assert await kernel.contents() is None
    assert list(await kernel.remove_tables()) == []
    for want in (contents(), contents(), contents(RULES)):
        await kernel.put_contents(want)
        found = await kernel.contents()
        assert found.intact
        assert found.elements | {one.element for one in found.policies} >= want.elements
    assert sorted(await kernel.remove_tables()) == ["bridge nexus", "inet nexus"]
    assert await kernel.contents() is None


async def test_tables_are_changed(kernel):
    await kernel.put_contents(contents())
    before = await kernel.contents()
    added = elements.of_guest(guest(2, "nexus1"))
    await kernel.change(Change(add=added))
    assert (await kernel.contents()).elements == before.elements | set(added)
    for _ in range(2):  # what is gone already is no error
        await kernel.change(Change(remove=added))
        assert await kernel.contents() == before


async def test_pins_live_for_their_time_and_are_not_contents(kernel):
    await kernel.put_contents(contents(RULES))
    before = await kernel.contents()
    ours, address = guest(1).ipv4, ip_address("198.51.100.7")
    pin = elements.of_pin(ours, address, 0, 300.0)
    await kernel.change(Change(add=(pin,)))
    ((key, left),) = (await kernel.pins())[ours].items()
    assert key == (address, 0)
    assert 290 < left <= 300
    assert await kernel.contents() == before
    await kernel.put_contents(contents(RULES), [pin])
    assert list((await kernel.pins())[ours]) == [(address, 0)]


async def test_a_tap_that_is_kept_stays(kernel):
    await kernel.put_bridge(bridge())
    wanted = guest()
    async with kernel.new_tap(wanted) as tap:
        assert tap.name.startswith("nexus")
        assert await kernel.tap(tap.name) == replace(
            Tap.of(wanted, tap.name), addresses=frozenset()
        )
        await tap.keep()
    assert await kernel.tap(tap.name) == Tap.of(wanted, tap.name)
    assert list(await kernel.taps()) == [Tap.of(wanted, tap.name)]


async def test_a_guest_without_ipv6(kernel):
    await kernel.put_bridge(bridge(ipv6=False))
    wanted = guest(ipv6=False)
    name = await attach(kernel, wanted)
    assert await kernel.tap(name) == Tap.of(wanted, name)


@pytest.mark.parametrize("keep", [False, True])
async def test_a_tap_whose_block_fails_is_gone(kernel, keep):
    async def fail():
        async with kernel.new_tap(guest()) as tap:
            if keep:
                await tap.keep()
            raise ZeroDivisionError

    await kernel.put_bridge(bridge())
    with pytest.raises(ZeroDivisionError):
        await fail()
    assert list(await kernel.taps()) == []
    other = guest(vm_id=vm(99))
    name = await attach(kernel, other)  # the addresses are free again
    assert list(await kernel.taps()) == [Tap.of(other, name)]


async def test_a_tap_that_is_not_kept_is_gone_at_the_end(kernel):
    await kernel.put_bridge(bridge())
    async with kernel.new_tap(guest()) as tap:
        pass
    assert await kernel.tap(tap.name) is None


async def test_names_are_as_asked_or_free(kernel):
    await kernel.put_bridge(bridge())
    assert await attach(kernel, guest(1), "nexus1") == "nexus1"
    names = {await attach(kernel, guest(number)) for number in (2, 3, 4)}
    assert len(names) == 3
    assert "nexus1" not in names
    with pytest.raises(KernelError) as caught:
        await attach(kernel, guest(5), "nexus1")
    assert caught.value.errno == errno.EBUSY
    assert len(await kernel.taps()) == 4


async def test_without_a_bridge_there_is_no_tap(kernel):
    with pytest.raises(KernelError, match="nexbr0"):
        await attach(kernel, guest())
    assert list(await kernel.taps()) == []


async def test_taps_outlive_the_bridge_and_are_plugged_in_again(kernel):
    await kernel.put_bridge(bridge())
    wanted = guest(tap=await attach(kernel, guest()))
    await kernel.remove_bridge(NAME)
    (left,) = await kernel.taps()
    assert (left.vm_id, left.bridge, left.isolated, left.mac) == (wanted.vm_id, None, False, None)
    assert left.addresses == frozenset()
    await kernel.put_bridge(bridge())
    for _ in range(2):
        await kernel.plug_tap(wanted)
        assert await kernel.tap(wanted.tap) == Tap.of(wanted)


async def test_a_guest_that_moves_to_other_addresses_keeps_its_tap_and_mac(kernel):
    await kernel.put_bridge(bridge())
    was = guest(tap=await attach(kernel, guest()))
    other = guest(2, await attach(kernel, guest(2)))
    await kernel.put_bridge(bridge(addresses={GATEWAY, GATEWAY6, IPv4Address("10.8.0.1")}))
    now = replace(
        was,
        ipv4=IPv4Address("10.8.0.7"),
        gateway=IPv4Address("10.8.0.1"),
        ipv6=None,
        ipv6_gateway=None,
    )
    await kernel.plug_tap(now)
    assert await kernel.tap(now.tap) == Tap.of(now)
    assert await kernel.tap(other.tap) == Tap.of(other)


async def test_a_tap_that_lost_its_routes_gets_them_back(kernel):
    await kernel.put_bridge(bridge())
    wanted = guest(tap=await attach(kernel, guest()))
    await kernel.unroute(NAME, wanted.addresses)
    have = await kernel.tap(wanted.tap)
    assert replace(have, addresses=frozenset(wanted.addresses)) == Tap.of(wanted)
    assert have.addresses == frozenset()
    for _ in range(2):
        await kernel.route(wanted)
        assert await kernel.tap(wanted.tap) == Tap.of(wanted)


async def test_a_tap_is_given_to_another_vm_s_user(kernel, opened):
    await kernel.put_bridge(bridge())
    name = await attach(kernel, guest())
    other = guest(tap=name, vm_id=vm(99))
    with opened(name):
        assert await kernel.give_tap(other) is False
        assert await kernel.tap(name) == Tap.of(guest(), name)
    assert await kernel.give_tap(other) is True
    given = replace(Tap.of(guest(), name), owner=vm_uid(vm(99)))
    assert await kernel.tap(name) == given
    await kernel.plug_tap(guest(tap=name))
    assert list(await kernel.taps()) == [given]


async def test_what_is_no_tap_is_nobody_s_and_is_not_made(kernel):
    assert await kernel.give_tap(guest(tap="nexus7")) is False
    assert await kernel.tap("nexus7") is None


async def test_a_tap_moves_to_another_bridge(kernel):
    for name in (NAME, f"{NAME}-1"):
        await kernel.put_bridge(bridge(name))
    was = guest(tap=await attach(kernel, guest()))
    now = replace(was, bridge=f"{NAME}-1")
    await kernel.plug_tap(now)
    assert list(await kernel.taps()) == [Tap.of(now)]


async def test_remove_looks_at_the_mark(kernel):
    await kernel.put_bridge(bridge())
    wanted = guest()
    name = await attach(kernel, wanted)
    assert await kernel.remove_tap(replace(Tap.of(wanted, name), vm_id="another")) is False
    assert await kernel.remove_tap(Tap.of(wanted, name)) is True
    assert await kernel.remove_tap(Tap.of(wanted, name)) is False
    assert await kernel.tap(name) is None
    for _ in range(2):
        await kernel.unroute(NAME, wanted.addresses)
    await kernel.unroute("nobody", wanted.addresses)
    again = guest(vm_id=vm(99))
    name = await attach(kernel, again)
    assert list(await kernel.taps()) == [Tap.of(again, name)]


async def test_nothing_went_through_a_new_tap(kernel):
    await kernel.put_bridge(bridge())
    name = await attach(kernel, guest())
    counters = (await kernel.counters())[name]
    assert (counters.sent_bytes, counters.sent_packets) == (0, 0)
    # What the bridge itself says is dropped, as nobody is behind the TAP: between the looks, too.
    alone = await kernel.counters_of(name)
    assert replace(alone, dropped_packets=counters.dropped_packets) == counters
    assert await kernel.counters_of("nexus999") is None
    assert await kernel.denied_of(guest()) == 0


async def test_without_connections_there_are_no_flows(kernel):
    assert list(await kernel.flows([GATEWAY])) == []
    assert list(await kernel.flows([])) == []
    assert await kernel.cut([]) == 0
    assert await kernel.connections() == {}
