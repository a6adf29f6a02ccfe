"""setup-firewall against the real nft and iptables, in a network namespace of its own."""

import asyncio
import shlex
import sys

import pytest

from nexus.netd.v1 import netd_pb2

DROPS = """
table inet mine {
  chain forward { type filter hook forward priority 0; policy drop; }
  chain input { type filter hook input priority 10; policy accept; counter reject; }
}
"""
NEXUSCTL = f"{sys.executable} -m nexusctl setup-firewall"


@pytest.fixture
def host(nexusctl, tmp_path):
    async def run(script):
        """Run a shell script where the only firewalls are those it makes; return what it did."""
        (tmp_path / "script").write_text(script)
        process = await asyncio.create_subprocess_exec(
            *("unshare", "--net", "sh", "-e", str(tmp_path / "script")),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=nexusctl.environment,
        )
        return await nexusctl.end(process)

    return run


def commands(text):
    return [line for line in text.splitlines() if line and not line.startswith("#")]


async def test_where_no_firewall_is_there_is_nothing_to_do(host):
    done = await host(NEXUSCTL)
    assert (done.code, done.out) == (0, b"# Nothing stands in the way of guests.\n"), done.err


async def test_chains_of_nftables_let_guests_pass_and_once_only(host, fakes):
    lab = netd_pb2.Network(name="lab", bridge="nexbr1", subnet="10.9.0.0/16")
    lab.host_ports.add(protocol=netd_pb2.PROTOCOL_TCP, port=5432)
    fakes.wires.networks["lab"] = lab
    done = await host(f"""
printf %s {shlex.quote(DROPS)} | nft -f -
before=$(nft list ruleset)
{NEXUSCTL}
test "$before" = "$(nft list ruleset)"
echo '# applied'
{NEXUSCTL} --apply
{NEXUSCTL} --apply
nft --stateless list ruleset
""")
    assert done.code == 0, done.err
    shown, _, rest = done.out.decode().partition("# applied\n")
    applied, _, ruleset = rest.partition("# Nothing stands in the way of guests.\n")
    # 2 bridges: 2 commands each for the forward chain, and for the input chain one a port.
    assert len(commands(shown)) == len(commands(applied)) == 2 * 2 + 2 * 3
    assert ruleset.count("nexbr0*") == 2 + 3
    assert 'iifname "nexbr1*" tcp dport 5432 accept comment "nexus: nexbr1 to 5432/tcp"' in ruleset
    assert ruleset.index("nexbr0*") < ruleset.index("reject"), "in front of what refuses"
    assert "done: nothing stands in the way" in done.err


async def test_what_is_printed_can_be_given_to_a_shell(host):
    done = await host(f"""
printf %s {shlex.quote(DROPS)} | nft -f -
iptables -P FORWARD DROP
iptables -P INPUT DROP
{NEXUSCTL} | sh -e
{NEXUSCTL}
""")
    assert done.code == 0, done.err
    assert done.out == b"# Nothing stands in the way of guests.\n"


async def test_docker_is_told_in_its_own_chain(host):
    done = await host(f"""
iptables -N DOCKER-USER
iptables -A FORWARD -j DOCKER-USER
iptables -P FORWARD DROP
{NEXUSCTL} --apply
{NEXUSCTL} --apply
iptables -S DOCKER-USER
""")
    assert done.code == 0, done.err
    text = done.out.decode()
    assert text.count("# Nothing stands in the way of guests.") == 1
    rules = [line for line in text.splitlines() if line.startswith("-A DOCKER-USER")]
    assert sorted(rules) == [
        "-A DOCKER-USER -i nexbr0+ -j ACCEPT",
        "-A DOCKER-USER -o nexbr0+ -j ACCEPT",
    ]


async def test_without_netd_it_is_for_the_default_bridge_and_says_so(host, served):
    await served.stop("netd")
    done = await host(f"iptables -P FORWARD DROP\n{NEXUSCTL}")
    assert done.code == 0
    assert "this is for the bridge nexbr0 only" in done.err
    assert "-i nexbr0+ -j ACCEPT" in done.out.decode()


async def test_it_is_about_this_host_only(nexusctl, tmp_path):
    files = {key: tmp_path / key for key in ("ca", "cert", "key")}
    for path in files.values():
        path.touch()
    environment = {f"NEXUS_{key.upper()}": str(path) for key, path in files.items()}
    argv = ("setup-firewall", "--endpoint", "tls://other.example:7700")
    done = await nexusctl(*argv, env=environment)
    assert done.code == 2
    assert "try: run it there, as root" in done.err
