"""The commands about settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl.arguments import values
from nexusctl.arguments.parsing import add_json, leaf

if TYPE_CHECKING:
    from nexusctl.arguments.parsing import Parser


def add_config(config: Parser) -> None:
    """Add them all."""
    commands = config.add_subparsers(metavar="COMMAND", required=True)

    get = leaf(config, commands, "get", "print the value of a setting")
    get.add_argument("name", metavar="NAME", help="name, default.memory_mib")
    add_json(get)

    set_ = leaf(config, commands, "set", "change settings, all or none; they hold at once")
    set_.add_argument(
        "values",
        type=values.setting,
        nargs="+",
        metavar="NAME=VALUE",
        help="the new value; an empty one takes the default again",
    )
    set_.add_argument(
        "--expect",
        type=values.whole,
        default=0,
        metavar="VERSION",
        help="change them only if their version is still this one",
    )
    add_json(set_)

    add_json(leaf(config, commands, "list", "list the settings with their values"))
    add_json(leaf(config, commands, "history", "list the versions, the newest first"))

    rollback = leaf(config, commands, "rollback", "bring the values of an earlier version back")
    rollback.add_argument(
        "version", type=values.whole, metavar="VERSION", help="as history tells it; 0: the defaults"
    )
    add_json(rollback)
