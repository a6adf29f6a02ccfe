"""The commands about networks, each as it should go, and what they say when they cannot."""

import asyncio
import json
import signal

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from nexus.netd.v1 import netd_pb2 as pb
from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import AlreadyExists, Internal

READY = vmm_pb2.VM_STATE_READY
TCP, UDP = pb.PROTOCOL_TCP, pb.PROTOCOL_UDP


def lines(done):
    assert done.code == 0, done.err
    return done.out.decode().splitlines()


async def test_networks_are_made_changed_listed_and_removed(nexusctl, fakes):
    made = await nexusctl(
        *("net", "create", "lab", "--subnet", "10.9.0.0/16", "--ipv6", "fd00::/64"),
        *("--mtu", "9000", "--dns", "9.9.9.9", "--search", "corp.example", "--host-port", "5432"),
        *("--allow", "pypi.org:443/tcp", "--deny", "10.0.0.0/8", "--up", "10M"),
    )
    assert lines(made) == ["lab created: 10.9.0.0/16 on nexbr1"]
    network = fakes.requests["CreateNetwork"][0].network
    assert (network.ipv6_subnet, network.mtu, list(network.dns)) == ("fd00::/64", 9000, ["9.9.9.9"])
    assert [rule.domain or rule.cidr for rule in network.default_policy.rules] == [
        "pypi.org",
        "10.0.0.0/8",
    ]
    assert network.default_limits.egress_bytes == 10**7
    assert list(network.host_ports) == [pb.HostPort(protocol=TCP, port=5432)]
    changed = await nexusctl(
        *("net", "update", "lab", "--policy", "none", "--clear", "limits", "--clear", "host-ports")
    )
    assert lines(changed) == ["lab changed"]
    assert fakes.requests["UpdateNetwork"][0].clear == ["default_limits", "host_ports"]
    fakes.wires.networks["default"].warnings.append("chain ip filter FORWARD drops")
    listed = await nexusctl("net", "list")
    assert [line.split()[0] for line in lines(listed)] == ["NAME", "default", "lab"]
    assert "note: default: chain ip filter FORWARD drops" in listed.err
    shown = (await nexusctl("net", "list", "--json")).json["networks"]
    assert [network["name"] for network in shown] == ["default", "lab"]
    assert shown[0]["warnings"] == ["chain ip filter FORWARD drops"]
    gone = await nexusctl("net", "delete", "lab", "--yes")
    assert lines(gone) == ["lab removed"]
    assert "lab" not in fakes.wires.networks


@pytest.mark.parametrize(
    ("argv", "code", "way_out"),
    [
        (
            ("net", "create", "default", "--subnet", "10.9.0.0/16"),
            5,
            "choose another name or --bridge",
        ),
        (("net", "update", "lab", "--policy", "open"), 4, "nexusctl net list"),
        (("net", "update", "default"), 2, "nexusctl net update --help"),
        (("net", "update", "default", "--dns", "1.1.1.1", "--clear", "dns"), 2, "leave --clear"),
        (("net", "update", "default", "--policy", "open", "--allow", "any"), 2, "leave one of"),
        (("net", "delete", "default"), 2, "nexusctl net delete default --yes"),
        (("net", "delete", "default", "--yes"), 5, "nexusctl net ports --network default"),
        (("net", "delete", "lab", "--yes"), 4, "nexusctl net list"),
        (("net", "cleanup"), 2, "nexusctl net cleanup --yes"),
        (("net", "cleanup", "--yes"), 5, "nexusctl net cleanup --force"),
        (("net", "migrate", "default", "10.9.0.0/16"), 2, "default 10.9.0.0/16 --yes"),
        (("net", "migrate", "default", "10.9.0.1/16", "--yes"), 1, "net migrate --help"),
        (("net", "policy", "nobody"), 4, "nexusctl vm list"),
        (("net", "policy", "a" * 13), 4, "nexusctl net ports"),
        (("net", "policy", "hello", "open", "--allow", "any"), 2, "leave one of them out"),
        (("net", "policy", "hello", "open", "--file", "-"), 2, "leave one of them out"),
        (("net", "policy", "hello", "--file", "/nowhere"), 1, ""),
        (("net", "limits", "UPPER"), 1, "nexusctl net limits --help"),
        (("vm", "create", "x", "--no-network", "--allow", "any"), 2, "leave --no-network out"),
        (("vm", "create", "x", "--publish", "0"), 2, ""),
        (("vm", "run", "debian", "--net", "lab", "--", "true"), 125, "nexusctl net list"),
    ],
)
async def test_what_cannot_be_done_says_what_to_try(nexusctl, fakes, argv, code, way_out):
    fakes.add_vm("hello", READY)
    done = await nexusctl(*argv)
    assert done.code == code, done.err
    assert way_out in done.err
    assert len(fakes.ports) == 1


