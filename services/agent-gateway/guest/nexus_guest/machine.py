"""The guest machine: hostname, network, names and the way out."""

from __future__ import annotations

import os
import signal
import socket

from nexus_guest.errors import GuestError
from nexus_guest.files import Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from nexus_guest.network import Network

_MARK = "# set by nexus"
_MAX_HOSTS = 1 << 20


class Guest:
    """The machine that the agent runs in. Each step that fails is a warning; the rest is done."""

    def configure(self, hostname: str, network: Network | None) -> list[str]:
        """Set hostname, network and name resolution; return the warnings."""
        steps: list[tuple[str, Callable[[], None]]] = [
            ("hostname", lambda: socket.sethostname(hostname)),
            ("/etc/hostname", lambda: _replace("/etc/hostname", f"{hostname}\n")),
            ("/etc/hosts", lambda: _replace("/etc/hosts", hosts(_hosts(), hostname))),
        ]
        if network is not None:
            steps.append(("network", network.apply))
            steps.append(("IPv6", network.apply_ipv6))
            steps.append(("/etc/resolv.conf", lambda: _set_dns(network.dns, network.search)))
        warnings = []
        for name, step in steps:
            try:
                step()
            except (OSError, GuestError) as error:
                warnings.append(f"{name}: {error}")
        return warnings

    def shut_down(self) -> None:
        """Have init shut the machine down in order; it is reset, so Firecracker ends (`reboot=k`).

        SIGINT is what the kernel sends to init at Ctrl-Alt-Del (reboot(2)). An init that takes no
        notice of it is left to the host, whose patience ends.
        """
        os.kill(1, signal.SIGINT)
        os.sync()  # for a machine that is slow, and is not waited for


def hosts(text: str, hostname: str) -> str:
    """Return `text`, an /etc/hosts, with one line for `hostname` in place of an earlier one."""
    kept = [line for line in text.splitlines() if not line.endswith(_MARK)]
    if not any(line.split()[:1] == ["127.0.0.1"] for line in kept):
        kept.insert(0, "127.0.0.1\tlocalhost")
    return "\n".join([*kept, f"127.0.1.1\t{hostname}\t{_MARK}"]) + "\n"


def _hosts() -> str:
    try:
        with open("/etc/hosts", "rb") as file:
            return file.read(_MAX_HOSTS).decode(errors="surrogateescape")
    except FileNotFoundError:
        return ""


def _set_dns(servers: list[str], search: list[str]) -> None:
    # A link here leads to a resolver of the image that knows nothing of these servers.
    if os.path.islink("/etc/resolv.conf"):
        os.unlink("/etc/resolv.conf")
    lines = [f"search {' '.join(search)}"] if search else []
    lines += [f"nameserver {server}" for server in servers]
    _replace("/etc/resolv.conf", "".join(f"{line}\n" for line in lines))


def _replace(path: str, text: str) -> None:
    writer = Writer(path, None, parents=True)
    try:
        writer.write(text.encode(errors="surrogateescape"))
        writer.commit()
    finally:
        writer.close()
