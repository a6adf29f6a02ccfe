"""All firewalls of a host together: what must be done, and doing it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from nexusctl.failure import Failure
from nexusctl.firewall import firewalld, iptables, nft, ufw

if TYPE_CHECKING:
    from nexusctl.firewall.host import Finding, Guests, Host

LIMITS = (
    "netd cannot do this by itself: an accept in its table is no more than its own table's word,",
    "and a drop in any other table still drops (nft(8), VERDICT STATEMENTS). The other way round,",
    "what netd refuses stays refused, whatever these rules accept.",
)


async def look(host: Host, guests: Guests) -> list[Finding]:
    """Return what stops guests. Raises Failure.

    The chains of iptables are UFW's where UFW is active, and it lets pass what Docker does not.
    """
    findings = []
    if await ufw.is_active(host):
        findings += await ufw.find(host, guests)
    else:
        findings += await iptables.find(host, guests)
    if await firewalld.is_active(host):
        findings += await firewalld.find(host, guests)
    return findings + await nft.find(host, guests)


def script(findings: list[Finding]) -> str:
    """Return the commands as a shell takes them, with what they are for."""
    lines = []
    for finding in findings:
        lines += [f"# {finding.why}.", *map(shlex.join, finding.commands)]
        lines += [f"# {finding.lasts}.", ""]
    return "".join(f"{line}\n" for line in (*lines, *(f"# {line}" for line in LIMITS)))


async def apply(host: Host, findings: list[Finding]) -> None:
    """Run the commands, to the first that fails. Raises Failure."""
    for command in (command for finding in findings for command in finding.commands):
        done = await host.run(*command)
        if done.code:
            said = (done.err or done.out).strip() or f"exit code {done.code}"
            raise Failure(f"{shlex.join(command)}: {said}", "nexusctl setup-firewall --dry-run")
