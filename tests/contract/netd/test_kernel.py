"""What netd relies on in a kernel. Each case runs against the fake and against Linux."""

import errno
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

import pytest

from nexus_netd import firewall
from nexus_netd.kernel import Bridge, KernelError, Plug, Tap
from nexus_rpc.ids import new_vm_id

NAME = "nexbr0"
BRIDGE = Bridge(NAME, "02:fc:0a:09:00:01", 1280)
GATEWAY = IPv4Interface("10.9.0.1/16")
OWNER = 4242


def plug(host=2):
    address = IPv4Interface(f"10.9.0.{host}/16")
    return Plug(new_vm_id(), NAME, address, f"02:fc:0a:09:00:{host:02x}", 1280)


async def attach(kernel, wanted, name=None):
    async with kernel.new_tap(wanted, OWNER, name) as tap:
        await tap.keep()
    return tap.name


async def test_bridge_is_made_repaired_and_removed(kernel):
    assert await kernel.bridge(NAME) is None
    assert await kernel.remove_bridge(NAME) is False
    for want in (BRIDGE, BRIDGE, replace(BRIDGE, mtu=1500, mac="02:fc:0a:09:00:02")):
        await kernel.put_bridge(want)
        assert await kernel.bridge(NAME) == want
    assert await kernel.remove_bridge(NAME) is True
    assert await kernel.bridge(NAME) is None


async def test_the_gateway_is_the_only_address(kernel):
    assert list(await kernel.addresses(NAME)) == []
    with pytest.raises(KernelError):
        await kernel.put_address(NAME, GATEWAY)
    await kernel.put_bridge(BRIDGE)
    for address in (GATEWAY, GATEWAY, IPv4Interface("10.9.0.1/24"), IPv4Interface("10.9.0.9/24")):
        await kernel.put_address(NAME, address)
        assert list(await kernel.addresses(NAME)) == [address]


async def test_our_own_address_is_no_overlap(kernel):
    await kernel.put_bridge(BRIDGE)
    await kernel.put_address(NAME, GATEWAY)
    assert list(await kernel.overlaps(GATEWAY.network, NAME)) == []


async def test_forwarding(kernel):
    assert await kernel.forwarding() is False
    await kernel.put_forwarding()
    assert await kernel.forwarding() is True


async def test_table_is_replaced_as_a_whole_and_read_back(kernel):
    assert await kernel.table() is None
    assert await kernel.remove_table() is False
    for subnet in ("10.9.0.0/16", "10.9.0.0/16", "10.8.0.0/13"):
        want = firewall.table(NAME, IPv4Network(subnet))
        await kernel.put_table(want)
        assert await kernel.table() == want
    assert await kernel.remove_table() is True
    assert await kernel.table() is None


async def test_the_stamp_changes_with_bridge_and_rules_only(kernel):
    assert await kernel.stamp(NAME) is None
    await kernel.put_bridge(BRIDGE)
    first = await kernel.stamp(NAME)
    await attach(kernel, plug())
    assert await kernel.stamp(NAME) == first
    await kernel.put_table(firewall.table(NAME, GATEWAY.network))
    second = await kernel.stamp(NAME)
    assert second != first
    await kernel.remove_bridge(NAME)
    await kernel.put_bridge(BRIDGE)
    assert await kernel.stamp(NAME) not in (first, second)


async def test_a_tap_that_is_kept_stays(kernel):
    await kernel.put_bridge(BRIDGE)
    wanted = plug()
    async with kernel.new_tap(wanted, OWNER) as tap:
        assert tap.name == "nexus0"
        assert await kernel.tap("nexus0") == wanted.tap("nexus0")
        await tap.keep()
    assert await kernel.tap("nexus0") == wanted.tap("nexus0")
    assert list(await kernel.taps(NAME)) == [wanted.tap("nexus0")]


@pytest.mark.parametrize("keep", [False, True])
async def test_a_tap_whose_block_fails_is_gone(kernel, keep):
    async def fail():
        async with kernel.new_tap(plug(), OWNER) as tap:
            if keep:
                await tap.keep()
            raise ZeroDivisionError

    await kernel.put_bridge(BRIDGE)
    with pytest.raises(ZeroDivisionError):
        await fail()
    assert list(await kernel.taps(NAME)) == []
    assert await attach(kernel, plug()) == "nexus0"


async def test_names_are_given_in_turn_or_taken_as_asked(kernel):
    await kernel.put_bridge(BRIDGE)
    assert await attach(kernel, plug(2), "nexus1") == "nexus1"
    assert [await attach(kernel, plug(host)) for host in (3, 4)] == ["nexus0", "nexus2"]
    with pytest.raises(KernelError) as caught:
        await attach(kernel, plug(5), "nexus1")
    assert caught.value.errno == errno.EBUSY
    assert len(await kernel.taps(NAME)) == 3


async def test_without_a_bridge_there_is_no_tap(kernel):
    with pytest.raises(KernelError, match="nexbr0"):
        await attach(kernel, plug())
    assert list(await kernel.taps(NAME)) == []


async def test_taps_outlive_the_bridge_and_are_plugged_in_again(kernel):
    await kernel.put_bridge(BRIDGE)
    wanted = plug()
    await attach(kernel, wanted)
    await kernel.remove_bridge(NAME)
    (left,) = await kernel.taps(NAME)
    assert (left.vm_id, left.bridge, left.isolated) == (wanted.vm_id, None, False)
    await kernel.put_bridge(BRIDGE)
    for _ in range(2):
        await kernel.plug_tap("nexus0", wanted)
        assert await kernel.tap("nexus0") == wanted.tap("nexus0")


async def test_remove_looks_at_the_mark(kernel):
    await kernel.put_bridge(BRIDGE)
    wanted = plug()
    await attach(kernel, wanted)
    other = Tap("nexus0", new_vm_id(), NAME, 1280)
    assert await kernel.remove_tap(other) is False
    assert await kernel.remove_tap(wanted.tap("nexus0")) is True
    assert await kernel.remove_tap(wanted.tap("nexus0")) is False
    assert await kernel.tap("nexus0") is None
    for _ in range(2):
        await kernel.unpin(NAME, wanted.address)
