"""Which commands let guests through which firewall; the host's programs are played."""

import shlex

import pytest
from played_host import PlayedHost

from nexus.netd.v1 import netd_pb2
from nexusctl.commands.setup_firewall import of_networks
from nexusctl.failure import Failure
from nexusctl.firewall import plan
from nexusctl.firewall.host import MISSING, Guests

GUESTS = Guests(("nexbr0",), ipv6=False, ports=(("udp", 7753),))


async def commands(host, guests=GUESTS):
    found = await plan.look(host, guests)
    return [shlex.join(command) for finding in found for command in finding.commands]


async def test_a_host_without_firewalls_needs_nothing():
    assert await commands(PlayedHost()) == []


async def test_ufw():
    host = PlayedHost(ufw=True)
    host.answer("ufw status", "Status: active\n\nTo  Action  From\n")
    host.answer("ufw show added", "Added user rules:\nufw route allow out on nexbr0+\n")
    assert await commands(host) == [
        "ufw route allow in on nexbr0+",
        "ufw allow in on nexbr0+ to any port 7753 proto udp",
    ]


async def test_ufw_that_is_off_is_left_alone():
    host = PlayedHost(ufw=True).answer("ufw status", "Status: inactive\n")
    assert await commands(host) == []


async def test_the_chains_that_ufw_fills_are_not_touched_behind_its_back():
    host = PlayedHost(ufw=True, iptables=True)
    host.answer("ufw status", "Status: active\n").answer("iptables -S FORWARD", "-P FORWARD DROP\n")
    assert not [line for line in await commands(host) if line.startswith("iptables")]


async def test_firewalld():
    host = PlayedHost(**{"firewall-cmd": True}).answer("firewall-cmd --state", "running\n")
    permanent = "firewall-cmd --permanent --zone=trusted --add-interface=nexbr0+"
    now = "firewall-cmd --zone=trusted --add-interface=nexbr0+"
    assert await commands(host) == [permanent, now]
    host.answer("firewall-cmd --zone=trusted --query-interface=nexbr0+")
    assert await commands(host) == [permanent]


async def test_docker():
    host = PlayedHost(iptables=True).answer("iptables -S DOCKER-USER", "-N DOCKER-USER\n")
    host.answer("iptables -S FORWARD", "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n")
    host.answer("iptables -S INPUT", "-P INPUT ACCEPT\n")
    assert await commands(host) == [
        "iptables -I DOCKER-USER -i nexbr0+ -j ACCEPT",
        "iptables -I DOCKER-USER -o nexbr0+ -j ACCEPT",
    ]


async def test_plain_iptables_and_what_is_there_already():
    host = PlayedHost(iptables=True, ip6tables=True)
    host.answer("iptables -S FORWARD", "-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with x\n")
    host.answer("iptables -S INPUT", "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n")
    host.answer("iptables -C FORWARD -o nexbr0+ -j ACCEPT")
    host.answer("ip6tables -S FORWARD", "-P FORWARD DROP\n")
    four = [
        "iptables -I FORWARD -i nexbr0+ -j ACCEPT",
        "iptables -I INPUT -i nexbr0+ -p udp --dport 7753 -j ACCEPT",
    ]
    assert await commands(host) == four
    six = [f"ip6tables -I FORWARD {way} nexbr0+ -j ACCEPT" for way in ("-i", "-o")]
    with_ipv6 = Guests(GUESTS.bridges, ipv6=True, ports=GUESTS.ports)
    assert await commands(host, with_ipv6) == four + six


@pytest.mark.parametrize(
    "forward",
    ["-P FORWARD ACCEPT\n", "-P FORWARD ACCEPT\n-A FORWARD -s 192.0.2.0/24 -j DROP\n", ""],
)
async def test_chains_that_let_the_rest_pass_need_nothing(forward):
    host = PlayedHost(iptables=True).answer("iptables -S FORWARD", forward)
    assert await commands(host) == []


def chain(name="forward", hook="forward", table="mine", family="inet", **more):
    base = {"family": family, "table": table, "name": name, "type": "filter", "hook": hook}
    return {"chain": base | {"prio": 0, "policy": "accept"} | more}


