from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from fake_kernel import Killed
from netd_world import ULA, attach, default, stored

from nexus_netd.kernel import Flow, KernelError
from nexus_netd.model import EgressRule, Limits, Mode, Policy, Protocol
from nexus_netd.operations import settle
from nexus_rpc.errors import InvalidArgument, NotFound
from nexus_rpc.ids import new_vm_id

PYPI = Policy(Mode.RULES, (EgressRule(domain="pypi.org"),))
WIDE = Policy(
    Mode.RULES, (EgressRule(cidr=IPv4Network("198.51.100.0/24")), EgressRule(domain="pypi.org"))
)
NONE = Policy(Mode.NONE)
NEAR, FAR = IPv4Address("151.101.0.223"), IPv4Address("198.51.100.7")


def flow(guest, destination, port=443, protocol=6):
    return Flow(guest.ipv4, destination, protocol, port, f"{destination}:{port}".encode())


async def test_a_policy_holds_at_once_and_cuts_what_it_forbids(netd, kernel, agree):
    guest = await attach(netd)
    one, two = flow(guest, NEAR), flow(guest, FAR)
    kernel.tracked = [one, two]
    assert await netd.set_policy(guest.vm_id, WIDE) == 1
    assert kernel.tracked == [two]
    await agree(netd)
    assert await netd.set_policy(guest.vm_id, WIDE) == 0
    assert await netd.set_policy(guest.vm_id, NONE) == 1
    assert kernel.tracked == []
    await agree(netd)
    assert await netd.set_policy(guest.vm_id, None) == 0
    assert netd.view().ports[guest.vm_id].policy is None
    assert not kernel.chains
    await agree(netd)


async def test_more_connections_than_one_look_finds(netd, kernel, monkeypatch):
    kernel.most_flows = 4
    monkeypatch.setattr(settle, "MOST_FLOWS", 4)
    guests = [await attach(netd) for _ in range(5)]
    crowd = guests[0]
    kept = [flow(guest, FAR, port) for guest in guests[1:] for port in (1, 2)]
    cut = [flow(guest, NEAR, 3) for guest in guests[1:]]
    kernel.tracked = [*kept, *cut, *(flow(crowd, FAR, port) for port in range(9))]
    await netd.update_network(replace(default(), default_policy=WIDE))
    # Of whom so many are open that they cannot all be looked at, none stay.
    assert kernel.tracked == kept
    kernel.tracked = [flow(crowd, NEAR, port) for port in range(9)]
    await netd.detach(crowd.vm_id)
    await netd.state.stale.forget(crowd.addresses)
    assert kernel.tracked == []


async def test_connections_to_pinned_addresses_outlive_their_pin_and_another_policy(netd, kernel):
    guest = await attach(netd, policy=PYPI)
    await netd.pin(guest.vm_id, "pypi.org", [NEAR], 60.0, [0])
    kernel.tracked = [flow(guest, NEAR)]
    assert await netd.set_policy(guest.vm_id, WIDE) == 0
    assert await netd.set_policy(guest.vm_id, PYPI) == 0
    other = Policy(Mode.RULES, (EgressRule(domain="other.org"),))
    assert await netd.set_policy(guest.vm_id, other) == 1


async def test_a_slot_never_comes_to_stand_for_another_name(netd, kernel, agree):
    guest = await attach(netd, policy=PYPI)
    await netd.pin(guest.vm_id, "pypi.org", [NEAR], 60.0, [0])
    await netd.set_policy(guest.vm_id, WIDE)
    assert await kernel.pins() == {guest.ipv4: {(NEAR, 1): pytest.approx(60, abs=5)}}
    await agree(netd)
    await netd.set_policy(guest.vm_id, Policy(Mode.RULES, (EgressRule(domain="evil.org"),)))
    assert await kernel.pins() == {}
    await agree(netd)


