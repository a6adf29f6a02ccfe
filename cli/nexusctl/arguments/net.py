"""The commands about networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl.arguments import shared, values
from nexusctl.arguments.parsing import add_json, add_yes, leaf

if TYPE_CHECKING:
    from typing import Any

    from nexusctl.arguments.parsing import Parser

LAST_DENIALS = 20
CLEARABLE = ("dns", "search", "host-ports", "policy", "limits")


def add_net(net: Parser) -> None:
    """Add them all."""
    commands = net.add_subparsers(metavar="COMMAND", required=True)
    _add_networks(net, commands)
    _add_ports(net, commands)
    _add_ways(net, commands)
    _add_insight(net, commands)


def _add_networks(net: Parser, commands: Any) -> None:  # noqa: ANN401  # argparse keeps this class private
    list_ = leaf(net, commands, "list", "list the networks")
    add_json(list_)

    create = leaf(net, commands, "create", "make a network with a bridge and a subnet of its own")
    _add_network(create)
    create.add_argument(
        "--subnet", required=True, metavar="SUBNET", help="addresses, 10.9.0.0/16; needed"
    )
    create.add_argument(
        "--ipv6", default="", metavar="SUBNET", help="IPv6 addresses, a /64 of fd00::/8"
    )
    create.add_argument("--bridge", default="", metavar="BRIDGE", help="name of the first bridge")
    create.add_argument("--mtu", type=values.whole, default=0, metavar="N", help="(default 1500)")
    _add_defaults(create)
    add_json(create)

    update = leaf(net, commands, "update", "change what the ports of a network have by default")
    _add_network(update)
    _add_defaults(update)
    update.add_argument(
        "--clear",
        action="append",
        default=[],
        choices=CLEARABLE,
        help="set back to the default; may be repeated",
    )
    add_json(update)

    delete = leaf(net, commands, "delete", "remove a network that has no ports")
    _add_network(delete)
    add_yes(delete)

    migrate = leaf(net, commands, "migrate", "move a network to another subnet, and tell its VMs")
    _add_network(migrate)
    migrate.add_argument("subnet", metavar="SUBNET", help="the new addresses, 10.9.0.0/16")
    add_yes(migrate)

    cleanup = leaf(net, commands, "cleanup", "take all networks from the kernel, with every port")
    add_yes(cleanup)
    cleanup.add_argument("--force", action="store_true", help="though VMs are running")


def _add_ports(net: Parser, commands: Any) -> None:  # noqa: ANN401  # as above
    ports = leaf(net, commands, "ports", "list the ports, oldest first")
    ports.add_argument("--network", default="", metavar="NETWORK", help="only of this network")
    add_json(ports)

    attach = leaf(net, commands, "attach", "give a VM at rest a port again that was given up")
    _add_vm(attach)
    shared.add_port(attach)
    add_json(attach)

    inspect = leaf(net, commands, "inspect", "all that netd knows of a VM")
    _add_vm(inspect)
    add_json(inspect)

    policy = leaf(net, commands, "policy", "show or set what a VM may reach")
    _add_vm(policy)
    policy.add_argument(
        "mode",
        nargs="?",
        metavar="MODE",
        choices=["show", "open", "none", "inherit"],
        help="show, open, none, or inherit from the network",
    )
    shared.add_rules(policy)
    policy.add_argument(
        "--file", default="", metavar="FILE", help="what --json printed, or - for stdin"
    )
    add_json(policy)

    limits = leaf(net, commands, "limits", "show or set the rates of a VM")
    _add_vm(limits)
    shared.add_limits(limits)
    add_json(limits)


def _add_ways(net: Parser, commands: Any) -> None:  # noqa: ANN401  # as above
    link = leaf(net, commands, "link", "let one VM open connections to another")
    _add_ends(link)
    unlink = leaf(net, commands, "unlink", "take links away, and cut their connections")
    _add_ends(unlink)
    links = leaf(net, commands, "links", "list the links between VMs")
    _add_vm(links, nargs="?")
    add_json(links)

    publish = leaf(net, commands, "publish", "forward a port of the host to a VM")
    _add_vm(publish)
    publish.add_argument(
        "ports", metavar="PORTS", help="[HOST_IP:]HOST_PORT[:GUEST_PORT][/udp], 8080:80"
    )
    add_json(publish)
    unpublish = leaf(net, commands, "unpublish", "end a forwarding, and cut its connections")
    unpublish.add_argument("port", metavar="PORT", help="[HOST_IP:]HOST_PORT[/udp]")
    published = leaf(net, commands, "published", "list what is forwarded")
    _add_vm(published, nargs="?")
    add_json(published)


def _add_insight(net: Parser, commands: Any) -> None:  # noqa: ANN401  # as above
    explain = leaf(net, commands, "explain", "what would become of a connection, and why")
    _add_vm(explain)
    explain.add_argument(
        "flow", metavar="HOST:PORT", help="pypi.org:443, 192.0.2.1:53/udp, [2001:db8::1]:80"
    )
    add_json(explain)

    denials = leaf(net, commands, "denials", "what VMs were refused")
    _add_vm(denials, nargs="?")
    denials.add_argument("--follow", "-f", action="store_true", help="go on as they happen")
    denials.add_argument(
        "--last",
        type=values.whole,
        default=LAST_DENIALS,
        metavar="N",
        help=f"how many of the last ones come first (default {LAST_DENIALS})",
    )
    add_json(denials)

    watch = leaf(net, commands, "watch", "what happens to networks and ports, from now on")
    _add_vm(watch, nargs="?")
    add_json(watch)


def _add_network(parser: Parser) -> None:
    parser.add_argument("network", metavar="NAME", help="name of the network")


def _add_vm(parser: Parser, **options: str) -> None:
    parser.add_argument("vm", metavar="VM", help="id or name of the VM", **options)


def _add_ends(parser: Parser) -> None:
    parser.add_argument("source", metavar="FROM", help="id or name of the VM that may connect")
    parser.add_argument("target", metavar="TO", help="id or name of the VM it may connect to")
    parser.add_argument(
        "--port",
        dest="ports",
        action="append",
        default=[],
        metavar="PORT",
        help="80, 53/udp, or icmp; may be repeated (default: everything)",
    )


def _add_defaults(parser: Parser) -> None:
    shared.add_names(parser, "8.8.8.8, 1.1.1.1")
    shared.add_policy(parser, "open")
    shared.add_limits(parser)
    parser.add_argument(
        "--host-port",
        dest="host_ports",
        action="append",
        default=[],
        metavar="PORT",
        help="port of the host that guests may reach, 5432 or 123/udp; may be repeated",
    )
