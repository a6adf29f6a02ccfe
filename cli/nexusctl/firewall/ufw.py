"""UFW. Its rules are its own to keep; "+" ends the name of an interface that begins like that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl.firewall.host import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nexusctl.firewall.host import Guests, Host


async def is_active(host: Host) -> bool:
    """Whether UFW is there and at work."""
    done = await host.run("ufw", "status")
    return done.code == 0 and "Status: active" in done.out


async def find(host: Host, guests: Guests) -> list[Finding]:
    """Return what UFW lacks."""
    there = set((await host.run("ufw", "show", "added")).out.splitlines())
    commands = tuple(line for line in _wanted(guests) if " ".join(line) not in there)
    if not commands:
        return []
    why = "UFW is active: it forwards nothing and lets nothing in that it is not told of"
    return [Finding(why, commands, "UFW keeps them over restarts and reloads")]


def _wanted(guests: Guests) -> Iterator[tuple[str, ...]]:
    for bridge in guests.bridges:
        yield ("ufw", "route", "allow", "in", "on", f"{bridge}+")
        yield ("ufw", "route", "allow", "out", "on", f"{bridge}+")
        for protocol, port in guests.ports:
            words = f"ufw allow in on {bridge}+ to any port {port} proto {protocol}"
            yield tuple(words.split())
