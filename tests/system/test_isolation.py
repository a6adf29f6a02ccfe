"""Two guests: neither reaches the other at L2 or L3, and each reaches the outside."""

import json
from contextlib import contextmanager

import pytest

SNIFF = """
import json, os, select, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind(("eth0", 0))
print("listening", flush=True)
seen, over = {}, False
while True:
    if select.select([s], [], [], 0.2)[0]:
        frame, address = s.recvfrom(2048)
        if address[2] != socket.PACKET_OUTGOING:
            source = frame[6:12].hex(":")
            seen[source] = seen.get(source, 0) + 1
    elif over:
        break
    else:
        over = os.path.exists(sys.argv[1])
os.unlink(sys.argv[1])
print(json.dumps(seen))
"""
FLOOD = """
import socket, sys
me, them = (bytes.fromhex(a.replace(":", "")) for a in sys.argv[1:3])
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("eth0", 0))
for to in (them, b"\\xff" * 6):
    for n in range(20):
        s.send(to + me + b"\\x88\\xb5" + bytes(46))
"""


HEARD = "/run/heard"


@contextmanager
def hearing(devhost, vm):
    """Yield how many frames came to the VM from which address, filled at the block's end."""
    seen = {}
    sniffer = devhost.start_exec(vm["name"], "python3", "-u", "-c", SNIFF, HEARD)
    assert sniffer.stdout.readline() == b"listening\n"
    yield seen
    devhost.exec(vm["name"], "touch", HEARD)
    seen.update(json.loads(sniffer.communicate(timeout=60)[0]))


@pytest.fixture(scope="module")
def pair(devhost):
    names = ("iso-a", "iso-b")
    for name in names:
        devhost.nexusctl("vm", "create", name)
        devhost.nexusctl("vm", "start", name, timeout=180)
    yield tuple(devhost.json("vm", "inspect", name) for name in names)
    for name in names:
        devhost.nexusctl("vm", "delete", name, "--force", "--yes")


def _address(vm):
    return vm["spec"]["network"]["ipv4"].split("/")[0]


def _mac(vm):
    return vm["spec"]["network"]["mac"]


def test_l2_frames_do_not_pass(devhost, pair):
    a, b = pair
    with hearing(devhost, b) as seen:
        devhost.exec(a["name"], "python3", "-c", FLOOD, _mac(a), _mac(b))
        # A frame of the host passes, so the ear is good.
        devhost.run(f"ping -c 3 -W 5 {_address(b)}")

    gateway = devhost.out("cat /sys/class/net/nexbr0/address")
    assert seen.get(gateway, 0) >= 3
    assert _mac(a) not in seen


@pytest.mark.parametrize("way", ["direct", "through the gateway"])
def test_l3_packets_do_not_pass(devhost, pair, way):
    a, b = pair
    gateway = b["spec"]["network"]["gateway"]
    target = _address(b)
    if way == "through the gateway":
        devhost.exec(a["name"], "ip", "route", "replace", f"{target}/32", "via", gateway)

    with hearing(devhost, b) as seen:
        ping = devhost.exec(a["name"], "ping", "-c", "3", "-W", "2", target, check=False)
        tcp = devhost.exec(
            a["name"], "timeout", "3", "bash", "-c", f"exec 3<>/dev/tcp/{target}/22", check=False
        )

    assert ping.returncode == 1
    assert b"100% packet loss" in ping.stdout
    assert tcp.returncode != 0
    assert _mac(a) not in seen
    # Nothing came by way of the gateway either: at most its ARP for b.
    assert seen.get(devhost.out("cat /sys/class/net/nexbr0/address"), 0) <= 1


def test_each_reaches_the_outside(devhost, pair, outside):
    for vm in pair:
        assert (
            b" 0% packet loss"
            in devhost.exec(vm["name"], "ping", "-c", "1", "-W", "5", outside).stdout
        )


def test_a_guest_reaches_no_service_of_the_host(devhost, pair):
    vm = pair[0]
    gateway = vm["spec"]["network"]["gateway"]
    assert devhost.exec(vm["name"], "ping", "-c", "1", "-W", "5", gateway).returncode == 0
    for port in (22, 7700, 7701, 7702):
        done = devhost.exec(
            vm["name"],
            "timeout",
            "5",
            "bash",
            "-c",
            f"exec 3<>/dev/tcp/{gateway}/{port}",
            check=False,
        )
        assert b"refused" in done.stderr, f"port {port}: {done.stderr!r}"
