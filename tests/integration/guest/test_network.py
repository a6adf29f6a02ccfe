"""The network code against a real kernel, in a network namespace of its own."""

import json
import subprocess
import sys

SCRIPT = """
import json, subprocess
from nexus_guest.network import Network

def ip(*args):
    return json.loads(subprocess.run(["ip", "-j", *args], check=True, capture_output=True).stdout)

ADD = "ip link add name eth7 address 02:fc:00:00:00:07 type bridge"
subprocess.run(ADD, shell=True, check=True)
def network(address):
    return Network.of({"mac": "02:FC:00:00:00:07", "ipv4": address, "gateway": "172.16.0.1"})

try:
    Network.of({"mac": "02:fc:00:00:00:08", "ipv4": "10.0.0.1/8", "gateway": "10.0.0.2"}).apply()
except OSError as error:
    missing = str(error)
network("172.16.0.2/12").apply()
network("172.16.0.9/12").apply()
network("172.16.0.9/12").apply()
(link,) = ip("addr", "show", "eth7")
(lo,) = ip("addr", "show", "lo")
print(json.dumps({
    "missing": missing,
    "flags": link["flags"],
    "addresses": [[a["local"], a["prefixlen"]] for a in link["addr_info"] if a["family"] == "inet"],
    "lo": lo["flags"],
    "routes": [[r["dst"], r.get("gateway"), r["dev"]] for r in ip("-4", "route")],
}))
"""


def test_address_link_and_route():
    argv = ["unshare", "--net", sys.executable, "-c", SCRIPT]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, timeout=60)
    seen = json.loads(done.stdout)
    assert "02:fc:00:00:00:08" in seen["missing"]
    assert "UP" in seen["flags"]
    assert "UP" in seen["lo"]
    assert seen["addresses"] == [["172.16.0.9", 12]]
    assert ["default", "172.16.0.1", "eth7"] in seen["routes"]
