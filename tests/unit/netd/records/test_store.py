import sqlite3
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from netd_world import ULA, attach, default, other, stored

from nexus_netd.model import (
    EgressRule,
    HostPort,
    Limits,
    Link,
    Mode,
    Policy,
    Protocol,
    Publication,
)
from nexus_netd.records.policies import parse, render
from nexus_netd.records.schema import MIGRATIONS
from nexus_netd.records.store import Store
from nexus_rpc.database import Database
from nexus_rpc.ids import new_vm_id
from nexus_rpc.settings import SettingsError

RULES = Policy(
    Mode.RULES,
    (
        EgressRule(cidr=IPv4Network("192.0.2.0/24"), protocol=Protocol.UDP, ports=(53, 54)),
        EgressRule(allow=False, cidr=ULA),
        EgressRule(domain="*.pypi.org"),
    ),
)


@pytest.mark.parametrize("policy", [RULES, Policy(), Policy(Mode.NONE), Policy(Mode.RULES)])
def test_a_policy_is_read_as_it_was_written(policy):
    assert parse(render(policy)) == policy


async def test_all_of_it_is_there_after_a_restart(start):
    netd = await start()
    await netd.create_network(
        other(
            ipv6=ULA,
            search=("corp.example",),
            mtu=9000,
            default_policy=RULES,
            default_limits=Limits(1, 2, 3, 4, 5),
            host_ports=(HostPort(Protocol.TCP, 80),),
        )
    )
    one = await attach(
        netd,
        network="blue",
        limits=Limits(connections=7),
        upstream_dns=("9.9.9.9",),
        search=("example",),
    )
    two = await attach(netd, policy=RULES)
    await netd.heard(two.vm_id, "web", live=True)
    await netd.link(Link(one.vm_id, two.vm_id, Protocol.TCP, (80, 443)))
    await netd.publish(Publication(two.vm_id, IPv4Address("127.0.0.1"), 8080, 80))
    before = stored(netd)
    assert stored(await start()) == before


async def test_equal_policies_are_one_and_go_with_the_last_who_has_them(netd, kernel, database):
    async def rows():
        return await database.read(
            lambda db: [row[0] for row in db.execute("SELECT number FROM policies")]
        )

    first, second = await attach(netd, policy=RULES), await attach(netd, policy=RULES)
    assert first.policy_number == second.policy_number == 3
    assert len(kernel.chains) == 1
    await netd.set_policy(first.vm_id, Policy(Mode.RULES))
    assert await rows() == [1, 2, 3, 4]
    await netd.detach(second.vm_id)
    assert (await rows(), len(kernel.chains)) == ([1, 2, 4], 1)
    await netd.set_policy(first.vm_id, None)
    assert (await rows(), len(kernel.chains)) == ([1, 2], 0)
    # A number never comes to mean another policy.
    third = Policy(Mode.RULES, RULES.rules[:1])
    assert (await attach(netd, policy=third)).policy_number > 4


async def old(tmp_path, ports=3):
    """Return a database as the first netd left it."""
    path = tmp_path / "old.db"
    database = await Database.open(path, MIGRATIONS[:1])

    def fill(connection):
        connection.execute("INSERT INTO pool VALUES (1, '172.31.255.0/24', 7)")
        vms = [new_vm_id() for _ in range(ports)]
        for number, vm in enumerate(vms):
            # The one with the highest address is the oldest.
            connection.execute(
                "INSERT INTO leases VALUES (?, ?, ?, ?)",
                (2 + number, vm, f"nexus{number}", 1000.0 - number),
            )
        connection.execute("INSERT INTO freed (host) VALUES (6), (5)")
        return vms

    vms = await database.write(fill)
    await database.close()
    return path, vms


async def test_the_one_network_of_an_older_netd_becomes_default(tmp_path):
    path, vms = await old(tmp_path)
    database = await Database.open(path, MIGRATIONS)
    store = await Store.open(database, default(subnet="172.31.255.0/24", ipv6=ULA))
    guests = store.view.guests
    assert list(guests) == vms[::-1]
    assert [(one.tap, str(one.ipv4), one.mac) for one in guests.values()] == [
        ("nexus2", "172.31.255.4", "02:fc:ac:1f:ff:04"),
        ("nexus1", "172.31.255.3", "02:fc:ac:1f:ff:03"),
        ("nexus0", "172.31.255.2", "02:fc:ac:1f:ff:02"),
    ]
    assert {one.bridge for one in guests.values()} == {"nexbr0"}
    assert store.view.ports[vms[0]].created == 1000.0
    assert await store.leases.released("default") == (7, [6, 5])
    place = await store.leases.place(store.view.networks["default"])
    assert (place.number, place.host) == (4, 7)
    await database.close()


async def test_an_older_netd_s_ports_keep_their_subnet(tmp_path):
    path, vms = await old(tmp_path, ports=1)
    database = await Database.open(path, MIGRATIONS)
    with pytest.raises(SettingsError, match=r"1 ports have addresses of 172\.31\.255\.0/24"):
        await Store.open(database, default())
    store = await Store.open(database, default(subnet="172.31.255.0/24"))
    assert list(store.view.ports) == vms
    await database.close()


async def test_a_database_is_never_wiped(tmp_path):
    path, vms = await old(tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO leases VALUES (2000000, 'x', 'y', 'z')")
    connection.close()
    database = await Database.open(path, MIGRATIONS)
    store = await Store.open(database, default(subnet="172.31.255.0/24"))
    assert set(vms) <= store.view.ports.keys()
    await database.close()


async def test_settings_that_change_are_taken_in_and_calls_prevail_while_they_do_not(start):
    netd = await start()
    spec = netd.view().networks["default"]
    await netd.update_network(replace(spec, dns=("9.9.9.9",), search=("corp",)))
    netd = await start()
    assert netd.view().networks["default"].dns == ("9.9.9.9",)
    netd = await start(dns=("1.1.1.1",), default_policy=RULES)
    spec = netd.view().networks["default"]
    assert (spec.dns, spec.search, spec.default_policy) == (("1.1.1.1",), ("corp",), RULES)
    netd = await start(default_policy=Policy(Mode.NONE))
    assert netd.view().networks["default"].default_policy == Policy(Mode.NONE)
    assert netd.view().networks["default"].dns == ("8.8.8.8",)


async def test_another_subnet_is_refused_while_ports_have_addresses(start):
    netd = await start(subnet="10.0.0.0/24")
    guest = await attach(netd)
    with pytest.raises(SettingsError, match=r"1 ports have addresses of 10\.0\.0\.0/24.*migrate"):
        await start(subnet="10.0.0.0/16")
    netd = await start(subnet="10.0.0.0/24")
    await netd.create_network(other("blue", "10.8.0.0/24"))
    await netd.detach(guest.vm_id)
    with pytest.raises(SettingsError, match=r"overlaps 10\.8\.0\.0/24 of network 'blue'"):
        await start(subnet="10.8.0.0/16")
    netd = await start(subnet="10.1.0.0/16")
    assert str((await attach(netd)).ipv4) == "10.1.0.2"


async def test_pages_go_by_age(netd):
    await netd.create_network(other())
    blue = [await attach(netd, network="blue") for _ in range(2)]
    plain = [await attach(netd) for _ in range(3)]
    leases = netd.state.store.leases
    everyone = await leases.page(0, 100, "")
    assert [port.vm_id for port in everyone] == [one.vm_id for one in [*blue, *plain]]
    second = await leases.page(everyone[1].number, 2, "")
    assert [port.vm_id for port in second] == [one.vm_id for one in plain[:2]]
    assert len(await leases.page(0, 100, "blue")) == 2
