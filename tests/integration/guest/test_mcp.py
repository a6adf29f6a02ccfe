import base64
import contextlib
import json
from contextlib import asynccontextmanager

import anyio
import pytest
from guest_agent import wait_until_gone
from mcp.client.client import Client
from mcp.shared.message import SessionMessage
from mcp_types.jsonrpc import jsonrpc_message_adapter

from nexus_guest import mcp, wire


class Lines:
    """A client that speaks JSON lines to the agent's MCP port, for what no SDK would send."""

    def __init__(self, agent):
        self.host = agent.connect(wire.MCP_PORT)
        self.file = self.host.socket.makefile("rb")

    def send(self, line):
        data = line if isinstance(line, bytes) else json.dumps(line).encode()
        self.host.socket.sendall(data + b"\n")

    def receive(self):
        line = self.file.readline()
        return json.loads(line) if line else None

    def call(self, method, request_id=1, **params):
        self.send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        answer = self.receive()
        assert answer["id"] == request_id
        return answer

    def tool(self, name, **arguments):
        return self.call("tools/call", name=name, arguments=arguments)["result"]

    def text(self, name, **arguments):
        result = self.tool(name, **arguments)
        return result["content"][0]["text"], result["isError"]


@pytest.fixture
def lines(agent):
    lines = Lines(agent)
    yield lines
    lines.file.close()


class TestTools:
    def test_write_read_delete(self, lines, tmp_path):
        path = str(tmp_path / "a" / "b")
        written = lines.tool("file_write", path=path, content="Grüße\n", mode=0o600)
        assert written["isError"] is False
        assert lines.text("file_read", path=path) == ("Grüße\n", False)
        assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o600
        assert lines.tool("file_delete", path=path)["isError"] is False
        text, failed = lines.text("file_read", path=path)
        assert failed
        assert text.startswith("FILE_NOT_FOUND")

    def test_five_megabytes_of_any_bytes(self, lines, tmp_path):
        data = bytes(range(256)) * 20_000
        content = base64.b64encode(data).decode()
        path = str(tmp_path / "file")
        lines.tool("file_write", path=path, content=content, encoding="base64")
        assert (tmp_path / "file").read_bytes() == data
        assert lines.text("file_read", path=path, encoding="base64") == (content, False)
        text, failed = lines.text("file_read", path=path)
        assert failed
        assert "base64" in text

    def test_run_command(self, lines):
        result = lines.tool("run_command", command="sh", args=["-c", "echo out; echo err >&2"])
        assert result["isError"] is False
        assert result["structuredContent"] == {
            "exit_code": 0,
            "success": True,
            "stdout": "out\n",
            "stderr": "err\n",
            "truncated": False,
        }
        result = lines.tool("run_command", command="sh", args=["-c", "exit 3"])
        assert result["isError"] is True
        assert result["structuredContent"]["exit_code"] == 3

    def test_output_is_bounded(self, lines):
        result = lines.tool("run_command", command="head", args=["-c", "9000000", "/dev/zero"])
        assert result["structuredContent"]["truncated"] is True
        assert len(result["structuredContent"]["stdout"]) == 256 << 10

    @pytest.mark.parametrize(
        ("name", "arguments", "reason"),
        [
            ("run_command", {"command": "no-such-program"}, "COMMAND_NOT_FOUND"),
            ("run_command", {}, "INVALID_FIELD"),
            ("run_command", {"command": "ls", "args": "x"}, "INVALID_FIELD"),
            ("file_read", {"path": "relative"}, "INVALID_FIELD"),
            ("file_read", {"path": "/usr"}, "NOT_A_FILE"),
            ("file_read", {"path": "/etc/passwd", "encoding": "latin-1"}, "INVALID_FIELD"),
            ("file_write", {"path": "/tmp/x"}, "INVALID_FIELD"),
            (
                "file_write",
                {"path": "/tmp/x", "content": "%", "encoding": "base64"},
                "INVALID_FIELD",
            ),
            ("file_delete", {"path": "/no/such/file"}, "FILE_NOT_FOUND"),
        ],
    )
    def test_failures_are_results(self, lines, name, arguments, reason):
        text, failed = lines.text(name, **arguments)
        assert failed
        assert text.startswith(reason)


