"""Whether what vmm has recorded and what there is on the host are the same; see `crash_look`."""

RUNS = {"running", "online", "provisioning", "ready", "unreachable"}
LIVE = RUNS | {"paused"}


def disagreements(look):
    """Return what differs, a line each."""
    return [line for line in _compared(look) if line]


def _compared(look):
    vms = {vm_id: tuple(rest) for vm_id, *rest in look["vms"]}
    live = {vm_id for vm_id, (_, state, *_) in vms.items() if state in LIVE}
    yield _differ("units", look["units"], live)
    yield _differ("cgroups", look["cgroups"], live)
    yield _differ("run directories", look["runs"], live)
    yield _differ("homes", look["homes"], vms)
    yield _differ("ports", look["ports"], vms)
    yield _differ("TAPs", look["taps"], look["ports"])
    yield _differ("jailers", look["processes"]["jailer"], ())
    for name in ("firecracker", "rotatelogs"):
        yield _differ(f"processes of {name}", look["processes"][name], live)
        for vm_id, pids in look["processes"][name].items():
            if len(pids) != 1:
                yield f"{vm_id} has {len(pids)} processes of {name}"
    for vm_id, (name, state, goal, boot, pid) in vms.items():
        if vm_id not in live:
            if pid or goal != "stop":
                yield f"{name} is {state} with pid {pid}, and its goal is {goal}"
            continue
        if goal != ("pause" if state == "paused" else "run"):
            yield f"{name} is {state}, and its goal is {goal}"
        if look["units"].get(vm_id) != ["active", boot, pid]:
            yield f"{name} has boot {boot} and pid {pid}; its unit: {look['units'].get(vm_id)}"
        if look["processes"]["firecracker"].get(vm_id) != [pid]:
            yield f"{name} has pid {pid}: {look['processes']['firecracker'].get(vm_id)}"


def _differ(what, found, wanted):
    found, wanted = set(found), set(wanted)
    if found == wanted:
        return ""
    return f"{what}: missing {sorted(wanted - found)}, left over {sorted(found - wanted)}"
