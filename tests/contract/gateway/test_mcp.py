"""MCP as clients of the official SDK speak it, over HTTP and over ConnectMcp, in both eras."""

import asyncio
import base64
import json
import os
from contextlib import asynccontextmanager

import anyio
import httpx2
import pytest
from guest_agent import wait_until_gone
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp_requests import LEGACY, MODERN
from mcp_types import jsonrpc_message_adapter

from nexus.gateway.v1 import gateway_pb2 as pb
from nexus.vmm.v1 import vmm_pb2 as vmm


@asynccontextmanager
async def over_grpc(stub, vm="hello"):
    """The client's end of ConnectMcp, as a transport of the SDK."""
    inward, received = anyio.create_memory_object_stream(1)
    outward, sent = anyio.create_memory_object_stream(1)
    call = stub.ConnectMcp()
    await call.write(pb.ConnectMcpRequest(vm=vm))

    async def up():
        async for message in sent:
            raw = message.message.model_dump_json(by_alias=True, exclude_unset=True).encode()
            await call.write(pb.ConnectMcpRequest(message=raw))
        await call.done_writing()

    async def down():
        async with inward:
            async for answer in call:
                message = jsonrpc_message_adapter.validate_json(answer.message, by_name=False)
                await inward.send(SessionMessage(message))

    pumps = [asyncio.create_task(up()), asyncio.create_task(down())]
    try:
        yield received, outward
    finally:
        for stream in (inward, received, outward, sent):
            stream.close()
        call.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


@asynccontextmanager
async def connected(gateway, token, transport, mode, vm="hello"):
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=60) as http:
        if transport == "http":
            streams = streamable_http_client(f"{gateway.url}/vms/{vm}/mcp", http_client=http)
        else:
            streams = over_grpc(gateway.stub, vm)
        async with Client(streams, mode=mode) as client:
            yield client


