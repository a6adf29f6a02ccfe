"""MCP over ConnectMcp, asked by hand."""

import json

import pytest
from mcp_requests import initialize

from nexus.gateway.v1 import gateway_pb2 as pb


@pytest.mark.parametrize(
    ("raw", "code", "request_id"),
    [
        (b"{", -32700, None),
        (b"\xff", -32700, None),
        (b"[]", -32600, None),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"no/such"}', -32601, 1),
        (b" " * ((16 << 20) + 1), -32600, None),
    ],
)
async def test_malformed_messages_over_grpc_are_answered(gateway, raw, code, request_id):
    call = gateway.stub.ConnectMcp()
    await call.write(pb.ConnectMcpRequest(vm="hello", message=raw))
    answer = json.loads((await call.read()).message)
    assert (answer["error"]["code"], answer["id"]) == (code, request_id)
    await call.write(pb.ConnectMcpRequest(message=json.dumps(initialize()).encode()))
    assert json.loads((await call.read()).message)["result"]["serverInfo"]["name"] == "nexus"
    call.cancel()


async def test_too_many_requests_under_way_over_grpc(gateway):
    call = gateway.stub.ConnectMcp()
    await call.write(pb.ConnectMcpRequest(vm="hello", message=json.dumps(initialize()).encode()))
    await call.read()
    sleep = {"name": "run_command", "arguments": {"command": "sleep", "args": ["1000"]}}
    for number in range(33):
        message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": sleep}
        await call.write(pb.ConnectMcpRequest(message=json.dumps(message).encode()))
    answer = json.loads((await call.read()).message)
    assert answer["id"] == 32
    assert "under way" in answer["error"]["message"]
    call.cancel()


async def test_an_end_of_messages_ends_the_session(gateway):
    call = gateway.stub.ConnectMcp()
    await call.write(pb.ConnectMcpRequest(vm="hello"))
    await call.done_writing()
    assert [answer async for answer in call] == []
