"""Whether the kernel has what netd tells that it has: no less, no more, nothing twice.

Links, addresses, routes, neighbours and forwarding entries are read by ip(8) and bridge(8), and the
rules both by netd's own reader and, as text, by nft(8): what is asked is not what is checked.
"""

import asyncio
import json
import re
from collections import Counter
from ipaddress import ip_address, ip_network

import told as telling

from nexus_netd.linux import nft
from nexus_netd.linux.netlink import Netlink
from nexus_netd.linux.routing import PROTOCOL
from nexus_netd.rules import elements, policy
from nexus_rpc.ids import vm_uid

_SECONDS = 30
_TAP_NAME = re.compile(r"\bnexus\d+\b")
_MAC = re.compile(r"\b02:fc(?::[0-9a-f]{2}){4}\b")
_ELEMENTS = re.compile(r"elements = \{([^}]*)\}")
_IPV4 = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b(?!/)")


async def check_agreement(stub, *, others=frozenset({"lo"}), held=frozenset()):
    """Compare everything. AssertionError.

    `others` are links that are none of netd's business; `held` are TAPs that VMs of a release
    before have open, which are not their VM's user's yet.
    """
    told = await telling.ask(stub)
    links = {link["ifname"]: link for link in await _json("ip -details -json link show")}
    check_links(told, links, others, held)
    await check_ways(told)
    check_rules(told)
    check_text(told, await _text("nft list ruleset"))
    return told


def same(what, has, wanted):
    """Check that two sets or counters are the same. AssertionError, with the differences."""
    over, missing = has - wanted, wanted - has
    if over or missing:
        raise AssertionError(f"{what}: {over or 'none'} too many, {missing or 'none'} missing")


def none_but(what, has, allowed):
    """Check that there are no others. AssertionError."""
    assert has <= allowed, f"{what} that are nobody's: {has - allowed}"


def bridges(told):
    """Return the bridges that there must be, each with its network's name."""
    wanted = {network.bridge: name for name, network in told.networks.items()}
    return wanted | {port.bridge: port.network for port in told.ports.values()}


def check_links(told, links, others, held):
    """TAPs and bridges: each one that is told, as it must be, and no other link."""
    wanted = bridges(told)
    ports = {port.tap: port for port in told.ports.values()}
    assert len(ports) == len(told.ports), "two ports have one TAP"
    same("links", set(links) - others, set(wanted) | set(ports))
    for name, network in wanted.items():
        link = links[name]
        assert link["linkinfo"]["info_kind"] == "bridge"
        assert (link["mtu"], "UP" in link["flags"]) == (told.networks[network].mtu, True), link
        assert link["ifalias"] == f"nexus-network@{network}"
    for name, port in ports.items():
        link = links[name]
        assert link["ifalias"] == f"nexus-vm@{port.vm_id}"
        assert (link["master"], "UP" in link["flags"]) == (port.bridge, True), link
        assert link["mtu"] == told.networks[port.network].mtu
        slave, tap = link["linkinfo"]["info_slave_data"], link["linkinfo"]["info_data"]
        assert (slave["isolated"], slave["locked"], slave["learning"]) == (True, True, False), slave
        assert (slave["flood"], tap["persist"], tap["type"]) == (False, True, "tap"), link
        assert (int(tap["user"]) == vm_uid(port.vm_id)) is (name not in held), link
    for field in ("mac", "ipv4"):
        values = [getattr(port, field) for port in told.ports.values()]
        assert len(set(values)) == len(values), f"two ports have one {field}"


async def check_ways(told):
    """Addresses of bridges; routes, neighbours and forwarding entries of guests."""
    guests = [(port, _addresses(port)) for port in told.ports.values()]
    addresses = await _json("ip -json address show")
    has = {
        (link["ifname"], info["local"], info["prefixlen"])
        for link in addresses
        for info in link["addr_info"]
        if link["ifname"] in bridges(told) and info["scope"] != "link"
    }
    should = {
        (bridge, gateway, 32 if "." in gateway else 128)
        for bridge, name in bridges(told).items()
        for gateway in _gateways(told.networks[name])
    }
    same("addresses", has, should)
    listed = [
        *await _json(f"ip -4 -json route show table all proto {PROTOCOL}"),
        *await _json(f"ip -6 -json route show table all proto {PROTOCOL}"),
    ]
    routes = Counter(
        (route["dst"], route.get("dev") if route.get("type", "unicast") == "unicast" else None)
        for route in listed
    )
    subnets = [
        (subnet, None)
        for network in told.networks.values()
        for subnet in (network.subnet, network.ipv6_subnet)
        if subnet
    ]
    ways = [(address, port.bridge) for port, own in guests for address in own]
    same("routes", routes, Counter(subnets + ways))
    neighbours = Counter(
        (entry["dst"], entry["dev"], entry["lladdr"])
        for entry in await _json("ip -json neigh show nud permanent")
        if entry["dev"] in bridges(told)
        and "lladdr" in entry
        and not ip_address(entry["dst"]).is_multicast
    )
    pinned = [(address, port.bridge, port.mac) for port, own in guests for address in own]
    same("neighbours", neighbours, Counter(pinned))
    taps = {port.tap for port in told.ports.values()}
    entries = Counter(
        (entry["mac"], entry["ifname"])
        for entry in await _json("bridge -json fdb show")
        if entry["ifname"] in taps and entry.get("state") == "static" and "vlan" not in entry
    )
    pairs = [(port.mac, port.tap) for port in told.ports.values()]
    same("forwarding entries", entries, Counter(pairs))