async def test_pins_that_are_refused(start, kernel, agree):
    netd = await start(ipv6=ULA)
    policy = replace(PYPI, rules=(*PYPI.rules, EgressRule(cidr=IPv4Network("10.1.0.0/16"))))
    guest = await attach(netd, policy=policy)
    for address in (
        "10.0.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "224.0.0.1",
        "0.0.0.0",
        "172.16.0.3",
        "fd00:ec2::254",
        "::1",
        "::ffff:10.0.0.1",
        "fe80::1",
        "ff02::1",
    ):
        with pytest.raises(InvalidArgument):
            await netd.pin(guest.vm_id, "pypi.org", [NEAR, _address(address)], 60.0, [0])
    for domain, slots, ttl in (
        ("pypi.org", [1], 60.0),
        ("pypi.org", [2], 60.0),
        ("pypi.org", [-1], 60.0),
        ("x.pypi.org", [0], 60.0),
        ("pypi.org", [0], 0.0),
        ("pypi.org", [0], 1e9),
    ):
        with pytest.raises(InvalidArgument):
            await netd.pin(guest.vm_id, domain, [NEAR], ttl, slots)
    with pytest.raises(NotFound):
        await netd.pin(new_vm_id(), "pypi.org", [NEAR], 60.0, [0])
    assert kernel.pinned == {}
    await netd.pin(guest.vm_id, "pypi.org", [_address("10.1.0.1"), _address("2a04::1")], 60.0, [0])
    assert len(kernel.pinned) == 2
    await agree(netd)


def _address(text):
    return IPv6Address(text) if ":" in text else IPv4Address(text)


async def test_no_pin_for_a_version_that_the_guest_has_not(netd, kernel):
    guest = await attach(netd, policy=PYPI)
    await netd.pin(guest.vm_id, "pypi.org", [IPv6Address("2a04::1")], 60.0, [0])
    assert kernel.pinned == {}


async def test_a_detached_guest_leaves_no_pin(netd, kernel, agree):
    guest = await attach(netd, policy=PYPI)
    await netd.pin(guest.vm_id, "pypi.org", [NEAR], 60.0, [0])
    assert netd.name_given(guest.vm_id, NEAR) == "pypi.org"
    await netd.detach(guest.vm_id)
    assert kernel.pinned == {}
    assert netd.name_given(guest.vm_id, NEAR) == ""
    await agree(netd)


async def test_pins_outlive_a_restart(start, kernel, agree):
    netd = await start()
    guest = await attach(netd, policy=Policy(Mode.RULES, (EgressRule(domain="*.pypi.org"),)))
    await netd.pin(guest.vm_id, "files.pypi.org", [NEAR], 60.0, [0])
    netd = await start()
    await netd.start()
    assert netd.name_given(guest.vm_id, NEAR) == "*.pypi.org"
    await agree(netd)


async def test_pins_of_a_policy_that_was_cut_short_do_not(start, kernel, agree):
    netd = await start()
    guest = await attach(netd, policy=PYPI)
    await netd.pin(guest.vm_id, "pypi.org", [NEAR], 60.0, [0])
    kernel.calls.clear()
    kernel.kill_at = 2  # the policy is stored, the rules are not in place
    with pytest.raises(Killed):
        await netd.set_policy(
            guest.vm_id, Policy(Mode.RULES, (EgressRule(domain="evil.org", ports=None),))
        )
    kernel.die_with_process()
    kernel.tracked = [flow(guest, NEAR)]
    netd = await start()
    await netd.start()
    assert (kernel.pinned, kernel.tracked) == ({}, [])
    await agree(netd)


async def test_limits(netd, agree):
    guest = await attach(netd, limits=Limits(egress_bytes=1_000_000))
    await netd.set_limits(guest.vm_id, Limits(connections=10))
    assert netd.view().guests[guest.vm_id].limits == Limits(connections=10)
    await agree(netd)
    await netd.set_limits(guest.vm_id, Limits())
    assert netd.view().guests[guest.vm_id].limits == Limits(connections=4_096)
    await agree(netd)


