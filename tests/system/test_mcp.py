"""MCP clients outside: the official one over HTTP, and one on stdio through mcp-bridge."""

import base64
import os

import httpx2
import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client


async def _use(session, kernel):
    await session.initialize()
    names = {tool.name for tool in (await session.list_tools()).tools}
    assert {"file_read", "file_write", "file_delete", "run_command"} <= names

    result = await session.call_tool("run_command", {"command": "uname", "args": ["-r"]})
    assert not result.is_error
    assert result.structured_content["exit_code"] == 0
    assert result.structured_content["stdout"].strip() == kernel

    content = base64.b64encode(os.urandom(5_000_000)).decode()
    path = "/root/mcp/file"
    write = {"path": path, "content": content, "encoding": "base64"}
    assert not (await session.call_tool("file_write", write)).is_error
    size = await session.call_tool("run_command", {"command": "stat", "args": ["-c", "%s", path]})
    assert size.structured_content["stdout"].strip() == "5000000"
    assert not (await session.call_tool("file_delete", {"path": path})).is_error
    gone = await session.call_tool("file_read", {"path": path})
    assert gone.is_error
    assert path in gone.content[0].text


async def test_the_official_client_over_http(devhost, hello, mcp_endpoint):
    url, token = mcp_endpoint
    kernel = devhost.exec(hello, "uname", "-r").stdout.decode().strip()
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=120) as http,
        streamable_http_client(f"{url}/vms/{hello}/mcp", http_client=http) as streams,
        ClientSession(*streams[:2]) as session,
    ):
        await _use(session, kernel)


async def test_a_stdio_client_through_the_bridge(devhost, hello):
    kernel = devhost.exec(hello, "uname", "-r").stdout.decode().strip()
    argv = devhost.nexusctl_command("mcp-bridge", "--vm", hello)
    server = StdioServerParameters(command=argv[0], args=argv[1:])
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await _use(session, kernel)


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "0"},
    },
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.mark.parametrize(
    ("headers", "vm", "status"),
    [
        ({}, "hello", 401),
        ({"Authorization": "Bearer wrong"}, "hello", 401),
        ({"Origin": "https://evil.example"}, "hello", 403),
        ({}, "nobody", 404),
        ({}, "hello", 200),
    ],
)
async def test_who_may_come_in(mcp_endpoint, headers, vm, status):
    url, token = mcp_endpoint
    if status != 401:
        headers = {"Authorization": f"Bearer {token}"} | headers
    async with httpx2.AsyncClient(timeout=30) as http:
        answer = await http.post(f"{url}/vms/{vm}/mcp", json=INITIALIZE, headers=ACCEPT | headers)
    assert answer.status_code == status
