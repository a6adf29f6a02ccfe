"""nexusctl net explain: what would become of a connection, and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nexus.netd.v1 import netd_pb2
from nexusctl import failure, net_views, protocols
from nexusctl.progress import progress
from nexusctl.terminal import printable
from nexusctl.vms import identify

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print the answer. The exit code tells it too."""
    request = parse(options.flow)
    netd = services.netd
    async with progress("asking netd"):
        request.vm_id = await identify(services, options.vm)
        shown = net_views.flow(await netd.ask(netd.stub.ExplainFlow, request))
    if options.json:
        print(json.dumps(shown, indent=2))
    else:
        _show(shown)
    return failure.OK if shown["allowed"] else failure.REFUSED


def parse(text: str) -> netd_pb2.ExplainFlowRequest:
    """Return what HOST:PORT[/PROTOCOL] asks about, of no VM yet. Raises Failure (USAGE)."""
    what = "HOST:PORT"
    rest, protocol = protocols.cut_protocol(text)
    if protocol not in ("", "tcp", "udp", "icmp"):
        raise protocols.bad(what, text, "the protocol is tcp, udp or icmp")
    host, digits = protocols.split_host(what, rest)
    if not host:
        raise protocols.bad(what, text, "a host is missing")
    if protocol == "icmp":
        if digits:
            raise protocols.bad(what, text, "ICMP has no ports; leave it out")
        port = 0
    elif not digits:
        raise protocols.bad(what, text, "a port is missing, pypi.org:443")
    else:
        port = protocols.port(what, digits)
    return netd_pb2.ExplainFlowRequest(
        destination=host, port=port, protocol=protocols.WORDS[protocol or "tcp"]
    )


def _show(shown: dict[str, Any]) -> None:
    print(f"{'allowed' if shown['allowed'] else 'refused'}: {printable(shown['rule'])}")
    for action, text in (shown["egress_rule"] or {}).items():
        print(f"  {action} {printable(text)}")
    print(f"  {printable(shown['explanation'])}")
    for pin in shown["pins"]:
        told = f"{pin['domain']} is {pin['address']} until {pin['expire_time']}"
        print(f"  {printable(told)}")
    print(f"  refused for this so far: {shown['denied_packets']} packets")
    print(f"  open connections to it: {shown['connections']}")
