"""Options that commands about VMs and about networks share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl.arguments import values

if TYPE_CHECKING:
    from nexusctl.arguments.parsing import Parser


def add_policy(parser: Parser, default: str) -> None:
    """Add what may be reached: a word, or rules."""
    parser.add_argument(
        "--policy",
        choices=["open", "none"],
        help=f"what may be reached: all or nothing (default: {default})",
    )
    add_rules(parser)


def add_rules(parser: Parser) -> None:
    """Add rules, in the order in which they are given."""
    for name, action in (("--allow", values.allowed), ("--deny", values.denied)):
        parser.add_argument(
            name,
            dest="rules",
            type=action,
            action="append",
            default=[],
            metavar="RULE",
            help="a rule, pypi.org:443/tcp; may be repeated, and the first that matches decides",
        )


def add_limits(parser: Parser) -> None:
    """Add rates and the number of connections."""
    for name, what in (("--up", "from"), ("--down", "to")):
        parser.add_argument(
            name, type=values.rate, metavar="RATE", help=f"bytes a second {what} the guest, 10M"
        )
    for name, what in (("--up-packets", "from"), ("--down-packets", "to")):
        parser.add_argument(
            name, type=values.rate, metavar="RATE", help=f"packets a second {what} the guest, 20K"
        )
    parser.add_argument(
        "--connections", type=values.whole, metavar="N", help="connections at one time"
    )


def add_restart(parser: Parser, default: str) -> None:
    """Add when vmm starts a VM by itself."""
    parser.add_argument(
        "--restart",
        type=values.restart,
        metavar="POLICY",
        help="start it again by itself: none, on-boot, always or on-failure, with :backoff, "
        f":immediate or :fixed=5s ({default})",
    )


def add_ttl(parser: Parser, default: str) -> None:
    """Add how long a VM may live."""
    parser.add_argument(
        "--ttl",
        type=values.ttl,
        metavar="TTL",
        help="how long it may live: none, 8h from its start, idle=30m without use, or both, "
        f"8h,idle=30m; with :stop, :pause or :delete for what happens then ({default})",
    )


def add_port(parser: Parser) -> None:
    """Add how a VM is connected."""
    parser.add_argument("--net", default="", metavar="NETWORK", help="network (default: default)")
    parser.add_argument("--ip", default="", metavar="ADDRESS", help="address (default: a free one)")
    add_names(parser, "the network's")
    add_policy(parser, "the network's")


def add_names(parser: Parser, default: str) -> None:
    """Add DNS servers and search domains."""
    parser.add_argument(
        "--dns",
        action="append",
        default=[],
        metavar="ADDRESS",
        help=f"DNS server that the resolver asks, or from-host; may be repeated ({default})",
    )
    parser.add_argument(
        "--search",
        action="append",
        default=[],
        metavar="DOMAIN",
        help=f"search domain; may be repeated (default: {default})",
    )
