"""nexusctl status and version, against the services in memory."""

from nexus.netd.v1 import netd_pb2
from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import (
    FailedPrecondition,
)

READY = vmm_pb2.VM_STATE_READY


async def test_status_tells_each_service_in_a_row(nexusctl, fakes, served):
    fakes.add_vm("one", READY)
    fakes.add_vm("two")
    done = await nexusctl("status", "--json")
    assert done.code == 0
    assert {row["health"] for row in done.json["services"].values()} == {"serving"}
    assert done.json["services"]["vmm"]["version"] == "0.1.0"
    assert done.json["vms"] == {"total": 2, "by_state": {"ready": 1, "created": 1}}
    text = (await nexusctl("status")).out.decode()
    assert "VMs: 2 (1 ready, 1 created)" in text
    await served.stop("netd")
    one_down = await nexusctl("status")
    assert one_down.code == 3
    rows = [line.split()[:2] for line in one_down.out.decode().splitlines()[1:5]]
    assert rows == [
        ["netd", "unreachable"],
        ["vmm", "serving"],
        ["gateway", "serving"],
        ["dns", "serving"],
    ]


async def test_status_tells_what_vmm_depends_on(nexusctl, fakes, served):
    done = await nexusctl("status")
    assert done.code == 0
    rows = [line.split() for line in done.out.decode().splitlines()[5:8]]
    assert rows == [
        ["SUBSYSTEM", "HEALTH", "DETAIL"],
        ["store", "ok", "fine"],
        ["kvm", "ok", "fine"],
    ]
    fakes.subsystems["kvm"] = "the kernel offers\x1b[2J no /dev/kvm"
    done = await nexusctl("status")
    assert done.code == 1
    assert "kvm        not ok  the kernel offers?[2J no /dev/kvm\n" in done.out.decode()
    shown = (await nexusctl("status", "--json")).json
    assert shown["services"]["vmm"]["health"] == "serving"
    assert shown["subsystems"] == {
        "store": {"ok": True, "detail": "fine"},
        "kvm": {"ok": False, "detail": "the kernel offers\x1b[2J no /dev/kvm"},
    }
    await served.stop("gateway")
    assert (await nexusctl("status")).code == 3, "a service that is away counts for more"


async def test_status_asks_a_vmm_that_is_not_well_what_is_wrong(nexusctl, fakes, served):
    fakes.subsystems["store"] = "malformed"
    fakes.fail("ListVms", FailedPrecondition("VM_STATE", "no store, no list"))
    await served.health["vmm"].enter_graceful_shutdown()
    done = await nexusctl("status", "--json")
    assert done.code == 1
    assert done.json["services"]["vmm"]["health"] == "not serving"
    assert done.json["services"]["vmm"]["note"] == "no store, no list"
    assert done.json["subsystems"]["store"] == {"ok": False, "detail": "malformed"}
    assert done.json["vms"] is None


async def test_status_tells_what_stands_in_the_way_of_the_network_once(nexusctl, fakes):
    for name in ("default", "lab"):
        network = fakes.wires.networks.setdefault(name, netd_pb2.Network(name=name))
        network.warnings.append("UFW drops\x1b[2J what guests send")
    done = await nexusctl("status")
    assert done.code == 0, "the services are well"
    assert done.out.decode().endswith("\nwarning: UFW drops?[2J what guests send\n")
    shown = (await nexusctl("status", "--json")).json
    assert shown["network_warnings"] == ["UFW drops\x1b[2J what guests send"]


async def test_status_of_a_resolver_that_is_down(nexusctl, served):
    await served.stop("dns")
    done = await nexusctl("status", "--json")
    assert (done.code, done.json["services"]["dns"]["health"]) == (3, "unreachable")
    assert done.json["network_warnings"] == []


async def test_status_of_a_service_that_answers_and_is_not_well(nexusctl, served):
    await served.health["netd"].enter_graceful_shutdown()
    done = await nexusctl("status", "--json")
    assert done.code == 1
    assert done.json["services"]["netd"]["health"] == "not serving"


async def test_status_with_nothing_there(nexusctl, served):
    for name in ("vmm", "netd", "gateway"):
        await served.stop(name)
    done = await nexusctl("status", "--json")
    assert done.code == 3
    assert done.json["vms"] is None
    assert done.json["subsystems"] is None


async def test_version(nexusctl, served):
    done = await nexusctl("version", "--json")
    assert done.json == {
        "nexusctl": "0.1.0",
        "vmm": "0.1.0",
        "firecracker": "1.15.0",
        "images": ["alpine", "debian"],
        "kernels": ["default"],
    }
    text = await nexusctl("version")
    assert text.out.decode().startswith("nexusctl     0.1.0\n")
    await served.stop("vmm")
    down = await nexusctl("version")
    assert (down.code, down.out) == (3, b"nexusctl     0.1.0\n")
