"""What every command does when it cannot, and of all of them: traces, JSON, exit codes."""

import json
import os

import pytest

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import (
    FailedPrecondition,
    Internal,
    ResourceExhausted,
    Unavailable,
)

READY = vmm_pb2.VM_STATE_READY


async def test_all_calls_of_a_command_are_one_trace(nexusctl, fakes):
    await nexusctl("vm", "create", "hello")
    traces = {fakes.metadata[call]["traceparent"] for call in fakes.calls}
    assert len(traces) == 1
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await nexusctl("vm", "list", env={"TRACEPARENT": given})
    assert fakes.metadata["ListVms"]["traceparent"] == given


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["vm", "start", "nobody"], 4, "nexusctl vm list"),
        (["vm", "stop", "nobody"], 4, "nexusctl vm list"),
        (["vm", "delete", "nobody", "--yes"], 4, "nexusctl vm list"),
        (["vm", "inspect", "nobody"], 4, "nexusctl vm list"),
        (["vm", "logs", "nobody"], 4, "nexusctl vm list"),
        (["vm", "cp", "nobody:/etc/passwd", "-"], 4, "nexusctl vm list"),
        (["mcp-bridge", "--vm", "nobody"], 4, "nexusctl vm list"),
        (["vm", "exec", "nobody", "--", "cat"], 125, "nexusctl vm list"),
        (["vm", "stop", "idle"], 5, "nexusctl vm inspect idle"),
        (["vm", "start", "busy"], 5, "nexusctl vm inspect busy"),
        (["mcp-bridge", "--vm", "idle"], 5, "nexusctl vm start idle"),
        (["vm", "create", "No_Good"], 1, "No_Good"),
        (["vm", "create", "new", "--cpus", "0"], 1, "1 to 32"),
        (["vm", "create", "new", "--cpus", "99"], 1, "vcpu_count"),
        (["vm", "create", "new", "--image", "none"], 4, "nexusctl version"),
        (["vm", "create", "busy"], 5, "choose another name"),
        (["vm", "create"], 2, "--help"),
        (["vm", "exec", "busy", "ls", "-l"], 125, "put -- before the command"),
    ],
)
async def test_a_mistake_is_told_with_the_way_out(nexusctl, fakes, arguments, code, says):
    fakes.add_vm("idle")
    fakes.add_vm("busy", READY)
    ports = dict(fakes.ports)
    done = await nexusctl(*arguments)
    assert done.code == code, done.err
    assert done.err.startswith("nexusctl: ")
    assert says in done.err
    assert done.out == b""
    assert fakes.ports == ports


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Internal("DEFECT", "it broke"), 1),
        (ResourceExhausted("DISK_FULL", "no room"), 1),
        (Unavailable("GUEST_UNREACHABLE", "no agent"), 1),
        (Unavailable("BUS_DOWN", "systemd is away"), 3),
        (FailedPrecondition("BOOT_FAILED", "no kernel"), 5),
    ],
)
async def test_the_exit_code_is_picked_by_the_error(nexusctl, fakes, error, code):
    fakes.add_vm("hello")
    fakes.fail("StartVm", error)
    done = await nexusctl("vm", "start", "hello")
    assert done.code == code
    assert error.message in done.err


async def test_json_is_json_whatever_stands_in_it(nexusctl, fakes):
    vm = fakes.add_vm("hello", vmm_pb2.VM_STATE_FAILED)
    vm.state_reason = 'quote " and \x1b and \n'
    vm.state = 77
    done = await nexusctl("vm", "inspect", "hello", "--json")
    shown = json.loads(done.out)
    assert shown["state_reason"] == vm.state_reason
    assert shown["state"] == "unknown (77)"


@pytest.mark.parametrize(
    ("argv", "code"), [(["vm", "list"], 1), (["vm", "exec", "hello", "--", "talk"], 125)]
)
async def test_an_output_that_takes_no_more_is_told(nexusctl, fakes, argv, code):
    fakes.add_vm("hello", READY)
    full = os.open("/dev/full", os.O_WRONLY)
    process = await nexusctl.start(*argv, stdout=full)
    os.close(full)
    done = await nexusctl.end(process)
    assert (done.code, "No space left" in done.err) == (code, True)
    assert "Traceback" not in done.err
