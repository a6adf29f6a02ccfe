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

_RB_AUTOBOOT = 0x01234567
_MARK = "# set by nexus"
_MAX_HOSTS = 1 << 20
_MAX_STATUS = 1 << 16


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

        Where init takes no notice of that, the disks are written and it is reset from here.
        """
        asked = heeds(_status_of_init(), signal.SIGINT)
        if asked:
            os.kill(1, signal.SIGINT)  # as the kernel does at Ctrl-Alt-Del (reboot(2))
        os.sync()  # before patience with a slow init ends
        if not asked:
            import ctypes  # noqa: PLC0415 - at start-up it would cost 100 ms

            ctypes.CDLL(None).reboot(_RB_AUTOBOOT)


def heeds(status: str, number: int) -> bool:
    """Return whether a process of that /proc/PID/status catches a signal, or waits for it.

    Those who wait by signalfd(2) or sigwait(3) have it blocked, as systemd and BusyBox have.
    """
    masks = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    try:
        taken = int(masks["SigCgt"], 16) | int(masks["SigBlk"], 16)
    except (KeyError, ValueError):
        return False
    return bool(taken >> (number - 1) & 1)


def _status_of_init() -> str:
    try:
        with open("/proc/1/status", encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_STATUS)
    except OSError:
        return ""


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
