"""nexusctl vm logs and console, against the services in memory."""

import asyncio
import json

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import (
    Unavailable,
)


async def test_logs(nexusctl, fakes):
    fakes.add_vm("hello")
    fakes.console = b"".join(b"line %d \x1b[1m\xff\r\n" % number for number in range(1000))
    assert (await nexusctl("vm", "logs", "hello")).out == fakes.console
    tail = await nexusctl("vm", "logs", "hello", "--tail", "2")
    assert tail.out == b"line 998 \x1b[1m\xff\r\nline 999 \x1b[1m\xff\r\n"
    assert (await nexusctl("vm", "logs", "hello", "--json", "--tail", "1")).json == {
        "vm": "hello",
        "log": "line 999 \x1b[1m�\r\n",
    }
    await nexusctl("vm", "logs", "hello", "--since", "2026-11-24T13:00:00+01:00")
    requests = fakes.requests["GetConsoleLog"]
    assert [request.tail_lines for request in requests] == [0, 2, 1, 0]
    assert not any(request.follow or request.HasField("since") for request in requests[:3])
    assert requests[3].since.ToJsonString() == "2026-11-24T12:00:00Z"


async def test_logs_that_are_followed(nexusctl, fakes):
    fakes.add_vm("hello")
    fakes.console = b"then\n"
    process = await nexusctl.start("vm", "logs", "hello", "--follow")
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"then\n"
        fakes.printed.put_nowait(vmm_pb2.GetConsoleLogResponse(data=b"now\n", dropped_bytes=7))
        assert await process.stdout.readline() == b"now\n"
    fakes.printed.put_nowait(None)
    done = await nexusctl.end(process)
    assert (done.code, done.out) == (0, b"")
    assert "7 bytes or more were lost here" in done.err


async def test_logs_that_are_followed_as_json(nexusctl, fakes):
    fakes.add_vm("hello")
    fakes.console = b"then"
    for data in ("ü".encode()[:1], "ü".encode()[1:]):
        fakes.printed.put_nowait(vmm_pb2.GetConsoleLogResponse(data=data))
    fakes.printed.put_nowait(None)
    done = await nexusctl("vm", "logs", "hello", "-f", "--json")
    assert [json.loads(line)["log"] for line in done.out.splitlines()] == ["then", "", "ü"]


async def test_logs_that_are_followed_until_the_service_stops(nexusctl, fakes):
    fakes.add_vm("hello")
    fakes.fail("GetConsoleLog", Unavailable("STOPPING", "vmm is stopping"))
    done = await nexusctl("vm", "logs", "hello", "-f")
    assert (done.code, done.err) == (3, "nexusctl: vmm is stopping\n")


async def test_serial_input_is_asked_for_and_changed(nexusctl, fakes):
    await nexusctl("vm", "create", "hello", "--no-network", "--serial-input")
    (vm,) = fakes.vms.values()
    assert vm.spec.serial_input
    assert (await nexusctl("vm", "inspect", "hello", "--json")).json["spec"]["serial_input"] is True
    done = await nexusctl("vm", "update", "hello", "--serial-input", "off", "--json")
    assert done.json["spec"]["serial_input"] is False
    assert list(fakes.requests["UpdateVm"][0].update_mask.paths) == ["serial_input"]


async def test_a_console_needs_a_terminal(nexusctl, fakes):
    fakes.add_vm("hello")
    done = await nexusctl("vm", "console", "hello")
    assert done.code == 2
    assert "no terminal" in done.err
    assert fakes.calls == []
