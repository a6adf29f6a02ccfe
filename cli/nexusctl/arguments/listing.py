"""The options of `vm list`.

What they name is told by words here: to load what the words stand for would cost every command.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nexusctl.arguments import values

if TYPE_CHECKING:
    from nexusctl.arguments.parsing import Parser

STATES = (
    "created",
    "running",
    "online",
    "provisioning",
    "ready",
    "unreachable",
    "paused",
    "stopped",
    "crashed",
    "failed",
)
ORDERS = ("created", "name", "changed", "memory")
COLUMNS = (
    "name",
    "id",
    "state",
    "reason",
    "changed",
    "address",
    "image",
    "kernel",
    "cpus",
    "memory",
    "disk",
    "restart",
    "ttl",
    "expires",
    "tags",
    "exit",
    "pid",
    "uid",
    "age",
)
DEFAULT_COLUMNS = ("name", "id", "state", "address", "image", "restart", "age")


def add_list(parser: Parser) -> None:
    """Add them all."""
    _add_filter(parser)
    parser.add_argument(
        "--order", choices=ORDERS, default="created", help="what to order by (default created)"
    )
    parser.add_argument("--reverse", action="store_true", help="the other way round")
    form = parser.add_mutually_exclusive_group()
    parser.options.append(
        form.add_argument(
            "--columns",
            type=columns,
            default=DEFAULT_COLUMNS,
            metavar="NAMES",
            help=f"what to print of each, {','.join(DEFAULT_COLUMNS)}; also "
            + ",".join(name for name in COLUMNS if name not in DEFAULT_COLUMNS),
        )
    )
    parser.options.append(form.add_argument("--json", action="store_true", help="print JSON"))
    parser.options.append(
        form.add_argument("--quiet", "-q", action="store_true", help="print ids only")
    )


def _add_filter(parser: Parser) -> None:
    parser.add_argument(
        "--state",
        dest="states",
        choices=STATES,
        action="append",
        default=[],
        help="only in this state; may be repeated",
    )
    parser.add_argument(
        "--tag",
        dest="tags",
        type=values.wanted_tag,
        action="append",
        default=[],
        metavar="K[=V]",
        help="only with this tag; may be repeated, and all must be there",
    )
    parser.add_argument("--name", default="", metavar="PREFIX", help="only whose name begins so")
    parser.add_argument("--image", default="", metavar="IMAGE", help="only made from this image")


def columns(text: str) -> tuple[str, ...]:
    """Return the names of columns, in their order."""
    names = tuple(text.split(","))
    if not set(names) <= set(COLUMNS):
        raise argparse.ArgumentTypeError(f"{text!r} is not some of {','.join(COLUMNS)}")
    return names
