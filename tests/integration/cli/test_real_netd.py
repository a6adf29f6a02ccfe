"""nexusctl with the real netd, in a network namespace of its own: the two speak one language."""

import asyncio
import json

import pytest
from fake_services import Served
from netd_process import configure, running
from netns import fresh


@pytest.fixture
async def served(tmp_path, fakes):
    """vmm and the gateway are the fakes."""

    def listen(name):
        (tmp_path / name).mkdir()
        return lambda server: server.add_insecure_port(f"unix:{tmp_path}/{name}/{name}.sock")

    directory = tmp_path / "netd"
    directory.mkdir()
    services = Served(fakes)
    with fresh():
        configure(directory, vmm=f"unix:{tmp_path}/vmm/vmm.sock")
        try:
            for name in ("vmm", "gateway", "dns"):
                await services.start(name, listen(name))
            async with running(directory):
                async with asyncio.timeout(30):
                    await fakes.called["WatchVms"].wait()
                yield services
        finally:
            for name in list(services.servers):
                await services.stop(name)


@pytest.fixture
def do(nexusctl):
    async def do(line, code=0, **options):
        done = await nexusctl(*line.split(), **options)
        assert done.code == code, (line, done)
        return done

    return do


async def test_a_network_and_its_ports(do, fakes):
    await do("net create lab --subnet 10.9.0.0/16 --ipv6 fd00:9::/64 --mtu 1400 --search corp.test")
    await do("net create lab --subnet 10.10.0.0/16", 5)
    await do("net create other --subnet 10.9.128.0/17", 5)
    await do("vm create web --net lab --ip 10.9.0.7 --allow pypi.org:443 --publish 18080:80")
    await do("vm create db --net lab --policy none")
    web, db = fakes.vms.values()
    network = web.spec.network
    assert (network.ipv4, network.gateway, network.mtu) == ("10.9.0.7/16", "10.9.0.1", 1400)
    assert network.ipv6.startswith("fd00:9::")
    assert (network.ipv6.partition("/")[2], network.ipv6_gateway) == ("128", "fd00:9::1")
    assert list(network.search) == ["corp.test"]
    await do("vm create again --net lab --ip 10.9.0.7", 5)
    shown = (await do("net ports --network lab --json")).json["ports"]
    assert [port["vm_id"] for port in shown] == [web.id, db.id]
    assert shown[0]["policy"]["rules"] == [{"allow": "pypi.org:443/tcp"}]
    await do("net delete lab --yes", 5)
    await do("vm start web --no-wait")
    assert "UpdateNetworkInterface" not in fakes.calls, "it has what its port makes already"


async def test_policies_limits_and_ways(do, fakes):
    for name in ("web", "db"):
        await do(f"vm create {name}")
    web, db = fakes.vms.values()
    before = await do("net policy web --allow 192.0.2.0/24:80,8000-8010 --deny any:53 --json")
    assert (await do("net policy web none")).out == b"none\n"
    await do("net policy web --file -", stdin=before.out)
    after = (await do("net policy web --json")).json
    assert (after["rules"], after["own"]) == (before.json["rules"], True)
    assert (await do("net policy web inherit --json")).json["own"] is False
    await do("net policy web --allow any/icmp --allow [2001:db8::/32]:443")
    await do("net limits web --up 10M --up-packets 5K --connections 9")
    limits = (await do("net limits web --json")).json
    assert (limits["egress_bytes"], limits["egress_packets"], limits["connections"]) == (
        10**7,
        5000,
        9,
    )
    await do("net link web db --port 5432 --port 53/udp")
    await do("net link db web")
    await do("net link web web", 1)
    links = (await do("net links --json")).json["links"]
    assert [(link["from_vm_id"], link["protocol"]) for link in links] == [
        (web.id, "tcp"),
        (web.id, "udp"),
        (db.id, "any"),
    ]
    assert b"2 links" in (await do("net unlink web db")).out
    await do("net publish web 18080:80")
    await do("net publish db 18080:80", 5)
    (published,) = (await do("net published --json")).json["publications"]
    assert (published["host_ip"], published["guest_port"]) == ("127.0.0.1", 80)
    shown = (await do("net inspect web --json")).json
    assert shown["counters"]["egress_packets"] == 0
    assert len(shown["publications"]) == 1
    assert (await do("net unpublish 18080")).out == b"18080 is forwarded no more\n"


async def test_what_would_become_of_a_connection(do):
    await do("vm create web --allow 192.0.2.0/24:80")
    told = await do("net explain web 192.0.2.1:80 --json")
    assert told.json["egress_rule"] == {"allow": "192.0.2.0/24:80/tcp"}
    refused = await do("net explain web 192.0.2.1:81", 6)
    assert refused.out.startswith(b"refused: no rule\n")
    await do("net explain web 169.254.169.254:80", 6)


async def test_what_is_changed_of_a_network_and_set_back(do):
    await do("net update default --policy none --host-port 5432 --dns 9.9.9.9 --down 1M")
    (network,) = (await do("net list --json")).json["networks"]
    assert (network["default_policy"]["mode"], network["host_ports"]) == ("none", ["5432/tcp"])
    await do(
        "net update default --clear policy --clear host-ports --clear limits --search corp.test"
    )
    (network,) = (await do("net list --json")).json["networks"]
    assert (network["default_policy"]["mode"], network["host_ports"]) == ("open", [])
    assert (network["dns"], network["search"]) == (["9.9.9.9"], ["corp.test"])
    assert network["default_limits"]["ingress_bytes"] == 0


async def test_a_migration_and_a_cleanup(do, fakes):
    for name in ("web", "db"):
        await do(f"vm create {name}")
        await do(f"vm start {name} --no-wait")
    before = [vm.spec.network.mac for vm in fakes.vms.values()]
    moved = await do("net migrate default 10.77.0.0/16 --yes")
    assert b"2 VMs got their new address" in moved.out
    ports = {port["vm_id"]: port for port in (await do("net ports --json")).json["ports"]}
    for vm in fakes.vms.values():
        network = vm.spec.network
        assert network.ipv4 == ports[vm.id]["ipv4"]
        assert network.ipv4.startswith("10.77.")
    assert [vm.spec.network.mac for vm in fakes.vms.values()] == before
    again = await do("net migrate default 10.77.0.0/16 --yes")
    assert b"0 VMs" in again.out
    await do("vm stop web")
    assert "VMs" in (await do("net cleanup --yes", 5)).err, "db is running"
    assert b"nexus" in (await do("net cleanup --yes --force")).out
    await do("vm start web --no-wait", 5)
    await do("net attach web --policy none")
    await do("vm start web --no-wait")
    (port,) = (await do("net ports --json")).json["ports"]
    assert port["policy"]["mode"] == "none"


async def test_denials_are_none_at_first(do):
    assert (await do("net denials --json")).out == b""
    assert json.loads((await do("status --json")).out)["network_warnings"] == []
