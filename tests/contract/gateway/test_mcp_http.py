"""MCP over HTTP, asked by hand: tokens, hosts, sessions, and what is malformed."""

import asyncio
import json
import socket
from contextlib import ExitStack, asynccontextmanager

import httpx2
import pytest
from mcp_requests import MODERN, initialize

from nexus_gateway import mcp_connection

ACCEPT = {"accept": "application/json, text/event-stream"}


async def post(gateway, body, *, vm="hello", token=None, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        named["authorization"] = f"Bearer {token}"
    async with httpx2.AsyncClient(timeout=60) as http:
        return await http.post(
            f"{gateway.url}/vms/{vm}/mcp",
            content=body if isinstance(body, bytes) else json.dumps(body),
            headers=ACCEPT | {"content-type": "application/json"} | named,
        )


async def test_without_the_token(gateway, token):
    for given in (None, "wrong", token[:-1], token + "x"):
        answer = await post(gateway, initialize(), token=given)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["error"]["reason"] == "UNAUTHENTICATED"
    answer = await post(gateway, initialize(), vm=f"hello?token={token}")
    assert answer.status_code != 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost.evil.example"}, 403),
        ({"origin": "http://localhost:3000"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:7710"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "localhost:17710"}, 200),
    ],
)
async def test_host_and_origin(gateway, token, headers, status):
    answer = await post(gateway, initialize(), token=token, **headers)
    assert answer.status_code == status


@pytest.mark.parametrize("vm", ["nobody", "No_Good", "hello%2f..%2foff"])
async def test_an_unknown_vm(gateway, token, vm):
    answer = await post(gateway, initialize(), vm=vm, token=token)
    assert answer.status_code == 404
    assert answer.json()["error"]["reason"]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        pytest.param(b"{", {}, 400, id="broken JSON"),
        pytest.param(b"[" * 100_000, {}, 400, id="deep JSON"),
        pytest.param(b"\xff\xfe", {}, 400, id="no UTF-8"),
        pytest.param({"jsonrpc": "1.0", "id": 1, "method": "ping"}, {}, 400, id="JSON-RPC 1"),
        pytest.param([initialize()], {}, 400, id="a batch"),
        pytest.param({"hello": "world"}, {}, 400, id="no message"),
        pytest.param(initialize(), {"content_type": "text/plain"}, 400, id="no JSON said"),
        pytest.param(initialize(), {"accept": "text/html"}, 406, id="takes no JSON"),
        pytest.param(initialize(), {"mcp_protocol_version": "1999-01-01"}, 400, id="old version"),
        pytest.param(b"{", {"mcp_protocol_version": MODERN}, 400, id="broken JSON, modern"),
        pytest.param(
            {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
            {"mcp_session_id": "made-up"},
            404,
            id="unknown session",
        ),
        pytest.param(b" " * ((16 << 20) + 1), {}, 413, id="huge body"),
    ],
)
async def test_malformed_http(gateway, token, body, headers, status):
    answer = await post(gateway, body, token=token, **headers)
    assert answer.status_code == status
    # And it serves on.
    assert (await post(gateway, initialize(), token=token)).status_code == 200


async def test_a_session_of_one_vm_is_no_use_with_another(gateway, token):
    answer = await post(gateway, initialize(), token=token)
    session = answer.headers["mcp-session-id"]
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    assert (await post(gateway, call, token=token, mcp_session_id=session)).status_code == 200
    answer = await post(gateway, call, token=token, mcp_session_id=session, vm="off")
    assert answer.status_code == 404


async def test_sessions_are_bounded_and_make_room_again(gateway, token):
    opened = [await post(gateway, initialize(), token=token) for _ in range(9)]
    assert [answer.status_code for answer in opened] == [200] * 8 + [503]
    headers = {
        "authorization": f"Bearer {token}",
        "mcp-session-id": opened[0].headers["mcp-session-id"],
    }
    async with httpx2.AsyncClient(headers=headers) as http:
        assert (await http.delete(f"{gateway.url}/vms/hello/mcp")).status_code == 200
    assert (await post(gateway, initialize(), token=token)).status_code == 200


async def test_another_path(gateway, token):
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}) as http:
        for path in ("/", "/vms/hello/mcp/", "/vms/hello", "/vms//mcp"):
            assert (await http.get(gateway.url + path)).status_code == 404


@asynccontextmanager
async def sockets(gateway, count):
    """Yield connections to the endpoint on which nothing was asked yet."""
    host, port = gateway.url.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in opened:
            each.setblocking(False)
            await loop.sock_connect(each, (host, int(port)))
        yield opened


async def rest(connection):
    """Return what comes until the end, which must be soon."""
    loop = asyncio.get_running_loop()
    data = b""
    async with asyncio.timeout(5):
        while piece := await loop.sock_recv(connection, 4096):
            data += piece
    return data


async def test_silent_connections_make_room(gateway, token):
    async with sockets(gateway, 300) as silent:
        answer = await post(gateway, initialize(), token=token)
        assert answer.status_code == 200
        assert await rest(silent[0]) == b""
        with pytest.raises(BlockingIOError):
            silent[-1].recv(1)


async def test_whoever_asks_for_nothing_is_dropped(gateway, monkeypatch):
    monkeypatch.setattr(mcp_connection, "_HEAD_SECONDS", 0.1)
    async with sockets(gateway, 1) as (slow,):
        slow.send(b"GET / HTTP/1.1\r\nHost: ")
        assert await rest(slow) == b""


@pytest.mark.parametrize("host", ["localhost", "elsewhere.example"])
async def test_whoever_is_refused_holds_no_connection(gateway, host):
    async with sockets(gateway, 1) as (refused,):
        refused.send(f"GET /vms/hello/mcp HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert (await rest(refused)).startswith(b"HTTP/1.1 40")
