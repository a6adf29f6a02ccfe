"""firewalld. "+" ends the name of an interface that begins like that, over nftables too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl.firewall.host import Finding, missing

if TYPE_CHECKING:
    from nexusctl.firewall.host import Guests, Host

_ZONE = "--zone=trusted"


async def is_active(host: Host) -> bool:
    """Whether firewalld is there and at work."""
    return (await host.run("firewall-cmd", "--state")).code == 0


async def find(host: Host, guests: Guests) -> list[Finding]:
    """Return what firewalld lacks: the bridges in a zone whose packets it accepts."""
    wanted = []
    for bridge in guests.bridges:
        for where in (("--permanent",), ()):
            words = ("firewall-cmd", *where, _ZONE)
            check = (*words, f"--query-interface={bridge}+")
            wanted.append((check, (*words, f"--add-interface={bridge}+")))
    commands = await missing(host, wanted)
    if not commands:
        return []
    why = "firewalld is active: an interface in no zone of its own is in one that forwards nothing"
    return [Finding(why, commands, "firewalld keeps them over restarts and reloads")]
