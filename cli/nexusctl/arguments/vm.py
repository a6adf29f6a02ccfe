"""The commands about VMs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl.arguments import shared, values
from nexusctl.arguments.listing import add_list
from nexusctl.arguments.parsing import add_json, add_yes, leaf

if TYPE_CHECKING:
    from typing import Any

    from nexusctl.arguments.parsing import Parser

READY_SECONDS = 120.0


def add_vm(vm: Parser) -> None:
    """Add them all."""
    commands = vm.add_subparsers(metavar="COMMAND", required=True)

    create = leaf(vm, commands, "create", "make a VM with its disk and its network port")
    create.add_argument("vm", metavar="NAME", help="name: 1 to 63 of a-z, 0-9 and '-'")
    create.add_argument("--image", default="", help="guest image (default: default.image)")
    _add_spec(create)
    shared.add_restart(create, "default: none")
    create.add_argument("--balloon", action="store_true", help="offer a balloon (see vm balloon)")
    create.add_argument("--serial-input", action="store_true", help="let vm console type into it")
    add_json(create)

    update = leaf(vm, commands, "update", "change a VM that there is")
    _add_name(update)
    _add_update(update)
    add_json(update)

    start = leaf(vm, commands, "start", "boot a VM and wait until its guest is ready")
    _add_name(start)
    start.add_argument("--no-wait", action="store_true", help="do not wait for the guest")
    _add_timeout(start)
    add_json(start)

    stop = leaf(vm, commands, "stop", "stop a VM; its disk stays")
    _add_name(stop)
    _add_grace(stop)
    add_json(stop)

    for name, text in (
        ("pause", "halt a VM's vCPUs; its memory and process stay"),
        ("resume", "let a paused VM go on"),
    ):
        halt = leaf(vm, commands, name, text)
        _add_name(halt)
        add_json(halt)

    balloon = leaf(vm, commands, "balloon", "have the guest of a live VM give up memory")
    _add_name(balloon)
    balloon.add_argument(
        "amount", type=values.mebibytes, metavar="MIB", help="memory to give up, 512 or 2G; 0: none"
    )
    add_json(balloon)

    delete = leaf(vm, commands, "delete", "delete a VM, its disk and its network port")
    _add_name(delete)
    add_yes(delete)
    delete.add_argument("--force", action="store_true", help="stop it first if it is live")

    _add_insight(vm, commands)

    _add_consoles(vm, commands)

    exec_ = leaf(vm, commands, "exec", "run a command in a VM; piped stdin goes to it, to 1 MiB")
    _add_name(exec_)
    _add_command(exec_)

    run = leaf(vm, commands, "run", "create a VM, run a command in it, delete the VM again")
    run.add_argument("image", metavar="IMAGE", help="guest image")
    _add_spec(run)
    _add_timeout(run)
    _add_command(run)

    cp = leaf(vm, commands, "cp", "copy a file into a VM or out of it, with its mode")
    cp.add_argument("source", metavar="SRC", help="FILE, NAME:/PATH, or - for stdin")
    cp.add_argument("target", metavar="DST", help="FILE, NAME:/PATH, or - for stdout")


def _add_insight(vm: Parser, commands: Any) -> None:  # noqa: ANN401  # argparse keeps this class private
    add_list(leaf(vm, commands, "list", "list the VMs, oldest first"))

    watch = leaf(vm, commands, "watch", "the VMs as they are, and then each change")
    watch.add_argument(
        "--after",
        type=values.revision,
        default=0,
        metavar="REVISION",
        help="only what changed after this revision, as an earlier watch told it",
    )
    add_json(watch)

    inspect = leaf(vm, commands, "inspect", "all that the three services know of a VM")
    _add_name(inspect)
    add_json(inspect)


def _add_consoles(vm: Parser, commands: Any) -> None:  # noqa: ANN401  # argparse keeps this class private
    logs = leaf(vm, commands, "logs", "what the serial console printed; the last 1 MiB is kept")
    _add_name(logs)
    logs.add_argument("--tail", type=values.positive, metavar="N", help="only the last N lines")
    logs.add_argument(
        "--since",
        type=values.since,
        metavar="TIME",
        help="only what was printed then or later: 10m, 2h, 3d, or 2026-01-31T12:00:00Z",
    )
    logs.add_argument("--follow", "-f", action="store_true", help="go on as the console prints")
    add_json(logs)

    console = leaf(vm, commands, "console", "type into the serial console; ~. leaves")
    _add_name(console)


def _add_name(parser: Parser) -> None:
    parser.add_argument("vm", metavar="NAME", help="id or name of the VM")


def _add_update(parser: Parser) -> None:
    shared.add_restart(parser, "at any time")
    shared.add_ttl(parser, "at any time")
    _add_tag(parser, "set a tag, at any time; the others stay")
    parser.add_argument(
        "--untag",
        dest="untagged",
        action="append",
        default=[],
        metavar="K",
        help="take a tag away, if it is there; may be repeated",
    )
    _add_size(parser, "of a VM that is not live")
    parser.add_argument(
        "--disk",
        type=values.mebibytes,
        metavar="MIB",
        help="a larger disk, 512 or 2G (of a VM that is not live); it never gets smaller",
    )
    parser.add_argument(
        "--balloon",
        choices=["on", "off"],
        help="whether it has a balloon (of a VM that is not live)",
    )
    parser.add_argument(
        "--serial-input",
        choices=["on", "off"],
        help="whether vm console may type into it (of a VM that is not live)",
    )
    parser.add_argument(
        "--etag",
        default="",
        metavar="ETAG",
        help="change it only if its etag is still this one, as vm inspect tells it",
    )


def _add_size(parser: Parser, cpus: str, memory: str = "") -> None:
    parser.add_argument("--cpus", type=values.whole, metavar="N", help=f"vCPUs ({cpus})")
    parser.add_argument(
        "--memory",
        type=values.mebibytes,
        metavar="MIB",
        help=f"memory, 512 or 2G ({memory or cpus})",
    )


def _add_spec(parser: Parser) -> None:
    parser.add_argument("--kernel", default="", help="guest kernel (default: default.kernel)")
    _add_size(parser, "default: default.vcpu_count", "default: default.memory_mib")
    parser.add_argument(
        "--disk",
        type=values.mebibytes,
        metavar="MIB",
        help="disk, 512 or 2G (default: default.disk_mib)",
    )
    _add_tag(parser, "a label, to list VMs and to set quotas by")
    shared.add_ttl(parser, "default: none")
    parser.add_argument("--no-network", action="store_true", help="no network port")
    shared.add_port(parser)
    parser.add_argument(
        "--publish",
        action="append",
        default=[],
        metavar="PORTS",
        help="forward a port of the host, 8080:80; may be repeated",
    )


def _add_tag(parser: Parser, text: str) -> None:
    parser.add_argument(
        "--tag",
        dest="tags",
        type=values.tag,
        action="append",
        default=[],
        metavar="K=V",
        help=f"{text}; may be repeated",
    )


def _add_timeout(parser: Parser) -> None:
    parser.add_argument(
        "--timeout",
        type=values.seconds,
        default=READY_SECONDS,
        metavar="S",
        help=f"seconds to wait for the guest (default {READY_SECONDS:g})",
    )


def _add_grace(parser: Parser) -> None:
    parser.add_argument(
        "--grace",
        type=values.whole,
        metavar="S",
        help="seconds to shut down before it is killed, 0 to 300 (default: stop.grace_seconds)",
    )


def _add_command(parser: Parser) -> None:
    parser.takes_command = True
    subject = "IMAGE" if parser.module == "vm_run" else "NAME"
    parser.usage = f"{parser.prog} [options] {subject} -- CMD..."
    parser.add_argument(
        "--env",
        type=values.variable,
        action="append",
        default=[],
        metavar="K=V",
        help="add to the command's environment; may be repeated",
    )
    parser.add_argument("--cwd", default="", metavar="DIR", help="its working directory")
