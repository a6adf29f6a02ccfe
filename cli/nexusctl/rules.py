"""Rules of a policy as people write them: "pypi.org:443/tcp", "10.0.0.0/8:22,80-90", "any:53/udp".

DESTINATION[:PORTS][/PROTOCOL]. A destination is "any", an address, a subnet, a domain name, or
"*.DOMAIN" for all names below it; IPv6 with ports is put in brackets. Ports without a protocol are
allowed with TCP, and denied with TCP and UDP. Several ports make several rules.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from nexus.netd.v1 import netd_pb2
from nexusctl import protocols
from nexusctl.protocols import bad

if TYPE_CHECKING:
    from collections.abc import Iterable

ACTIONS: dict[str, netd_pb2.Action.ValueType] = {
    "allow": netd_pb2.ACTION_ALLOW,
    "deny": netd_pb2.ACTION_DENY,
}
_BOTH = (netd_pb2.PROTOCOL_TCP, netd_pb2.PROTOCOL_UDP)
_WITH_PORTS = {
    ("allow", ""): (netd_pb2.PROTOCOL_TCP,),
    ("allow", "any"): _BOTH,
    ("deny", ""): _BOTH,
    ("deny", "any"): _BOTH,
}
"""What a protocol that is left out, or "any", means where there are ports."""

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z)(\*\.)?{_LABEL}(\.{_LABEL})*")


def parse(action: str, text: str) -> list[netd_pb2.EgressRule]:
    """Return the rules that `text` writes, one for each protocol and range of ports.

    Raises Failure (USAGE).
    """
    what = f"--{action}"
    if "://" in text:
        raise bad(what, text, "a rule names a host and its ports, pypi.org:443, and no URL")
    rest, protocol = protocols.cut_protocol(text.strip())
    if protocol and protocol not in protocols.WORDS:
        raise bad(what, text, f"the protocol is one of {', '.join(protocols.WORDS)}")
    destination, ports = protocols.split_host(what, rest)
    if ports and protocol == "icmp":
        raise bad(what, text, "ICMP has no ports; leave them out")
    rule = netd_pb2.EgressRule(
        action=ACTIONS[action],
        protocol=protocols.WORDS.get(protocol, netd_pb2.PROTOCOL_UNSPECIFIED),
    )
    _set_destination(rule, what, text, destination)
    if action == "deny" and rule.domain:
        raise bad(what, text, "a name can only be allowed: what no rule allows is refused anyway")
    if not ports:
        return [rule]
    return [
        _with_ports(rule, number, *bounds)
        for number in _WITH_PORTS.get((action, protocol), (rule.protocol,))
        for bounds in _ranges(what, ports)
    ]


def text(rule: netd_pb2.EgressRule) -> str:
    """Return the rule as `parse` takes it, without its action."""
    ports = ""
    if rule.first_port:
        ports = str(rule.first_port)
        if rule.last_port and rule.last_port != rule.first_port:
            ports = f"{rule.first_port}-{rule.last_port}"
    destination = protocols.join_host(rule.cidr or rule.domain or "any", ports)
    if rule.protocol:
        return f"{destination}/{protocols.word(rule.protocol)}"
    return destination


def action(rule: netd_pb2.EgressRule) -> str:
    """Return the word for what the rule does."""
    return "deny" if rule.action == netd_pb2.ACTION_DENY else "allow"


def parse_all(written: Iterable[tuple[str, str]]) -> list[netd_pb2.EgressRule]:
    """Return all rules, in order, of pairs of action and text. Raises Failure (USAGE)."""
    return [rule for action, text in written for rule in parse(action, text)]


def _set_destination(rule: netd_pb2.EgressRule, what: str, written: str, destination: str) -> None:
    if destination == "any":
        return
    if _is_subnet(destination):
        rule.cidr = _subnet(what, written, destination)
        return
    domain = destination.lower().removesuffix(".")
    if not domain.isascii():
        raise bad(what, written, "a name in another script is written in its xn-- form (RFC 5891)")
    if _DOMAIN.fullmatch(domain) is None:
        raise bad(what, written, "a destination is any, an address, a subnet, a name or *.NAME")
    rule.domain = domain


def _is_subnet(destination: str) -> bool:
    """Whether it is meant as addresses: no name has a colon or a slash, or ends in digits."""
    return bool(re.search(r"[:/]|(^|\.)[0-9]+$", destination))


def _subnet(what: str, written: str, destination: str) -> str:
    try:
        network = ipaddress.ip_network(destination, strict=False)
    except ValueError:
        network = None
    if network is None or "%" in destination:
        raise bad(what, written, f"{destination!r} is no address and no subnet")
    if "/" in destination and str(network.network_address) != str(
        ipaddress.ip_interface(destination).ip
    ):
        raise bad(what, written, f"{destination!r} has bits beyond its prefix; meant is {network}")
    return str(network)


def _ranges(what: str, ports: str) -> list[tuple[int, int]]:
    return [_range(what, each) for each in ports.split(",")]


def _range(what: str, ports: str) -> tuple[int, int]:
    first, dash, last = ports.partition("-")
    bounds = (protocols.port(what, first), protocols.port(what, last) if dash else 0)
    if dash and bounds[1] < bounds[0]:
        raise bad(what, ports, "the first port of a range is the lower one")
    return bounds


def _with_ports(
    rule: netd_pb2.EgressRule, protocol: netd_pb2.Protocol.ValueType, first: int, last: int
) -> netd_pb2.EgressRule:
    ranged = netd_pb2.EgressRule()
    ranged.CopyFrom(rule)
    ranged.protocol, ranged.first_port, ranged.last_port = protocol, first, last
    return ranged