@pytest.fixture(params=[("http", LEGACY), ("http", MODERN), ("grpc", LEGACY), ("grpc", MODERN)])
async def client(gateway, token, request):
    # In one task from beginning to end, as the SDK's cancel scopes want it; fixtures are not.
    client = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold():
        async with connected(gateway, token, *request.param) as connection:
            client.set_result(connection)
            await done.wait()

    task = asyncio.create_task(hold())
    await asyncio.wait({task, client}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    yield client.result()
    done.set()
    await task


async def test_the_tools_are_described(client):
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == ["file_read", "file_write", "file_delete", "run_command"]
    for tool in tools.values():
        assert tool.description
        assert tool.annotations.title
        assert tool.input_schema["type"] == tool.output_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
    assert tools["file_read"].annotations.read_only_hint
    assert tools["file_delete"].annotations.destructive_hint


async def test_run_command(client):
    result = await client.call_tool("run_command", {"command": "uname", "args": ["-r"]})
    assert not result.is_error
    assert result.structured_content == {
        "exit_code": 0,
        "success": True,
        "stdout": f"{os.uname().release}\n",
        "stderr": "",
        "truncated": False,
    }
    assert json.loads(result.content[0].text) == result.structured_content


async def test_a_call_is_a_use_of_the_vm(client, gateway):
    gateway.vmm.change("a" * 13, spec=vmm.VmSpec(ttl=vmm.TimeToLive(idle_seconds=10)))
    await gateway.vmm.until("a" * 13, vmm.VM_STATE_READY)
    await client.list_tools()
    assert gateway.vmm.touches.empty()
    await client.call_tool("run_command", {"command": "true"})
    async with asyncio.timeout(10):
        assert await gateway.vmm.touches.get() == "a" * 13


async def test_run_command_with_everything(client, tmp_path):
    result = await client.call_tool(
        "run_command",
        {
            "command": "sh",
            "args": ["-c", "cat; pwd; echo $WORD >&2; exit 3"],
            "cwd": str(tmp_path),
            "env": {"WORD": "käse"},
            "stdin": "in\n",
        },
    )
    assert result.is_error
    assert result.structured_content["exit_code"] == 3
    assert result.structured_content["stdout"] == f"in\n{tmp_path}\n"
    assert result.structured_content["stderr"] == "käse\n"


async def test_output_is_bounded_and_said_to_be(client):
    script = "yes | head -c 10000000; exit 4"
    result = await client.call_tool("run_command", {"command": "sh", "args": ["-c", script]})
    said = result.structured_content
    assert (len(said["stdout"]), said["truncated"], said["exit_code"]) == (256 << 10, True, 4)


async def test_a_command_that_takes_too_long_is_killed(client):
    result = await client.call_tool(
        "run_command",
        {"command": "sh", "args": ["-c", "echo $$; exec sleep 1000"], "timeout_seconds": 0.5},
    )
    assert result.is_error
    said = result.structured_content
    assert said["exit_code"] is None
    assert "timeout_seconds" in said["stderr"]
    await asyncio.to_thread(wait_until_gone, int(said["stdout"]))


async def test_progress_as_output_comes(client):
    heard = []

    async def hear(progress, total, message):
        heard.append((progress, message))

    script = "echo one; sleep 0.5; echo two"
    await client.call_tool(
        "run_command", {"command": "sh", "args": ["-c", script]}, progress_callback=hear
    )
    assert heard == [(4.0, "one\n"), (8.0, "two\n")]


async def test_a_call_that_is_given_up_kills_the_command(client, tmp_path):
    os.mkfifo(tmp_path / "pid")
    script = f"echo $$ > {tmp_path}/pid; exec sleep 1000"
    arguments = {"command": "sh", "args": ["-c", script]}
    call = asyncio.create_task(client.call_tool("run_command", arguments))
    pid = int(await asyncio.to_thread((tmp_path / "pid").read_text))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.to_thread(wait_until_gone, pid)


async def test_a_5_mb_file_goes_in_and_comes_back_in_parts(client, tmp_path):
    data = os.urandom(5_000_000)
    path = str(tmp_path / "deep" / "file")
    content = base64.b64encode(data).decode()
    result = await client.call_tool(
        "file_write", {"path": path, "content": content, "encoding": "base64", "mode": "0640"}
    )
    assert (result.is_error, result.structured_content) == (False, {"size": 5_000_000})

    back, offset, truncated = b"", 0, True
    while truncated:
        result = await client.call_tool(
            "file_read", {"path": path, "encoding": "base64", "offset": offset}
        )
        said = result.structured_content
        assert (said["size"], said["mode"]) == (5_000_000, "0640")
        back += base64.b64decode(said["content"])
        offset, truncated = said["next_offset"], said["truncated"]
    assert back == data

    assert not (await client.call_tool("file_delete", {"path": path})).is_error
    result = await client.call_tool("file_read", {"path": path})
    assert result.is_error
    assert path in result.content[0].text
    assert "FILE_NOT_FOUND" in result.content[0].text


@pytest.mark.parametrize("transport", [("grpc", LEGACY), ("grpc", MODERN), ("http", MODERN)])
async def test_a_5_mb_file_comes_back_at_once_where_the_client_takes_it(
    gateway, token, tmp_path, transport
):
    data = os.urandom(5_000_000)
    (tmp_path / "file").write_bytes(data)
    async with connected(gateway, token, *transport) as client:
        result = await client.call_tool(
            "file_read",
            {"path": str(tmp_path / "file"), "encoding": "base64", "limit": 6 << 20},
        )
    assert base64.b64decode(result.structured_content["content"]) == data
    assert result.structured_content["truncated"] is False


async def test_text_is_cut_between_characters(client, tmp_path):
    path = tmp_path / "file"
    path.write_text("aä€😀", encoding="utf-8")
    text, offset, truncated = [], 0, True
    while truncated:
        result = await client.call_tool(
            "file_read", {"path": str(path), "offset": offset, "limit": 4}
        )
        said = result.structured_content
        text.append(said["content"])
        offset, truncated = said["next_offset"], said["truncated"]
    assert text == ["aä", "€", "😀"]


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("file_read", {"path": "/nothing/here"}, "FILE_NOT_FOUND"),
        ("file_read", {"path": "/etc"}, "NOT_A_FILE"),
        ("file_read", {"path": "relative"}, "absolute path"),
        ("file_read", {}, "path"),
        ("file_read", {"path": "/etc/passwd", "offest": 3}, "offest"),
        ("file_read", {"path": "/etc/passwd", "limit": 0}, "limit"),
        ("file_read", {"path": "/proc/self/exe"}, "base64"),
        ("file_write", {"path": "/etc", "content": ""}, "NOT_A_FILE"),
        ("file_write", {"path": "/tmp/x", "content": "%", "encoding": "base64"}, "base64"),
        ("file_write", {"path": "/tmp/x", "content": "", "mode": "9"}, "mode"),
        ("file_delete", {"path": "/nothing/here"}, "FILE_NOT_FOUND"),
        ("run_command", {"command": "no-such-command"}, "no shell"),
        ("run_command", {"command": ""}, "argv"),
        ("run_command", {"command": "true", "cwd": "/nothing"}, "INVALID_FIELD"),
        ("run_command", {"command": "true", "timeout_seconds": 0}, "timeout_seconds"),
    ],
)
async def test_what_the_model_can_put_right_is_a_result(client, tool, arguments, says):
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert says in result.content[0].text


async def test_an_unknown_tool_is_a_protocol_error(client):
    with pytest.raises(MCPError, match="there are: file_read"):
        await client.call_tool("rm_rf", {})


async def test_a_vm_that_is_off_says_so_in_the_result(gateway, token):
    async with connected(gateway, token, "http", LEGACY, vm="off") as client:
        result = await client.call_tool("run_command", {"command": "true"})
    assert result.is_error
    assert "start it first" in result.content[0].text
