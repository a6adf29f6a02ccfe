"""Starts the agent: `python -m nexus_guest` in a guest, with `--unix DIR` outside of one."""

from __future__ import annotations

import signal
import sys

from nexus_guest.control import Control
from nexus_guest.listener import Listener, listen_unix, listen_vsock
from nexus_guest.wire import CONTROL_PORT, MCP_PORT, STREAM_PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket

    from nexus_guest.control import Machine


def main(arguments: list[str]) -> int:
    """Serve the three ports until a signal ends the process."""
    match arguments:
        case []:
            sockets = {port: listen_vsock(port) for port in (CONTROL_PORT, MCP_PORT, STREAM_PORT)}
        case ["--unix", directory]:
            sockets = {
                port: listen_unix(f"{directory}/{port}.sock")
                for port in (CONTROL_PORT, MCP_PORT, STREAM_PORT)
            }
        case _:
            print("usage: python -m nexus_guest [--unix DIR]", file=sys.stderr)  # noqa: T201
            return 2
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        # A shell that starts us in the background has them ignored, and commands would inherit it.
        signal.signal(number, signal.SIG_DFL)
    _serve(sockets, in_guest=not arguments)
    while True:
        signal.pause()


def _serve(sockets: dict[int, socket], *, in_guest: bool) -> None:
    control = Control(_machine(in_guest=in_guest))
    Listener(sockets[CONTROL_PORT], control.serve, control.refuse).start()
    # Hello is answered while these are still being imported; their connections wait in the backlog.
    from nexus_guest import mcp, streams  # noqa: PLC0415

    Listener(sockets[STREAM_PORT], streams.serve, streams.refuse).start()
    Listener(sockets[MCP_PORT], mcp.serve, mcp.refuse).start()


def _machine(*, in_guest: bool) -> Machine:
    if in_guest:
        from nexus_guest.machine import Guest  # noqa: PLC0415

        return Guest()
    from nexus_guest.outside import Bystander  # noqa: PLC0415

    return Bystander()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