class TestProtocol:
    @pytest.mark.parametrize(
        ("line", "code"),
        [
            (b"", -32700),
            (b"{", -32700),
            (b"\xff", -32700),
            (b"[" * 100_000, -32700),
            (b"[]", -32600),
            (b"1", -32600),
            ({"id": 1, "method": "ping"}, -32600),
            ({"jsonrpc": "2.0", "id": {}, "method": "ping"}, -32600),
            ({"jsonrpc": "2.0", "id": 1, "method": 1}, -32600),
            ({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}, -32602),
            ({"jsonrpc": "2.0", "id": 1, "method": "resources/list"}, -32601),
            ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "rm"}}, -32602),
            ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": []}}, -32602),
        ],
    )
    def test_malformed_messages(self, lines, line, code):
        lines.send(line)
        assert lines.receive()["error"]["code"] == code
        assert lines.call("ping")["result"]["resultType"] == "complete"

    def test_versions(self, lines):
        for asked, given in {"2025-06-18": "2025-06-18", "1999-01-01": "2025-11-25"}.items():
            answer = lines.call("initialize", protocolVersion=asked)
            assert answer["result"]["protocolVersion"] == given
        meta = {"io.modelcontextprotocol/protocolVersion": "2031-01-01"}
        error = lines.call("tools/list", _meta=meta)["error"]
        assert error["code"] == -32022
        assert error["data"] == {"supported": ["2026-07-28"], "requested": "2031-01-01"}

    def test_endless_line_is_cut(self, lines):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            lines.host.socket.sendall(b" " * (mcp.MAX_LINE + (1 << 20)))
        with contextlib.suppress(ConnectionResetError):
            assert lines.receive()["error"]["code"] == -32600
            assert lines.receive() is None

    def test_cancelled_call_is_killed_and_not_answered(self, lines, tmp_path):
        mark = tmp_path / "pid"
        script = f"echo $$ >{mark}.new; mv {mark}.new {mark}; sleep 1000"
        params = {"name": "run_command", "arguments": {"command": "sh", "args": ["-c", script]}}
        lines.send({"jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": params})
        while not mark.exists():
            lines.call("ping")
        lines.send(
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "x"}}
        )
        wait_until_gone(int(mark.read_text()))
        assert lines.call("ping")["id"] == 1

    def test_closing_kills_what_runs(self, lines, tmp_path):
        mark = tmp_path / "pid"
        script = f"echo $$ >{mark}.new; mv {mark}.new {mark}; sleep 1000"
        params = {"name": "run_command", "arguments": {"command": "sh", "args": ["-c", script]}}
        lines.send({"jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": params})
        while not mark.exists():
            lines.call("ping")
        lines.host.close()
        lines.file.close()
        wait_until_gone(int(mark.read_text()))

    def test_calls_at_one_time_are_bounded(self, lines):
        params = {"name": "run_command", "arguments": {"command": "sleep", "args": ["1000"]}}
        for number in range(mcp.MAX_CALLS + 1):
            lines.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
        answer = lines.receive()
        assert (answer["id"], answer["error"]["code"]) == (mcp.MAX_CALLS, -32000)


@asynccontextmanager
async def transport(path):
    """The official client's streams over the agent's socket, one message a line."""
    to_client, received = anyio.create_memory_object_stream(8)
    sent, from_client = anyio.create_memory_object_stream(8)

    async def read(stream):
        buffer = b""
        with contextlib.suppress(anyio.EndOfStream, anyio.ClosedResourceError):
            while True:
                *whole, buffer = (buffer + await stream.receive()).split(b"\n")
                for line in whole:
                    await to_client.send(
                        SessionMessage(jsonrpc_message_adapter.validate_json(line))
                    )

    async def write(stream):
        async for message in from_client:
            text = message.message.model_dump_json(by_alias=True, exclude_none=True)
            await stream.send(text.encode() + b"\n")

    async with await anyio.connect_unix(path) as stream, anyio.create_task_group() as tasks:
        tasks.start_soon(read, stream)
        tasks.start_soon(write, stream)
        with to_client, received, sent, from_client:
            yield received, sent
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client(agent, mode):
    path = agent.directory / f"{wire.MCP_PORT}.sock"
    async with Client(transport(path), mode=mode) as client:
        listed = await client.list_tools()
        names = [tool.name for tool in listed.tools]
        assert names == ["file_read", "file_write", "file_delete", "run_command"]
        result = await client.call_tool("run_command", {"command": "uname", "args": ["-r"]})
        assert not result.is_error
        assert result.structured_content["exit_code"] == 0
        missing = await client.call_tool("file_read", {"path": "/no/such/file"})
        assert missing.is_error