async def test_a_kernel_that_refuses_has_a_next_step(nexusctl, fakes):
    fakes.fail("CreateNetwork", Internal("KERNEL", "RTM_NEWLINK nexbr1: No buffer space"))
    done = await nexusctl("net", "create", "lab", "--subnet", "10.9.0.0/16")
    assert done.code == 1
    assert "try: run the command again; if it stays: journalctl -u nexus-netd" in done.err


async def test_create_asks_for_the_port_as_it_is_wanted(nexusctl, fakes):
    fakes.wires.networks["lab"] = pb.Network(name="lab", subnet="10.9.0.0/16")
    done = await nexusctl(
        *("vm", "create", "hello", "--net", "lab", "--ip", "10.9.0.7", "--search", "corp.example"),
        *("--dns", "from-host", "--allow", "pypi.org:443/tcp", "--publish", "8080:80"),
    )
    assert done.code == 0, done.err
    assert fakes.calls == ["GetVm", "AttachPort", "PublishPort", "CreateVm"]
    (asked,) = fakes.requests["AttachPort"]
    assert (asked.network, asked.ipv4, list(asked.upstream_dns)) == (
        "lab",
        "10.9.0.7",
        ["from-host"],
    )
    assert asked.policy.rules[0].domain == "pypi.org"
    (vm,) = fakes.vms.values()
    assert list(vm.spec.network.search) == ["corp.example"]
    (publication,) = fakes.wires.publications
    assert (publication.vm_id, publication.guest_port) == (vm.id, 80)


async def test_a_port_that_cannot_be_published_leaves_nothing(nexusctl, fakes):
    error = AlreadyExists("HOST_PORT_PUBLISHED", "127.0.0.1:8080 is forwarded to another VM")
    fakes.fail("PublishPort", error)
    done = await nexusctl("vm", "create", "hello", "--publish", "8080")
    assert done.code == 5
    assert "nexusctl net published" in done.err
    assert (fakes.vms, fakes.ports) == ({}, {})


async def test_ports(nexusctl, fakes):
    fakes.page = 2
    for name in ("first", "second", "third"):
        fakes.add_vm(name)
    head, *rows = lines(await nexusctl("net", "ports"))
    assert head.split() == ["VM", "NETWORK", "ADDRESS", "TAP", "MAC", "POLICY"]
    assert rows[0].split() == [
        "first",
        "default",
        "172.16.0.2",
        "tap2",
        "02:fc:00:00:00:02",
        "open",
    ]
    assert [row.split()[0] for row in rows] == ["first", "second", "third"]
    shown = (await nexusctl("net", "ports", "--network", "lab", "--json")).json
    assert shown == {"ports": []}


async def test_inspect_tells_port_policy_and_ways(nexusctl, fakes):
    vm, other = fakes.add_vm("hello"), fakes.add_vm("db")
    fakes.wires.links.append(pb.Link(from_vm_id=vm.id, to_vm_id=other.id, protocol=TCP, ports=[80]))
    fakes.wires.publications.append(
        pb.Publication(vm_id=vm.id, host_ip="::", host_port=53, guest_port=5353, protocol=UDP)
    )
    shown = (await nexusctl("net", "inspect", "hello", "--json")).json
    assert (shown["counters"]["denied_packets"], shown["policy"]["mode"]) == (3, "open")
    assert shown["links"][0]["to_vm_id"] == other.id
    assert shown["publications"][0]["guest_port"] == 5353
    text = "\n".join(lines(await nexusctl("net", "inspect", "hello")))
    assert "hello -> db 80/tcp" in text
    assert "[::]:53/udp -> hello:5353" in text
    assert "policy, the network's\n  open" in text


