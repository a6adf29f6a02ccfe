"""The commands and their options. Only argparse is imported: parsing must cost next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl.arguments.config import add_config
from nexusctl.arguments.net import add_net
from nexusctl.arguments.parsing import Parser, add_endpoint, add_json, group, leaf
from nexusctl.arguments.vm import add_vm

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["Parser", "parse", "parser"]


def parser() -> Parser:
    """Return the parser of the whole command line."""
    root = Parser(
        prog="nexusctl",
        description="Create, run and look into Firecracker microVMs for AI agents.",
        epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 a service is unreachable, 4 not found, "
        "5 conflict, 6 net explain: refused. vm exec and vm run: the command's own, 125 for "
        "nexusctl's.",
    )
    add_endpoint(root)
    commands = root.add_subparsers(metavar="COMMAND", required=True)
    status = leaf(root, commands, "status", "health of the services, and how many VMs there are")
    add_json(status)
    version = leaf(root, commands, "version", "versions, and the images and kernels there are")
    add_json(version)
    add_vm(group(root, commands, "vm", "create, start, use and delete VMs"))
    add_net(group(root, commands, "net", "networks, and what VMs may reach"))
    add_config(group(root, commands, "config", "what holds for all VMs of the host"))
    firewall = leaf(
        root, commands, "setup-firewall", "let guests through other firewalls of this host"
    )
    form = firewall.add_mutually_exclusive_group()
    for name, text in (
        ("--dry-run", "print the commands, and run none (the default)"),
        ("--apply", "run them"),
    ):
        firewall.options.append(form.add_argument(name, action="store_true", help=text))
    bridge = leaf(root, commands, "mcp-bridge", "carry MCP between stdio and a VM, for MCP clients")
    bridge.add_argument("--vm", required=True, metavar="NAME", help="id or name of the VM")
    completion = leaf(root, commands, "completion", "print a completion script for a shell")
    completion.add_argument("shell", choices=["bash", "zsh"], metavar="SHELL", help="bash or zsh")
    return root


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options, `leaf` (the command's parser) and `argv` (what stood after "--").

    Exits with the usage code, or prints help, as argparse does.
    """
    words = list(argv)
    cut = words.index("--") if "--" in words else len(words)
    root = parser()
    options, rest = root.parse_known_args(words[:cut])
    command: Parser = options.leaf
    options.argv = words[cut + 1 :]
    if rest and command.takes_command:
        command.error(f"put -- before the command: {command.usage}")
    if rest:
        command.error(f"unknown arguments: {' '.join(rest)}")
    if command.takes_command and not options.argv:
        command.error(f"a command is missing: {command.usage}")
    if options.argv and not command.takes_command:
        command.error("nothing may follow after --")
    return options
