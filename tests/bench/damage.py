"""How long it takes netd to mend what others broke: from the damage to the whole thing again."""

import statistics
import subprocess
import time

from netns import entered
from pyroute2 import IPRoute

_SECONDS = 30
_TIMES = 3
"""Not more: netd takes its time where somebody undoes the same thing again and again."""
_REST = 1.5
"""Seconds in which netd looks at what its own repair changed; that is not the next one's."""
_UP = 1  # IFF_UP (linux/if.h)


def repairs(host):
    """Return the milliseconds of each kind of repair, the median and the most of three. Blocks."""
    port = host.filled[len(host.filled) // 2]
    address, routes = port.ipv4.split("/")[0], f"ip -4 route show dev {port.bridge} proto 110"
    guests = _run(host, routes).count("\n")
    with entered(host.descriptor):
        links = IPRoute()
    with links:
        bridge = links.link_lookup(ifname=port.bridge)[0]

        def tap_is_there():
            found = links.link_lookup(ifname=port.tap)
            if not found:
                return False
            link = links.get_links(found[0])[0]
            mark = link.get_attr("IFLA_IFALIAS")
            plugged = link.get_attr("IFLA_MASTER") == bridge and link["flags"] & _UP
            return plugged and bool(mark) and f"{address} " in _run(host, routes)

        def bridge_is_up():
            is_up = links.get_links(bridge)[0]["flags"] & _UP
            return bool(is_up) and _run(host, routes).count("\n") == guests

        def tables_are_there():
            tables = _run(host, "nft list tables").split("\n")
            return {"table inet nexus", "table bridge nexus"} <= set(tables)

        kinds = {
            "TAP deleted": (f"ip link delete {port.tap}", tap_is_there),
            "ruleset flushed": ("nft flush ruleset", tables_are_there),
            "bridge down": (f"ip link set {port.bridge} down", bridge_is_up),
        }
        return {name: _several(host, *kind) for name, kind in kinds.items()}


def _several(host, command, is_whole):
    taken = []
    for _ in range(_TIMES):
        _run(host, command)
        began = time.perf_counter()
        while not is_whole():
            if time.perf_counter() - began > _SECONDS:
                raise TimeoutError(f"not repaired within {_SECONDS} s: {command}")
            time.sleep(0.002)
        taken.append((time.perf_counter() - began) * 1_000)
        time.sleep(_REST)
    return statistics.median(taken), max(taken)


def _run(host, command):
    with entered(host.descriptor):
        return subprocess.run(
            command.split(), check=True, capture_output=True, text=True, timeout=_SECONDS
        ).stdout