async def test_a_policy_is_shown_set_and_taken_back_from_json(nexusctl, fakes):
    fakes.add_vm("hello")
    assert lines(await nexusctl("net", "policy", "hello")) == ["as default:", "open"]
    argv = ("--allow", "pypi.org:443/tcp", "--deny", "10.0.0.0/8", "--allow", "any:53/udp")
    done = await nexusctl("net", "policy", "hello", *argv)
    assert lines(done) == ["allow pypi.org:443/tcp", "deny 10.0.0.0/8", "allow any:53/udp"]
    assert "2 connections were cut" in done.err
    shown = await nexusctl("net", "policy", "hello", "show", "--json")
    assert shown.json["rules"][1] == {"deny": "10.0.0.0/8"}
    expected = pb.EgressPolicy()
    expected.CopyFrom(next(iter(fakes.ports.values())).policy)
    assert lines(await nexusctl("net", "policy", "hello", "none")) == ["none"]
    done = await nexusctl("net", "policy", "hello", "--file", "-", "--json", stdin=shown.out)
    assert done.json["cut"] == 2
    assert [port.policy for port in fakes.ports.values()] == [expected]
    assert lines(await nexusctl("net", "policy", "hello", "inherit")) == ["as default:", "open"]


async def test_an_id_needs_no_vmm_and_a_name_says_so(nexusctl, fakes, served):
    vm = fakes.add_vm("hello")
    await served.stop("vmm")
    assert lines(await nexusctl("net", "policy", vm.id, "none")) == ["none"]
    done = await nexusctl("net", "policy", "hello", "none")
    assert done.code == 3
    assert "a VM's id would do without vmm" in done.err


async def test_limits(nexusctl, fakes):
    fakes.add_vm("hello")
    done = await nexusctl("net", "limits", "hello", "--up", "10M", "--connections", "100")
    assert "      10000000  bytes/s from the guest" in lines(done)
    assert "           any  bytes/s to the guest" in lines(done)
    shown = (await nexusctl("net", "limits", "hello", "--json")).json
    assert (shown["egress_bytes"], shown["connections"], shown["ingress_bytes"]) == (10**7, 100, 0)
    assert len(fakes.requests["SetLimits"]) == 1


async def test_links(nexusctl, fakes):
    web, db = fakes.add_vm("web"), fakes.add_vm("db")
    argv = ("--port", "80", "--port", "53/udp", "--port", "443/tcp")
    done = await nexusctl("net", "link", "web", "db", *argv)
    assert lines(done) == ["web -> db 80,443/tcp", "web -> db 53/udp"]
    await nexusctl("net", "link", "db", "web")
    assert fakes.wires.links == [
        pb.Link(from_vm_id=web.id, to_vm_id=db.id, protocol=TCP, ports=[80, 443]),
        pb.Link(from_vm_id=web.id, to_vm_id=db.id, protocol=UDP, ports=[53]),
        pb.Link(from_vm_id=db.id, to_vm_id=web.id),
    ]
    listed = lines(await nexusctl("net", "links", "web"))
    assert [line.split() for line in listed[1:]] == [
        ["web", "db", "80,443/tcp"],
        ["web", "db", "53/udp"],
        ["db", "web", "any"],
    ]
    shown = (await nexusctl("net", "links", "--json")).json["links"]
    assert shown[0]["ports"] == [80, 443]
    assert lines(await nexusctl("net", "unlink", "web", "db", "--port", "53/udp")) == [
        "1 links from web to db taken away"
    ]
    assert lines(await nexusctl("net", "unlink", "web", "db")) == [
        "1 links from web to db taken away"
    ]
    assert [link.from_vm_id for link in fakes.wires.links] == [db.id]
    assert lines(await nexusctl("net", "unlink", "web", "db")) == [
        "there was no such link from web to db"
    ]


