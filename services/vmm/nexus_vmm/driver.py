"""The port to the machine monitor: what vmm asks of whatever runs a VM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from signal import Signals

    from nexus_vmm.vm import Boot, Exit, Spec, Vm


class Driver(Protocol):
    """Runs machines. Every method but `start` may be repeated without harm.

    Calls for one VM come one after the other, `wait` excepted.
    """

    async def create(self, vm_id: str, spec: Spec) -> None:
        """Make the VM's disk. Raises NotFound (IMAGE_NOT_FOUND), ResourceExhausted (DISK_FULL)."""

    async def start(self, vm: Vm) -> Boot:
        """Boot the machine. What a failed start leaves behind, `kill` removes.

        Raises FailedPrecondition (BOOT_FAILED) with the monitor's own words, and NotFound
        (IMAGE_NOT_FOUND).
        """

    async def ask(self, vm_id: str) -> None:
        """Press Ctrl-Alt-Del, on which a guest shuts down, and do not wait for that.

        Raises Unavailable (FIRECRACKER_SILENT), also where Firecracker refuses.
        """

    async def signal(self, vm_id: str, number: Signals) -> None:
        """Send SIGTERM or SIGKILL to the machine's process, if there is one, and do not wait.

        The way the machine ended is not forgotten before `kill`.
        """

    async def pause(self, vm_id: str) -> None:
        """Halt the machine's vCPUs.

        Raises FailedPrecondition (PAUSE_REFUSED), Unavailable (FIRECRACKER_SILENT).
        """

    async def resume(self, vm_id: str) -> None:
        """Let the machine's vCPUs run. Raises as `pause` does."""

    async def set_balloon(self, vm_id: str, amount_mib: int) -> None:
        """Have the machine's balloon take `amount_mib` MiB from the guest.

        Raises FailedPrecondition (BALLOON_REFUSED), Unavailable (FIRECRACKER_SILENT).
        """

    async def kill(self, vm_id: str) -> None:
        """Make sure that no process and nothing else of a run is left."""

    async def wait(self, vm_id: str, boot: str = "") -> Exit:
        """Return how the machine ended, once it has, or has given way to another boot."""

    async def describe(self, vm_id: str) -> Boot | Exit:
        """Return the process as it is: its boot (of an unknown version), or how it ended."""

    async def traffic(self, vm: Vm) -> int:
        """Return how many packets the VM's TAP has carried, both ways; 0 if it has none."""

    async def adopt(self, vm_id: str) -> Boot | None:
        """Return the machine if it booted, whoever booted it; None if it never did."""

    async def last_words(self, vm_id: str) -> str:
        """Return the last lines of the machine's console as one short line, or ""."""

    async def delete(self, vm_id: str) -> None:
        """Remove the VM's disk and all else that `create` made."""

    async def discard(self, vm_id: str) -> bool:
        """Do as `delete` does, but leave a disk that holds data. Returns whether it is gone."""

    async def inventory(self) -> set[str]:
        """Return the ids of VMs of which anything exists: process, disk or directory."""