@pytest.mark.parametrize("policy", [PYPI, NONE, None])
async def test_a_failure_at_any_call_changes_nothing(start, kernel, agree, policy):
    failures = 0
    for number in range(1, 50):
        netd = await start()
        guest = await attach(netd, policy=WIDE)
        kernel.tracked = [flow(guest, IPv4Address("203.0.113.1"))]
        before = stored(netd)
        if not await kernel.fails_at(number, netd.set_policy(guest.vm_id, policy)):
            break
        failures += 1
        assert stored(netd) == before
        await agree(netd)
        await netd.set_policy(guest.vm_id, policy)
        assert kernel.tracked == ([] if policy else kernel.tracked)
        await agree(netd)
        await netd.cleanup(force=True)
    assert failures >= 3


async def test_killed_at_any_call_the_next_start_cuts_what_is_forbidden(start, kernel, agree):
    kills = 0
    for number in range(1, 50):
        netd = await start()
        guest = await attach(netd, policy=WIDE)
        kernel.tracked = [flow(guest, FAR, protocol=int(Protocol.UDP))]
        if not await kernel.kills_at(number, netd.set_policy(guest.vm_id, NONE)):
            break
        kills += 1
        netd = await start()
        await netd.start()
        await agree(netd)
        forbidden = netd.view().ports[guest.vm_id].policy == NONE
        assert len(kernel.tracked) == (not forbidden)
        assert await netd.state.store.leases.unsettled() == []
        await netd.cleanup(force=True)
    assert kills >= 5


async def test_a_name_asked_for_during_a_detach_leaves_no_pin_to_who_has_the_address_next(
    netd, kernel, agree
):
    guest = await attach(netd, policy=PYPI)

    async def ask():
        with pytest.raises(NotFound, match="being detached"):
            await netd.pin(guest.vm_id, "pypi.org", [NEAR], 3_600.0, [0])

    meanwhile(kernel, "remove_tap", ask)
    await netd.detach(guest.vm_id)
    assert kernel.pinned == {}
    await agree(netd)


async def test_a_detach_that_failed_lets_names_be_asked_for_again(netd, kernel, agree):
    guest = await attach(netd, policy=PYPI)
    kernel.calls.clear()
    kernel.fail_at = 2
    with pytest.raises(KernelError):
        await netd.detach(guest.vm_id)
    kernel.fail_at = 0
    await netd.pin(guest.vm_id, "pypi.org", [NEAR], 60.0, [0])
    assert len(kernel.pinned) == 1
    await agree(netd)


async def test_a_name_asked_for_during_a_cleanup_brings_no_rules_back(netd, kernel):
    guest = await attach(netd, policy=PYPI)

    async def ask():
        with pytest.raises(KernelError):
            await netd.pin(guest.vm_id, "pypi.org", [NEAR], 60.0, [0])

    meanwhile(kernel, "flows", ask)
    await netd.cleanup(force=True)
    assert kernel.empty


async def test_a_pin_that_failed_is_made_when_it_is_asked_for_again(netd, kernel, agree):
    guest = await attach(netd, policy=PYPI)
    kernel.calls.clear()
    kernel.fail_at = 1
    with pytest.raises(KernelError):
        await netd.pin(guest.vm_id, "pypi.org", [NEAR], 60.0, [0])
    assert kernel.pinned == {}
    await netd.pin(guest.vm_id, "pypi.org", [NEAR], 50.0, [0])
    assert len(kernel.pinned) == 1
    await agree(netd)


def meanwhile(kernel, name, work):
    """Have `work` done when the kernel is called so next."""
    call = getattr(kernel, name)

    async def called(*args):
        delattr(kernel, name)
        await work()
        return await call(*args)

    setattr(kernel, name, called)