async def test_forwarded_ports(nexusctl, fakes):
    fakes.add_vm("hello")
    done = await nexusctl("net", "publish", "hello", "8080:80")
    assert lines(done) == ["127.0.0.1:8080/tcp -> hello:80"]
    shown = await nexusctl("net", "publish", "hello", "[::]:53/udp", "--json")
    assert (shown.json["host_ip"], shown.json["guest_port"]) == ("::", 53)
    listed = lines(await nexusctl("net", "published", "hello"))
    assert [line.split() for line in listed] == [
        ["HOST", "VM", "PORT"],
        ["127.0.0.1:8080/tcp", "hello", "80"],
        ["[::]:53/udp", "hello", "53"],
    ]
    assert len((await nexusctl("net", "published", "--json")).json["publications"]) == 2
    for host in ("127.0.0.1:8080/tcp", "[::]:53/udp"):
        gone = await nexusctl("net", "unpublish", host)
        assert lines(gone) == [f"{host} is forwarded no more"]
    assert lines(await nexusctl("net", "unpublish", "8080")) == ["8080 was not forwarded"]


async def test_explain_tells_by_its_exit_code_too(nexusctl, fakes):
    fakes.add_vm("hello")
    allowed = await nexusctl("net", "explain", "hello", "pypi.org:443")
    assert lines(allowed)[0] == "allowed: open"
    (asked,) = fakes.requests["ExplainFlow"]
    assert (asked.destination, asked.port, asked.protocol) == ("pypi.org", 443, TCP)
    expire = Timestamp(seconds=1_800_000_000)
    fakes.wires.flow = pb.ExplainFlowResponse(
        rule="rule 2",
        explanation="the policy denies it\x1b[2J",
        egress_rule=pb.EgressRule(action=pb.ACTION_DENY, cidr="10.0.0.0/8"),
        pins=[pb.Pin(domain="db.example", address="10.1.1.1", expire_time=expire)],
        denied_packets=5,
    )
    refused = await nexusctl("net", "explain", "hello", "10.1.1.1:53/udp")
    assert refused.code == 6
    told = refused.out.decode()
    assert told.startswith("refused: rule 2\n  deny 10.0.0.0/8\n  the policy denies it?")
    assert "db.example is 10.1.1.1 until 2027-01-15T08:00:00.000Z" in told
    shown = await nexusctl("net", "explain", "hello", "10.1.1.1:53/udp", "--json")
    assert (shown.code, shown.json["egress_rule"]) == (6, {"deny": "10.0.0.0/8"})


def denial(vm, number, **fields):
    made = pb.Denial(vm_id=vm.id, rule="no rule", count=number, **fields)
    made.time.FromSeconds(1_800_000_000)
    return made


async def test_denials(nexusctl, fakes):
    vm = fakes.add_vm("hello")
    fakes.wires.denials = [
        denial(vm, 1, protocol=TCP, address="192.0.2.1", port=80, domain="evil.example"),
        denial(vm, 3, protocol=UDP, address="2001:db8::1", port=53),
        denial(vm, 1, domain="bad\x1b.example"),
    ]
    when = "2027-01-15T08:00:00.000Z  hello"
    assert lines(await nexusctl("net", "denials", "hello")) == [
        f"{when}  tcp  192.0.2.1:80  (evil.example)  refused: no rule",
        f"{when}  udp  [2001:db8::1]:53  refused: no rule  x3",
        f"{when}  bad?.example  refused: no rule",
    ]
    shown = lines(await nexusctl("net", "denials", "--last", "1", "--json"))
    assert [json.loads(line)["domain"] for line in shown] == ["bad\x1b.example"]


async def test_denials_are_followed_until_interrupted(nexusctl, fakes):
    vm = fakes.add_vm("hello")
    fakes.wires.denials = [denial(vm, 1, domain="evil.example")]
    process = await nexusctl.start("net", "denials", "--follow")
    async with asyncio.timeout(20):
        assert b"evil.example" in await process.stdout.readline()
        assert b"7 denials were lost here" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert (await nexusctl.end(process)).code == 130


