"""A parser that remembers what it was given, and the parts that commands share."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from nexusctl.failure import OWN, USAGE


class Parser(argparse.ArgumentParser):
    """A parser that remembers its options and commands, for completion and for the manual's test.

    `module` is the module of `nexusctl.commands` that runs the command; `takes_command` says that
    a command for the guest follows after "--".
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  # argparse's own
        self.options: list[argparse.Action] = []
        self.children: dict[str, Parser] = {}
        self.module = ""
        self.takes_command = False
        options.setdefault("allow_abbrev", False)
        super().__init__(*arguments, **options)

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:  # noqa: ANN401
        """Add an option or argument, and remember it."""
        action: argparse.Action = super().add_argument(*names, **options)
        self.options.append(action)
        return action

    def error(self, message: str) -> NoReturn:
        """Tell a usage error, with the way to the help."""
        self.exit(
            OWN if self.takes_command else USAGE,
            f"nexusctl: {message}\ntry: {self.prog} --help\n",
        )


def group(root: Parser, commands: Any, name: str, text: str) -> Parser:  # noqa: ANN401  # argparse keeps this class private
    """Add a word that commands follow after."""
    added: Parser = commands.add_parser(name, help=text)
    root.children[name] = added
    add_endpoint(added)
    return added


def leaf(parent: Parser, commands: Any, name: str, text: str) -> Parser:  # noqa: ANN401  # as above
    """Add a command."""
    added: Parser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    parent.children[name] = added
    added.module = added.prog.removeprefix("nexusctl ").replace(" ", "_").replace("-", "_")
    added.set_defaults(leaf=added)
    add_endpoint(added)
    return added


def add_endpoint(parser: Parser) -> None:
    """Add the option that may stand anywhere."""
    parser.add_argument(
        "--endpoint",
        default=argparse.SUPPRESS,  # or a leaf's default would undo what stood before the command
        help="unix:DIR or tls://HOST:PORT (NEXUS_ENDPOINT; default unix:/run/nexus)",
    )


def add_json(parser: Parser) -> None:
    """Add the option for output that programs read."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_yes(parser: Parser) -> None:
    """Add the option for what is asked about otherwise."""
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
