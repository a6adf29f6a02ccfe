"""The balloon of a live VM: how much memory its guest is to give up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_rpc.errors import FailedPrecondition, invalid_field
from nexus_vmm.states import LIVE

if TYPE_CHECKING:
    from nexus_vmm.driver import Driver
    from nexus_vmm.operations.work import Work
    from nexus_vmm.records.store import Store
    from nexus_vmm.vm import Vm


class Balloons:
    """Sets balloons. What is set lasts as long as the process: the next start begins with 0."""

    def __init__(self, store: Store, driver: Driver, work: Work) -> None:
        self._store = store
        self._driver = driver
        self._work = work

    async def set(self, ref: str, amount_mib: int) -> Vm:
        """Have a VM's guest give up `amount_mib` MiB (see SetBalloon)."""
        return await self._work.run(self._set(ref, amount_mib))

    async def _set(self, ref: str, amount_mib: int) -> Vm:
        vm_id = (await self._store.find(ref)).id
        async with self._work.lock(vm_id):
            vm = await self._store.find(vm_id)
            _check(vm, amount_mib)
            await self._driver.set_balloon(vm.id, amount_mib)
            return vm


def _check(vm: Vm, amount_mib: int) -> None:
    """Refuse what the VM cannot do."""
    if vm.state not in LIVE:
        raise FailedPrecondition(
            "VM_STATE",
            f"VM {vm.name!r} is {vm.state}: only a live VM has a balloon to set (start it first)",
            vm=vm.name,
            state=vm.state,
        )
    if not vm.spec.balloon:
        raise FailedPrecondition(
            "NO_BALLOON",
            f"VM {vm.name!r} was started without a balloon; stop it, set `balloon` by UpdateVm, "
            "and start it again",
            vm=vm.name,
        )
    if amount_mib >= vm.spec.memory_mib:
        raise invalid_field(
            "amount_mib", amount_mib, f"less than the VM's memory, {vm.spec.memory_mib}"
        )
