"""Calls of clients, for a `vmm_stage.Stage`: each function lets one client make one."""

from nexus_vmm.states import Event
from nexus_vmm.vm import Exit, RestartPolicy, TimeToLive

ENDS = (
    Exit("shutdown", "the guest shut down", code=0),
    Exit("error", "Firecracker ended with exit code 1", code=1),
    Exit("signal", "Firecracker was ended by SIGKILL", signal=9),
)
NO_POLICY = RestartPolicy()
NO_END = TimeToLive()
GUEST = (Event.HELLO, Event.PROVISIONING, Event.READY, Event.LOST)


def create(stage, name, vm_id="", request_id="", memory_mib=128, policy=NO_POLICY, ttl=NO_END):
    spec = {"memory_mib": memory_mib, "restart": policy, "ttl": ttl}
    stage.call(
        "CreateVm",
        name,
        lambda vmm: vmm.create(name, vm_id, request_id, **spec),
        request_id=request_id,
        body=(vm_id, *spec.values()),
    )


def start(stage, ref, request_id="", budget=None):
    stage.call(
        "StartVm", ref, lambda vmm: vmm.start(ref, request_id, budget), request_id=request_id
    )


def stop(stage, ref, request_id="", grace=10):
    stage.call("StopVm", ref, lambda vmm: vmm.stop(ref, request_id, grace), request_id=request_id)


def pause(stage, ref, request_id=""):
    stage.call("PauseVm", ref, lambda vmm: vmm.pause(ref, request_id), request_id=request_id)


def resume(stage, ref, request_id=""):
    stage.call("ResumeVm", ref, lambda vmm: vmm.resume(ref, request_id), request_id=request_id)


def delete(stage, ref, request_id=""):
    stage.call("DeleteVm", ref, lambda vmm: vmm.delete(ref, request_id), request_id=request_id)


def touch(stage, ref):
    stage.call("TouchVm", ref, lambda vmm: vmm.touch(ref))


def drain(stage, grace=10):
    stage.call("DrainVms", "", lambda vmm: vmm.drain(grace))


def update(stage, ref, request_id="", fields=("restart",), etag="", **spec):
    stage.call(
        "UpdateVm",
        ref,
        lambda vmm: vmm.update(fields, ref, request_id, etag, **spec),
        request_id=request_id,
        body=(etag, *fields, *sorted(spec.items())),
    )


def report(stage, ref, event, stale=False):
    """Let the gateway say what a guest did, in the VM's boot or in an earlier one."""
    vm = next((vm for vm in stage.vms() if ref in (vm.id, vm.name)), None)
    boot = "boot-0" if stale or vm is None else vm.boot
    stage.call(
        "ReportGuest",
        ref,
        lambda vmm: vmm.supervisor.report(ref, boot, event, "as the gateway says"),
        body=(event,),
        boot=boot,
    )
