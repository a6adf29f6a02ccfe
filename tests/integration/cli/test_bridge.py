"""mcp-bridge: the official MCP client on stdio, and what a rough client may do."""

import asyncio
import json
import sys

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from nexus.vmm.v1 import vmm_pb2

PIPE = asyncio.subprocess.PIPE


@pytest.fixture(autouse=True)
def hello(fakes):
    return fakes.add_vm("hello", vmm_pb2.VM_STATE_READY)


def request(number, method, **params):
    message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return json.dumps(message).encode() + b"\n"


def call(number, name, text):
    return request(number, "tools/call", name=name, arguments={"text": text})


async def test_the_official_client(nexusctl):
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "nexusctl", "mcp-bridge", "--vm", "hello"],
        env=nexusctl.environment,
    )
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        assert [tool.name for tool in (await session.list_tools()).tools] == ["echo"]
        text = "ü\n" + "x" * 7_000_000
        result = await session.call_tool("echo", {"text": text})
        assert result.content[0].text == text


async def test_answers_under_way_are_delivered_after_the_end_of_input(nexusctl, fakes):
    process = await nexusctl.start("mcp-bridge", "--vm", "hello", stdin=PIPE)
    process.stdin.write(call(1, "slow", "late"))
    process.stdin.write_eof()
    async with asyncio.timeout(20):
        await fakes.called["ConnectMcp"].wait()
    fakes.release.set()
    done = await nexusctl.end(process)
    assert (done.code, done.err) == (0, "")
    (answer,) = map(json.loads, done.out.splitlines())
    assert answer["result"]["content"][0]["text"] == "late"


async def test_a_cancelled_request_is_not_waited_for(nexusctl, fakes):
    cancelled = {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": 1},
    }
    lines = call(1, "never", "x") + json.dumps(cancelled).encode() + b"\n"
    done = await nexusctl("mcp-bridge", "--vm", "hello", stdin=lines)
    assert (done.code, done.out) == (0, b"")


async def test_nothing_but_mcp_on_standard_output(nexusctl):
    lines = b"\n" + call(1, "echo", "a") + b"  \r\n" + call("1", "echo", "b").rstrip()
    done = await nexusctl("mcp-bridge", "--vm", "hello", stdin=lines)
    assert done.code == 0
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == [1, "1"]


async def test_no_input_at_all(nexusctl):
    done = await nexusctl("mcp-bridge", "--vm", "hello", stdin=b"")
    assert (done.code, done.out, done.err) == (0, b"", "")


async def test_a_line_over_the_limit_is_answered_and_the_session_goes_on(nexusctl):
    long = b'{"jsonrpc":"2.0","id":1,"x":"' + b"x" * (16 * 1024 * 1024) + b'"}\n'
    done = await nexusctl("mcp-bridge", "--vm", "hello", stdin=long + call(2, "echo", "a"))
    refusal, answer = map(json.loads, done.out.splitlines())
    assert (refusal["id"], refusal["error"]["code"]) == (None, -32600)
    assert answer["id"] == 2
    assert done.code == 0


@pytest.mark.parametrize("is_idle", [True, False])
async def test_a_lost_service_is_told_and_ends_it(nexusctl, fakes, served, is_idle):
    process = await nexusctl.start("mcp-bridge", "--vm", "hello", stdin=PIPE)
    if is_idle:
        process.stdin.write(call(1, "echo", "a"))
        async with asyncio.timeout(20):
            await process.stdout.readline()
    else:
        process.stdin.write(call(1, "slow", "late"))
        async with asyncio.timeout(20):
            await fakes.called["ConnectMcp"].wait()
    await served.stop("gateway")
    async with asyncio.timeout(20):
        err = await process.stderr.read()
        assert await process.wait() == 3
    assert err.startswith(b"nexusctl: ")
    assert b"gateway" in err


async def test_a_session_that_the_service_ends_is_no_success(nexusctl, fakes):
    fakes.hangs_up = True
    process = await nexusctl.start("mcp-bridge", "--vm", "hello", stdin=PIPE)
    process.stdin.write(call(1, "echo", "a"))
    async with asyncio.timeout(20):
        assert await process.wait() == 3
    assert b"ended the MCP session" in await process.stderr.read()