async def test_watch(nexusctl, fakes):
    event = pb.WatchNetworkResponse(what="repaired", network="default", details="nexbr0 was down")
    event.time.FromSeconds(1_800_000_000)
    fakes.wires.events = [event, pb.WatchNetworkResponse(missed=2)]
    done = await nexusctl("net", "watch")
    assert lines(done) == ["2027-01-15T08:00:00.000Z  repaired  default  nexbr0 was down"]
    assert "2 events were lost" in done.err
    (shown,) = lines(await nexusctl("net", "watch", "--json"))
    assert json.loads(shown)["what"] == "repaired"


async def test_cleanup(nexusctl, fakes):
    fakes.add_vm("hello", READY)
    done = await nexusctl("net", "cleanup", "--yes", "--force")
    assert lines(done)[0] == "removed"
    assert "tap2" in done.out.decode()
    again = await nexusctl("net", "cleanup", "--yes")
    assert lines(again) == ["there was nothing to remove"]


async def test_a_vm_whose_port_was_given_up_gets_one_again(nexusctl, fakes):
    vm = fakes.add_vm("hello")
    fakes.add_vm("other")
    fakes.ports.clear()
    fakes.ports["x"] = pb.Port()  # so that the new one differs
    done = await nexusctl("net", "attach", "hello", "--policy", "none")
    assert lines(done) == ["hello is at 172.16.0.3/12 on default"]
    assert fakes.ports[vm.id].policy.mode == pb.EGRESS_MODE_NONE
    assert vm.spec.network.tap == "tap3"
    assert (await nexusctl("vm", "start", "hello")).code == 0
    live = await nexusctl("net", "attach", "hello")
    assert live.code == 5
    assert "stop it first" in live.err


class TestMigrate:
    ARGV = ("net", "migrate", "default", "10.9.0.0/16", "--yes")

    @pytest.fixture
    def vms(self, fakes):
        return [fakes.add_vm(name, READY) for name in ("first", "second", "third")]

    def check(self, fakes, vms):
        for vm in vms:
            network, port = vm.spec.network, fakes.ports[vm.id]
            assert network.ipv4.startswith("10.9.0.")
            assert (network.ipv4, network.gateway) == (port.ipv4, port.gateway)
            assert list(network.dns) == ["10.9.0.1"]

    async def test_each_vm_gets_the_address_of_its_port(self, nexusctl, fakes, vms):
        taps = [vm.spec.network.tap for vm in vms]
        done = await nexusctl(*self.ARGV)
        assert lines(done) == ["default is 10.9.0.0/16; 3 VMs got their new address"]
        self.check(fakes, vms)
        assert [vm.spec.network.tap for vm in vms] == taps

    async def test_a_port_without_a_vm_is_no_hindrance(self, nexusctl, fakes, vms):
        fakes.wires.attach("b" * 13, 77)
        assert (await nexusctl(*self.ARGV)).code == 0

    @pytest.mark.parametrize("method", ["MigrateNetwork", "UpdateNetworkInterface"])
    async def test_killed_half_way_it_is_finished_by_running_it_again(
        self, nexusctl, fakes, vms, method
    ):
        fakes.fail(method, asyncio.Event(), after=True)
        process = await nexusctl.start(*self.ARGV)
        async with asyncio.timeout(20):
            await fakes.sent[method].wait()
        process.kill()
        await nexusctl.end(process)
        done = await nexusctl(*self.ARGV)
        told = 3 if method == "MigrateNetwork" else 2
        assert lines(done) == [f"default is 10.9.0.0/16; {told} VMs got their new address"]
        assert len(fakes.requests["MigrateNetwork"]) == 1
        self.check(fakes, vms)

    async def test_one_that_cannot_be_told_is_named_and_the_others_are(self, nexusctl, fakes, vms):
        fakes.fail("UpdateNetworkInterface", Internal("DEFECT", "it broke"))
        done = await nexusctl(*self.ARGV)
        assert done.code == 1
        assert "first (live) was not told: it broke" in done.err
        assert "try: nexusctl net migrate default 10.9.0.0/16 --yes, once more" in done.err
        assert lines(await nexusctl(*self.ARGV)) == [
            "default is 10.9.0.0/16; 1 VMs got their new address"
        ]
        self.check(fakes, vms)
