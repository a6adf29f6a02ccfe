"""The dev host, up, with the VM `hello` ready in it."""

import subprocess
from contextlib import ExitStack

import pytest
from devhost import ROOT, DevHost

SERVICES = {name: f"nexus-{name}" for name in ("vmm", "netd", "gateway", "dns")}
OUTSIDE = "198.51.100.2"
"""An address of TEST-NET-2 (RFC 5737), in a network namespace of its own."""


PORTS = (
    "import sqlite3;"
    'netd = sqlite3.connect("file:/var/lib/nexus/netd/netd.db?mode=ro", uri=True);'
    'print(sorted(netd.execute("SELECT vm_id FROM ports")))'
)


@pytest.fixture(scope="session")
def devhost():
    """Bring the dev host up with what is in the tree, as `make up` does."""
    subprocess.run(["make", "--no-print-directory", "up"], cwd=ROOT, check=True, timeout=900)
    return DevHost()


@pytest.fixture(scope="session")
def hello(devhost):
    """The VM of first light."""
    vm = devhost.json("vm", "inspect", "hello")
    assert vm["state"] == "ready"
    return "hello"


@pytest.fixture
def make_vm(devhost):
    """Make ready VMs; they are deleted afterwards."""
    with ExitStack() as stack:

        def make(name, *options):
            stack.callback(devhost.nexusctl, "vm", "delete", name, "--force", "--yes", check=False)
            devhost.nexusctl("vm", "create", name, *options)
            devhost.nexusctl("vm", "start", name, timeout=180)
            return name

        yield make


@pytest.fixture(scope="session")
def outside(devhost):
    """A host beyond the bridge that has no route to the VMs: only NAT can bring its answers."""
    ns = "ip -n outside"
    devhost.run(
        "ip netns del outside 2>/dev/null; ip link del nx-out 2>/dev/null; set -e;"
        "ip netns add outside; ip link add nx-out type veth peer name eth0 netns outside;"
        f"ip addr add 198.51.100.1/24 dev nx-out; ip link set nx-out up;"
        f"{ns} addr add {OUTSIDE}/24 dev eth0; {ns} link set eth0 up; {ns} link set lo up"
    )
    assert (
        devhost.out(f"{ns} route").strip()
        == "198.51.100.0/24 dev eth0 proto kernel scope link src " + OUTSIDE
    )
    echo = (
        'import socket; s = socket.create_server(("", 7007))\n'
        "while True:\n"
        ' c, peer = s.accept(); c.sendall(peer[0].encode() + b" " + c.recv(64)); c.close()'
    )
    devhost.run(
        "systemctl reset-failed nx-echo 2>/dev/null; systemctl stop nx-echo 2>/dev/null;"
        f"systemd-run --quiet --collect --unit nx-echo ip netns exec outside python3 -c '{echo}'"
    )
    devhost.until(
        "the echo server listens",
        lambda: ":7007" in devhost.out("ip netns exec outside ss -Hltn"),
    )
    yield OUTSIDE
    devhost.run(
        "systemctl stop nx-echo; ip netns del outside; ip link del nx-out 2>/dev/null; true"
    )


@pytest.fixture
def main_pid(devhost):
    """Give the main process of a service."""

    def pid(service):
        return int(devhost.out(f"systemctl show -P MainPID {SERVICES[service]}"))

    return pid


@pytest.fixture(scope="session")
def mcp_endpoint(devhost):
    """The MCP endpoint of the dev host's loopback, at this machine's; and its token."""
    with devhost.mcp_forwarded() as port:
        yield f"http://127.0.0.1:{port}", devhost.out("cat /etc/nexus/mcp-token")


@pytest.fixture
def snapshot(devhost):
    """Give all that Nexus holds in the dev host, as text, to compare before and after."""

    def take():
        return devhost.out(
            "ip -o link show type tun | cut -d: -f2 | sort;"
            "nft --stateless list table inet nexus | sort;"
            "nft --stateless list table bridge nexus | sort;"
            "systemctl list-units --all --plain --no-legend 'nexus-vm@*' | sort;"
            "find /run/nexus/vms /var/lib/nexus/vms -mindepth 1 -not -path '*/console/*' | sort;"
            "bridge link show master nexbr0 | cut -d: -f2 | sort;"
            f"python3 -IS -c '{PORTS}'"
        )

    return take
