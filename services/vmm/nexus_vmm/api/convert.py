"""Between what is known of a VM and what the proto says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.ids import vm_uid
from nexus_vmm.api.policy import policy_to_proto
from nexus_vmm.api.ttl import ttl_to_proto
from nexus_vmm.lifetime import ends_at
from nexus_vmm.records.amend import etag
from nexus_vmm.states import LIVE, Event, State
from nexus_vmm.vm import TimeToLive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nexus_vmm.limits.capacity import Budget
    from nexus_vmm.places import Places
    from nexus_vmm.vm import Exit, Network, Spec, Transition, Vm

STATES: dict[State, vmm_pb2.VmState.ValueType] = {
    State.CREATED: vmm_pb2.VM_STATE_CREATED,
    State.RUNNING: vmm_pb2.VM_STATE_RUNNING,
    State.ONLINE: vmm_pb2.VM_STATE_ONLINE,
    State.PROVISIONING: vmm_pb2.VM_STATE_PROVISIONING,
    State.READY: vmm_pb2.VM_STATE_READY,
    State.UNREACHABLE: vmm_pb2.VM_STATE_UNREACHABLE,
    State.PAUSED: vmm_pb2.VM_STATE_PAUSED,
    State.STOPPED: vmm_pb2.VM_STATE_STOPPED,
    State.CRASHED: vmm_pb2.VM_STATE_CRASHED,
    State.FAILED: vmm_pb2.VM_STATE_FAILED,
}
"""The states as the API numbers them."""

_FOR_EVER = TimeToLive()

GUEST_EVENTS: dict[vmm_pb2.GuestEvent.ValueType, Event] = {
    vmm_pb2.GUEST_EVENT_HELLO: Event.HELLO,
    vmm_pb2.GUEST_EVENT_PROVISIONING: Event.PROVISIONING,
    vmm_pb2.GUEST_EVENT_READY: Event.READY,
    vmm_pb2.GUEST_EVENT_LOST: Event.LOST,
}


def to_proto(vm: Vm, places: Places, history: Sequence[Transition] = ()) -> vmm_pb2.Vm:
    """Return `vm` as the API tells it."""
    return vmm_pb2.Vm(
        id=vm.id,
        name=vm.name,
        spec=_spec(vm.spec),
        state=STATES[vm.state],
        state_reason=vm.reason,
        create_time=to_time(vm.created),
        state_time=to_time(vm.changed),
        boot=vm.boot,
        vsock_path=str(places.vsock(vm.id)) if vm.state in LIVE else "",
        cid=vm.cid,
        pid=vm.pid,
        history=[_transition(change) for change in history],
        next_start_time=to_time(vm.restarts.due) if vm.restarts.due else None,
        restarts=vm.restarts.count,
        etag=etag(vm),
        expire_time=to_time(end) if (end := ends_at(vm)) else None,
        expiring=vm.lifetime.warned,
        stopping=vm.stopping,
        last_exit=_exit(vm.last_exit) if vm.last_exit else None,
        uid=0 if vm.damage else vm_uid(vm.id),
    )


def to_budget(budget: Budget) -> vmm_pb2.Budget:
    """Return a budget as the API tells it."""
    return vmm_pb2.Budget(what=budget.what, tag=budget.tag, limit=budget.limit, used=budget.used)


def _spec(spec: Spec) -> vmm_pb2.VmSpec:
    return vmm_pb2.VmSpec(
        vcpu_count=spec.vcpu_count,
        memory_mib=spec.memory_mib,
        image=spec.image,
        kernel=spec.kernel,
        disk_mib=spec.disk_mib,
        network=_network(spec.network) if spec.network else None,
        balloon=spec.balloon,
        restart=policy_to_proto(spec.restart),
        tags=dict(spec.tags),
        ttl=ttl_to_proto(spec.ttl) if spec.ttl != _FOR_EVER else None,
        serial_input=spec.serial_input,
    )


def _network(network: Network) -> vmm_pb2.NetworkInterface:
    return vmm_pb2.NetworkInterface(
        tap=network.tap,
        mac=network.mac,
        ipv4=network.ipv4,
        gateway=network.gateway,
        dns=network.dns,
        ipv6=network.ipv6,
        ipv6_gateway=network.ipv6_gateway,
        search=network.search,
        mtu=network.mtu,
    )


def _exit(end: Exit) -> vmm_pb2.Exit:
    return vmm_pb2.Exit(
        cause=end.cause,
        exit_code=end.code if end.code >= 0 else None,
        signal=end.signal or None,
        time=to_time(end.time),
    )


def _transition(change: Transition) -> vmm_pb2.Transition:
    # `from` is a keyword, so it goes in as a mapping.
    return vmm_pb2.Transition(
        **{"from": STATES[change.old]},
        to=STATES[change.new],
        reason=change.reason,
        time=to_time(change.time),
    )


def to_time(microseconds: int) -> Timestamp:
    """Return a time since the epoch as the API tells it."""
    stamp = Timestamp()
    stamp.FromMicroseconds(microseconds)
    return stamp