def rule(*expr, name="forward", table="mine", family="inet", **more):
    place = {"family": family, "table": table, "chain": name}
    return {"rule": place | {"expr": list(expr)} | more}


REJECT = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}


@pytest.mark.parametrize(
    "ruleset",
    [
        [chain(policy="drop")],
        [chain(), rule({"counter": {"packets": 1, "bytes": 2}}, REJECT)],
        [chain(), rule({"drop": None})],
    ],
)
async def test_a_chain_of_nftables_that_drops(ruleset):
    insert = "nft insert rule inet mine forward"
    assert await commands(PlayedHost(nft=ruleset)) == [
        f"""{insert} iifname '"nexbr0*"' accept comment '"nexus: from nexbr0"'""",
        f"""{insert} oifname '"nexbr0*"' accept comment '"nexus: to nexbr0"'""",
    ]


async def test_a_chain_at_input_gets_the_ports_only():
    (only,) = await commands(PlayedHost(nft=[chain("in", "input", policy="drop")]))
    assert only.startswith("""nft insert rule inet mine in iifname '"nexbr0*"' udp dport 7753 """)
    assert only.endswith("""accept comment '"nexus: nexbr0 to 7753/udp"'""")


async def test_rules_that_are_there_are_known_by_their_comments():
    there = [rule({"accept": None}, comment=f"nexus: {way} nexbr0") for way in ("from", "to")]
    assert await commands(PlayedHost(nft=[chain(policy="drop"), *there])) == []


@pytest.mark.parametrize(
    "entry",
    [
        chain(),
        chain(policy="drop", table="nexus"),
        chain(policy="drop", table="firewalld"),
        chain("FORWARD", policy="drop", table="filter", family="ip"),
        chain(policy="drop", family="ip6"),
        chain(policy="drop", hook="output"),
        chain(policy="drop", type="nat"),
        chain(policy="drop", family="bridge"),
        {"chain": {"family": "inet", "table": "mine", "name": "of no hook"}},
        {"metainfo": {"version": "1.0.6"}},
    ],
)
async def test_chains_that_are_no_concern(entry):
    last = rule({"match": {}}, {"drop": None})
    assert await commands(PlayedHost(nft=[entry, last])) == []


async def test_a_table_called_filter_that_somebody_wrote_is_seen():
    assert await commands(PlayedHost(nft=[chain(policy="drop", table="filter", family="ip")]))


async def test_without_nft_it_says_so():
    host = PlayedHost().answer("nft --json list ruleset", code=MISSING)
    with pytest.raises(Failure, match="there is no nft"):
        await plan.look(host, GUESTS)


async def test_the_script_can_be_given_to_a_shell_and_says_what_cannot_be_done():
    found = await plan.look(PlayedHost(nft=[chain(policy="drop")]), GUESTS)
    lines = plan.script(found).splitlines()
    assert lines[0] == "# chain inet mine forward drops what it is not told of."
    assert [line for line in lines if line and not line.startswith("#")] == [
        shlex.join(command) for command in found[0].commands
    ]
    assert any("a drop in any other table still drops" in line for line in lines)


async def test_a_command_that_fails_is_told():
    host = PlayedHost(nft=[chain(policy="drop")])
    found = await plan.look(host, GUESTS)
    host.answer(" ".join(found[0].commands[1]), "no", 1)
    with pytest.raises(Failure, match=r"oifname .* no"):
        await plan.apply(host, found)
    assert len(host.changes) == 1


def test_whom_to_let_pass_is_what_netd_says():
    lab = netd_pb2.Network(name="lab", bridge="nexbr1", ipv6_subnet="fd00::/64")
    lab.host_ports.add(protocol=netd_pb2.PROTOCOL_TCP, port=5432)
    guests = of_networks([netd_pb2.Network(bridge="nexbr0"), lab])
    assert (guests.bridges, guests.ipv6) == (("nexbr0", "nexbr1"), True)
    assert guests.ports == (("udp", 7753), ("tcp", 7753), ("tcp", 5432))
