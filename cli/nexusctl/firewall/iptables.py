"""Plain iptables, and Docker, which lets FORWARD drop and has its users' rules in DOCKER-USER."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl.firewall.host import Finding, missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nexusctl.firewall.host import Guests, Host

_LASTS = "iptables forgets them at the next boot; netfilter-persistent save keeps them"


async def find(host: Host, guests: Guests) -> list[Finding]:
    """Return what the chains FORWARD and INPUT drop at their end, and lack."""
    findings = []
    for program in ("iptables", "ip6tables") if guests.ipv6 else ("iptables",):
        forward, why = "FORWARD", f"{program}: FORWARD drops what it is not told of"
        if (await host.run(program, "-S", "DOCKER-USER")).code == 0:
            forward, why = "DOCKER-USER", f"{why}, as Docker sets it up"
        for chain, into, reason, rules in (
            ("FORWARD", forward, why, _forward(guests)),
            ("INPUT", "INPUT", f"{program}: INPUT drops what it is not told of", _input(guests)),
        ):
            if await _drops(host, program, chain):
                wanted = [
                    ((program, "-C", into, *rule), (program, "-I", into, *rule)) for rule in rules
                ]
                if commands := await missing(host, wanted):
                    findings.append(Finding(reason, commands, _LASTS))
    return findings


async def _drops(host: Host, program: str, chain: str) -> bool:
    """Whether a chain drops or refuses what none of its rules matches."""
    for line in (await host.run(program, "-S", chain)).out.splitlines():
        words = line.split()
        if words[:2] == ["-P", chain] and words[2:] == ["DROP"]:
            return True
        if words[:3] == ["-A", chain, "-j"] and words[3] in ("DROP", "REJECT"):
            return True
    return False


def _forward(guests: Guests) -> Iterator[tuple[str, ...]]:
    for bridge in guests.bridges:
        for way in ("-i", "-o"):
            yield (way, f"{bridge}+", "-j", "ACCEPT")


def _input(guests: Guests) -> Iterator[tuple[str, ...]]:
    for bridge in guests.bridges:
        for protocol, port in guests.ports:
            yield ("-i", f"{bridge}+", "-p", protocol, "--dport", str(port), "-j", "ACCEPT")
