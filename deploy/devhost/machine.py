"""The QEMU process of the dev host: start, stop, and whether it runs."""

from __future__ import annotations

import os
import re
import select
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.command import Failure, run
from deploy.devhost import qmp
from deploy.devhost.layout import ADDRESS, GRPC_PORTS, SSH_PORT

if TYPE_CHECKING:
    from deploy.devhost.layout import Layout

_MEMORY = "4G"
_STOP_SECONDS = 90.0
"""In which its microVMs are stopped in order, too."""
_TAIL_LINES = 25

_CMDLINE = (
    "console=ttyS0 root=/dev/vda rw panic=-1 quiet loglevel=4 tsc=reliable net.ifnames=0 "
    "cryptomgr.notests systemd.show_status=0 systemd.unit=multi-user.target"
)


def processors(
    cpuinfo: Path = Path("/proc/cpuinfo"), kvm: Path = Path("/dev/kvm")
) -> tuple[str, ...]:
    """Return QEMU's options for KVM where guests of it can have guests, else for emulation.

    The file alone proves nothing: there are machines where /dev/kvm exists and cannot run a stock
    kernel. What the CPU offers decides.

    Emulated, it gets one CPU: between two, QEMU 7.2 now and then loses an interrupt around a
    nested guest's exit, or takes it too early (docs/adr/0003). Five-level paging is off, as no
    microVM has it.
    """
    offers = re.search(r"\b(svm|vmx)\b", cpuinfo.read_text(encoding="ascii"))
    if offers and os.access(kvm, os.R_OK | os.W_OK):
        return ("-accel", "kvm", "-cpu", "host", "-smp", str(os.cpu_count() or 2))
    return ("-accel", "tcg", "-cpu", "max,la57=off", "-smp", "1")


class Machine:
    """The one dev host of a cache folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._monitor = layout.run / "qmp.sock"
        self._pid = layout.run / "qemu.pid"
        self._serial = layout.run / "serial.log"
        self._booted = layout.run / "image"

    def running(self) -> bool:
        """Whether QEMU runs."""
        return self._layout.run.is_dir() and qmp.execute(self._monitor, "query-status")

    def outdated(self) -> bool:
        """Whether what runs was booted from another image than the last built."""
        return self._booted.read_text(encoding="utf-8") != self._layout.image.readlink().name

    def start(self) -> None:
        """Start QEMU in the background. Raises Failure with what QEMU says if it cannot."""
        self._layout.run.mkdir(parents=True, exist_ok=True)
        for path in (self._monitor, self._pid, self._serial):
            path.unlink(missing_ok=True)
        ports = [(SSH_PORT, 22), *((port, port) for port in GRPC_PORTS)]
        for here, _ in ports:
            _check_free(here)
        forwards = "".join(
            f",hostfwd=tcp:127.0.0.1:{here}-{ADDRESS}:{there}" for here, there in ports
        )
        image = self._layout.image.resolve()
        self._booted.write_text(image.name, encoding="utf-8")
        run(
            [
                *("qemu-system-x86_64", *processors(), "-M", "q35"),
                *("-m", _MEMORY),
                *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
                *("-kernel", image / "vmlinuz", "-initrd", image / "initrd", "-append", _CMDLINE),
                # The root is as it was built at every start; the data disk is what persists.
                *(
                    "-drive",
                    f"file={image / 'root.img'},format=raw,if=virtio,snapshot=on,cache=unsafe",
                ),
                *("-drive", f"file={self._layout.data},format=raw,if=virtio,discard=unmap"),
                *(
                    "-netdev",
                    f"user,id=net,restrict=on{forwards}",
                    "-device",
                    "virtio-net-pci,netdev=net",
                ),
                *("-device", "virtio-rng-pci", "-serial", f"file:{self._serial}"),
                *("-qmp", f"unix:{self._monitor.name},server=on,wait=off"),
                *("-pidfile", self._pid, "-daemonize"),
            ],
            cwd=self._layout.run,
            env=os.environ | {"TMPDIR": str(self._layout.run)},  # where the snapshot goes
            timeout=30,
        )

    def wait_for_ssh(self, deadline: float) -> None:
        """Return once the ssh server answers. Raises Failure at `deadline` (time.monotonic)."""
        while not _greets(SSH_PORT):
            if not self.running():
                raise Failure(f"the dev host ended while it booted\n{self.serial_tail()}")
            if time.monotonic() > deadline:
                raise Failure(f"the dev host did not boot in time\n{self.serial_tail()}")
            time.sleep(0.2)

    def stop(self) -> bool:
        """Shut down cleanly, or by force if that takes too long. False: it was not running."""
        if not self.running():
            return False
        process = os.pidfd_open(int(self._pid.read_text(encoding="ascii")))
        try:
            for command, seconds in (("system_powerdown", _STOP_SECONDS), ("quit", 10.0)):
                qmp.execute(self._monitor, command)
                if select.select([process], [], [], seconds)[0]:
                    return True
        finally:
            os.close(process)
        raise Failure(f"QEMU does not end; kill the process in {self._pid}")

    def serial_tail(self) -> str:
        """Return the last lines of the serial console."""
        try:
            text = self._serial.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return "(nothing on the serial console)"
        return "\n".join([f"--- end of {self._serial}:", *text.splitlines()[-_TAIL_LINES:]])


def _check_free(port: int) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as QEMU does
        try:
            server.bind(("127.0.0.1", port))
        except OSError as error:
            raise Failure(
                f"port {port} of 127.0.0.1 is taken: {error.strerror}; another dev host may be "
                f"running: stop it, or see who it is with: ss -ltnp sport = {port}"
            ) from error


def _greets(port: int) -> bool:
    """Whether an ssh server says its version there. QEMU itself accepts any connection."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
            return client.recv(4) == b"SSH-"
    except OSError:
        return False
