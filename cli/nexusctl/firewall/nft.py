"""Tables of nftables that somebody wrote: those of other programs are left to their own modules."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nexusctl.failure import Failure
from nexusctl.firewall.host import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nexusctl.firewall.host import Guests, Host

_LASTS = "nft forgets them at the next boot or flush; put them into /etc/nftables.conf as well"
_OTHERS = {("inet", "nexus"), ("inet", "firewalld"), ("ip", "filter"), ("ip6", "filter")}
"""Tables of netd, of firewalld, and of iptables; of the last only the chains in capitals."""


async def find(host: Host, guests: Guests) -> list[Finding]:
    """Return the chains that drop what they are not told of. Raises Failure."""
    done = await host.run("nft", "--json", "list", "ruleset")
    if done.code:
        raise Failure(f"nft cannot list the rules: {done.err.strip() or 'there is no nft'}")
    entries = json.loads(done.out)["nftables"]
    rules = [entry["rule"] for entry in entries if "rule" in entry]
    findings = []
    for chain in (entry["chain"] for entry in entries if "chain" in entry):
        own = [rule for rule in rules if _place(rule, "chain") == _place(chain, "name")]
        if _concerns(chain, guests) and _drops(chain, own):
            there = {rule.get("comment") for rule in own}
            commands = tuple(
                ("nft", "insert", "rule", *_place(chain, "name"), *rule, "comment", f'"{comment}"')
                for rule, comment in _wanted(chain["hook"], guests)
                if comment not in there
            )
            if commands:
                why = f"chain {' '.join(_place(chain, 'name'))} drops what it is not told of"
                findings.append(Finding(why, commands, _LASTS))
    return findings


def _place(entry: dict[str, Any], name: str) -> tuple[str, str, str]:
    return entry["family"], entry["table"], entry[name]


def _concerns(chain: dict[str, Any], guests: Guests) -> bool:
    """Whether it is a chain that guests' packets come through, and that nobody else looks after."""
    if chain.get("hook") not in ("forward", "input") or chain.get("type") != "filter":
        return False
    if chain["family"] not in (("inet", "ip", "ip6") if guests.ipv6 else ("inet", "ip")):
        return False
    is_others = (chain["family"], chain["table"]) in _OTHERS
    return not is_others or (chain["table"] == "filter" and not chain["name"].isupper())


def _drops(chain: dict[str, Any], rules: list[dict[str, Any]]) -> bool:
    """Whether its policy drops, or its last rule drops or refuses whatever comes to it."""
    if chain.get("policy") == "drop":
        return True
    said = [part for part in rules[-1]["expr"] if "counter" not in part] if rules else []
    return len(said) == 1 and bool({"drop", "reject"} & said[0].keys())


def _wanted(hook: str, guests: Guests) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield rules, each with the comment that it is known by."""
    for bridge in guests.bridges:
        name = f'"{bridge}*"'
        if hook == "forward":
            yield ("iifname", name, "accept"), f"nexus: from {bridge}"
            yield ("oifname", name, "accept"), f"nexus: to {bridge}"
            continue
        for protocol, port in guests.ports:
            rule = ("iifname", name, protocol, "dport", str(port), "accept")
            yield rule, f"nexus: {bridge} to {port}/{protocol}"
