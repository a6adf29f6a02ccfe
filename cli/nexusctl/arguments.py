"""The commands and their options. Only argparse is imported: parsing must cost next to nothing."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any, NoReturn

from nexusctl.failure import OWN, USAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

READY_SECONDS = 120.0
GRACE_SECONDS = 10
DEFAULT_IMAGE = "debian"

_SIZE = re.compile(r"(?P<mib>[0-9]{1,9})M?|(?P<gib>[0-9]{1,6})G", re.IGNORECASE)


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


def parser() -> Parser:
    """Return the parser of the whole command line."""
    root = Parser(
        prog="nexusctl",
        description="Create, run and look into Firecracker microVMs for AI agents.",
        epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 a service is unreachable, 4 not found, "
        "5 conflict. vm exec and vm run: the command's own, 125 for nexusctl's.",
    )
    _add_endpoint(root)
    commands = root.add_subparsers(metavar="COMMAND", required=True)
    status = _leaf(root, commands, "status", "health of the services, and how many VMs there are")
    _add_json(status)
    version = _leaf(root, commands, "version", "versions, and the images and kernels there are")
    _add_json(version)
    vm = commands.add_parser("vm", help="create, start, use and delete VMs")
    root.children["vm"] = vm
    _add_endpoint(vm)
    _add_vm(vm)
    bridge = _leaf(
        root, commands, "mcp-bridge", "carry MCP between stdio and a VM, for MCP clients"
    )
    bridge.add_argument("--vm", required=True, metavar="NAME", help="id or name of the VM")
    completion = _leaf(root, commands, "completion", "print a completion script for a shell")
    completion.add_argument("shell", choices=["bash", "zsh"], metavar="SHELL", help="bash or zsh")
    return root


def _add_vm(vm: Parser) -> None:
    commands = vm.add_subparsers(metavar="COMMAND", required=True)

    create = _leaf(vm, commands, "create", "make a VM with its disk and its network port")
    create.add_argument("vm", metavar="NAME", help="name: 1 to 63 of a-z, 0-9 and '-'")
    create.add_argument(
        "--image", default=DEFAULT_IMAGE, help=f"guest image (default {DEFAULT_IMAGE})"
    )
    _add_spec(create)
    _add_json(create)

    start = _leaf(vm, commands, "start", "boot a VM and wait until its guest is ready")
    _add_name(start)
    start.add_argument("--no-wait", action="store_true", help="do not wait for the guest")
    _add_timeout(start)
    _add_json(start)

    stop = _leaf(vm, commands, "stop", "stop a VM; its disk stays")
    _add_name(stop)
    _add_grace(stop)
    _add_json(stop)

    delete = _leaf(vm, commands, "delete", "delete a VM, its disk and its network port")
    _add_name(delete)
    delete.add_argument("--yes", "-y", action="store_true", help="do not ask")
    delete.add_argument("--force", action="store_true", help="stop it first if it is live")

    list_ = _leaf(vm, commands, "list", "list the VMs, oldest first")
    form = list_.add_mutually_exclusive_group()
    list_.options.append(form.add_argument("--json", action="store_true", help="print JSON"))
    list_.options.append(
        form.add_argument("--quiet", "-q", action="store_true", help="print ids only")
    )

    inspect = _leaf(vm, commands, "inspect", "all that the three services know of a VM")
    _add_name(inspect)
    _add_json(inspect)

    logs = _leaf(vm, commands, "logs", "what the serial console printed; the last 1 MiB is kept")
    _add_name(logs)
    logs.add_argument("--tail", type=_positive, metavar="N", help="only the last N lines")
    _add_json(logs)

    exec_ = _leaf(vm, commands, "exec", "run a command in a VM; piped stdin goes to it, to 1 MiB")
    _add_name(exec_)
    _add_command(exec_)

    run = _leaf(vm, commands, "run", "create a VM, run a command in it, delete the VM again")
    run.add_argument("image", metavar="IMAGE", help="guest image")
    _add_spec(run)
    _add_timeout(run)
    _add_command(run)

    cp = _leaf(vm, commands, "cp", "copy a file into a VM or out of it, with its mode")
    cp.add_argument("source", metavar="SRC", help="FILE, NAME:/PATH, or - for stdin")
    cp.add_argument("target", metavar="DST", help="FILE, NAME:/PATH, or - for stdout")


def _leaf(parent: Parser, commands: Any, name: str, text: str) -> Parser:  # noqa: ANN401  # argparse keeps this class private
    leaf: Parser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    parent.children[name] = leaf
    leaf.module = leaf.prog.removeprefix("nexusctl ").replace(" ", "_").replace("-", "_")
    leaf.set_defaults(leaf=leaf)
    _add_endpoint(leaf)
    return leaf


def _add_endpoint(leaf: Parser) -> None:
    leaf.add_argument(
        "--endpoint",
        default=argparse.SUPPRESS,  # or a leaf's default would undo what stood before the command
        help="unix:DIR or tls://HOST:PORT (NEXUS_ENDPOINT; default unix:/run/nexus)",
    )


def _add_name(leaf: Parser) -> None:
    leaf.add_argument("vm", metavar="NAME", help="id or name of the VM")


def _add_json(leaf: Parser) -> None:
    leaf.add_argument("--json", action="store_true", help="print JSON")


def _add_spec(leaf: Parser) -> None:
    leaf.add_argument("--kernel", default="", help="guest kernel (default: default)")
    leaf.add_argument("--cpus", type=_whole, metavar="N", help="vCPUs (default 1)")
    leaf.add_argument(
        "--memory",
        type=_mebibytes,
        metavar="MIB",
        help="memory, 512 or 2G (default 128)",
    )
    leaf.add_argument(
        "--disk", type=_mebibytes, metavar="MIB", help="disk, 512 or 2G (default 2048)"
    )
    leaf.add_argument("--no-network", action="store_true", help="no network port")


def _add_timeout(leaf: Parser) -> None:
    leaf.add_argument(
        "--timeout",
        type=_seconds,
        default=READY_SECONDS,
        metavar="S",
        help=f"seconds to wait for the guest (default {READY_SECONDS:g})",
    )


def _add_grace(leaf: Parser) -> None:
    leaf.add_argument(
        "--grace",
        type=_whole,
        default=GRACE_SECONDS,
        metavar="S",
        help=f"seconds to shut down before it is killed, 0 to 300 (default {GRACE_SECONDS})",
    )


def _add_command(leaf: Parser) -> None:
    leaf.takes_command = True
    leaf.usage = f"{leaf.prog} [options] {'IMAGE' if leaf.module == 'vm_run' else 'NAME'} -- CMD..."
    leaf.add_argument(
        "--env",
        type=_variable,
        action="append",
        default=[],
        metavar="K=V",
        help="add to the command's environment; may be repeated",
    )
    leaf.add_argument("--cwd", default="", metavar="DIR", help="its working directory")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options, `leaf` (the command's parser) and `argv` (what stood after "--").

    Exits with the usage code, or prints help, as argparse does.
    """
    words = list(argv)
    cut = words.index("--") if "--" in words else len(words)
    root = parser()
    options, rest = root.parse_known_args(words[:cut])
    leaf: Parser = options.leaf
    options.argv = words[cut + 1 :]
    if rest and leaf.takes_command:
        leaf.error(f"put -- before the command: {leaf.usage}")
    if rest:
        leaf.error(f"unknown arguments: {' '.join(rest)}")
    if leaf.takes_command and not options.argv:
        leaf.error(f"a command is missing: {leaf.usage}")
    if options.argv and not leaf.takes_command:
        leaf.error("nothing may follow after --")
    return options


def _positive(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return value


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to a day")
    return value


def _mebibytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size in MiB, such as 512 or 2G")
    return int(match["gib"]) * 1024 if match["gib"] else int(match["mib"])


def _variable(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not K=V")
    return key, value
