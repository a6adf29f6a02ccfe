"""The network code against a real kernel, in a network namespace of its own."""

import json
import subprocess
import sys

PRELUDE = """
import json, subprocess
from nexus_guest.network import Network

def ip(*args):
    return json.loads(subprocess.run(["ip", "-j", *args], check=True, capture_output=True).stdout)

def addresses(family):
    (link,) = ip("addr", "show", "eth7")
    return [
        [a["local"], a["prefixlen"]]
        for a in link["addr_info"]
        if a["family"] == family and a["scope"] == "global"
    ]

def routes(family):
    return [[r["dst"], r.get("gateway"), r["dev"]] for r in ip(family, "route")]

ADD = "ip link add name eth7 address 02:fc:00:00:00:07 type bridge"
subprocess.run(ADD, shell=True, check=True)
GOOD = {"mac": "02:FC:00:00:00:07", "ipv4": "172.16.0.2/12", "gateway": "172.16.0.1"}
SIX = {"ipv6": "fd00::2/128", "ipv6_gateway": "fd00::1"}
"""


def alone(script):
    """Run `script` in a network namespace of its own, and return what it prints as JSON."""
    argv = ["unshare", "--net", sys.executable, "-c", PRELUDE + script]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, timeout=60)
    return json.loads(done.stdout)


def test_address_link_and_route():
    seen = alone("""
try:
    Network.of(GOOD | {"mac": "02:fc:00:00:00:08"}).apply()
except OSError as error:
    missing = str(error)
Network.of(GOOD).apply()
for _ in range(2):
    Network.of(GOOD | {"ipv4": "172.16.0.9/12"}).apply()
(link,) = ip("addr", "show", "eth7")
(lo,) = ip("addr", "show", "lo")
print(json.dumps({
    "missing": missing, "flags": link["flags"], "lo": lo["flags"],
    "addresses": addresses("inet"), "routes": routes("-4"),
}))
""")
    assert "02:fc:00:00:00:08" in seen["missing"]
    assert "UP" in seen["flags"]
    assert "UP" in seen["lo"]
    assert seen["addresses"] == [["172.16.0.9", 12]]
    assert ["default", "172.16.0.1", "eth7"] in seen["routes"]


def test_mtu_is_set_and_stays_where_none_is_told():
    seen = alone("""
states = []
for mtu in (1400, None, 9000):
    Network.of(GOOD | {"mtu": mtu}).apply()
    (link,) = ip("link", "show", "eth7")
    states.append(link["mtu"])
print(json.dumps(states))
""")
    assert seen == [1400, 1400, 9000]


def test_another_subnet_takes_the_place_of_the_one_before():
    seen = alone("""
Network.of(GOOD).apply()
Network.of(GOOD | {"ipv4": "10.9.0.2/16", "gateway": "10.9.0.1"}).apply()
print(json.dumps({"addresses": addresses("inet"), "routes": routes("-4")}))
""")
    assert seen["addresses"] == [["10.9.0.2", 16]]
    assert seen["routes"] == [["default", "10.9.0.1", "eth7"], ["10.9.0.0/16", None, "eth7"]]


def test_ipv6_is_set_replaced_and_taken_away():
    seen = alone("""
states = []
for change in (SIX, SIX, {"ipv6": "fd11::2/128", "ipv6_gateway": "fd11::1"}, {}, {}):
    network = Network.of(GOOD | change)
    network.apply()
    network.apply_ipv6()
    default = [r for r in routes("-6") if r[0] == "default"]
    states.append([addresses("inet6"), default])
    if change:
        (link,) = ip("-6", "addr", "show", "eth7", "scope", "global")
        assert "tentative" not in link["addr_info"][0], "the address must be usable at once"
print(json.dumps(states))
""")
    first = [[["fd00::2", 128]], [["default", "fd00::1", "eth7"]]]
    second = [[["fd11::2", 128]], [["default", "fd11::1", "eth7"]]]
    assert seen == [first, first, second, [[], []], [[], []]]


def test_where_ipv6_is_off_the_error_says_so_and_ipv4_stands():
    seen = alone("""
with open("/proc/sys/net/ipv6/conf/eth7/disable_ipv6", "w") as off:
    off.write("1")
Network.of(GOOD).apply()
Network.of(GOOD).apply_ipv6()
try:
    Network.of(GOOD | SIX).apply_ipv6()
except OSError as error:
    print(json.dumps({"error": error.strerror, "addresses": addresses("inet")}))
""")
    assert seen == {"error": "Permission denied", "addresses": [["172.16.0.2", 12]]}


def test_two_ends_talk_over_ipv6():
    """The guest's end reaches its gateway, and what lies behind it, by the one route."""
    seen = alone("""
import errno, os, socket
run = lambda line: subprocess.run(line, shell=True, check=True)
run("ip link del eth7")
run("ip link add far type veth peer name eth7 address 02:fc:00:00:00:07")
child = subprocess.Popen(["unshare", "--net", "sleep", "60"])
while os.readlink(f"/proc/{child.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
    os.sched_yield()
try:
    run(f"ip link set far netns {child.pid}")
    far = f"nsenter -t {child.pid} -n ip "
    run(far + "link set lo up")
    run(far + "addr add fd00::1/128 dev far nodad")
    run(far + "addr add fd99::9/128 dev lo nodad")
    run(far + "link set far up")
    run(far + "route add fd00::2/128 dev far")
    network = Network.of(GOOD | SIX)
    network.apply()
    network.apply_ipv6()
    codes = []
    for address in ("fd00::1", "fd99::9"):
        with socket.socket(socket.AF_INET6) as near:
            near.settimeout(20)
            codes.append(errno.errorcode[near.connect_ex((address, 9))])
finally:
    child.kill()
    child.wait()
print(json.dumps(codes))
""")
    assert seen == ["ECONNREFUSED"] * 2, "nobody listens, and the other end says so"