def check_rules(told):
    """All elements of all sets, and the policies' chains, as netd reads them."""
    netlink = Netlink(nft.PROTOCOL)
    try:
        contents = nft.read(netlink)
    finally:
        netlink.close()
    assert contents is not None, "a table is missing"
    assert contents.intact, "a skeleton is not as it must be"
    numbers = {
        element.key: int.from_bytes(element.data[:4], "little")  # twice there
        for element in contents.elements
        if element.set == "policy4"
    }
    guests, policies = {}, {}
    for port in told.ports.values():
        number = numbers.get(ip_address(_addresses(port)[0]).packed)
        assert number is not None, f"{port.vm_id} has no policy in the kernel"
        guest = telling.guest(port, told.networks[port.network], number)
        guests[port.vm_id] = guest
        if number not in (policy.OPEN, policy.NONE):
            policies[number] = policy.chain(number, guest.policy)
    wanted = {
        element
        for name, network in told.networks.items()
        for element in elements.of_network(
            telling.network(network),
            [bridge for bridge, owner in bridges(told).items() if owner == name],
        )
    }
    for guest in guests.values():
        wanted.update(elements.of_guest(guest))
    for one in map(telling.link, told.links):
        wanted.update(elements.of_link(one, guests[one.from_vm_id], guests[one.to_vm_id]))
    for one in map(telling.publication, told.publications):
        wanted.update(elements.of_publication(one, guests[one.vm_id]))
    same("elements", contents.elements, wanted)
    same("policies", contents.policies, set(policies.values()))
    of_rules = Counter(guests[vm_id].policy for vm_id in guests)
    assert len({guest.policy_number for guest in guests.values()}) == len(of_rules)


def check_text(told, text):
    """What nft(8) prints: no trace of a guest, TAP or MAC that is no more, and nothing twice."""
    ports, held = told.ports.values(), " ".join(_ELEMENTS.findall(text))
    none_but("TAPs", set(_TAP_NAME.findall(held)), {port.tap for port in ports})
    gateways = {gateway for one in told.networks.values() for gateway in _gateways(one)}
    macs = {port.mac for port in ports}
    macs |= {f"02:fc:{ip_address(one).packed.hex(':')}" for one in gateways if "." in one}
    none_but("MACs", set(_MAC.findall(held)), macs)
    subnets = [ip_network(one.subnet) for one in told.networks.values()]
    known = {address for port in ports for address in _addresses(port)} | gateways
    known |= {str(subnet.network_address) for subnet in subnets}
    named = set(map(ip_address, _IPV4.findall(held)))
    ours = {str(one) for one in named if any(one in subnet for subnet in subnets)}
    none_but("addresses", ours, known)
    assert text.count("table inet nexus {") == text.count("table bridge nexus {") == 1
    table, part, seen = "", "", set()
    for line in map(str.strip, text.splitlines()):
        if line.startswith("table "):
            table = line
        elif line.startswith(("chain ", "set ", "map ")):
            part = line
        elif part.startswith("chain ") and 'comment "' in line:
            assert (table, part, line) not in seen, f"twice in {table} {part}: {line}"
            seen.add((table, part, line))


def _addresses(port):
    return [each.split("/")[0] for each in (port.ipv4, port.ipv6) if each]


def _gateways(network):
    return [each for each in (network.gateway, network.ipv6_gateway) if each]


async def _text(command):
    process = await asyncio.create_subprocess_exec(
        *command.split(), stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(_SECONDS):
        out, _ = await process.communicate()
    assert process.returncode == 0, command
    return out.decode()


async def _json(command):
    return json.loads(await _text(command) or "[]")
