"""The MCP server of a VM: the official SDK's, over the tools.

A tool that fails says so in its result (isError), with the way out, so that the model can act on
it; protocol errors are left to what is wrong with the protocol.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
)
from mcp_types import Tool as Advertised
from pydantic import ValidationError

from nexus_gateway import metrics
from nexus_gateway.tools import TOOLS, Call, Tool
from nexus_guest import VERSION
from nexus_rpc.errors import NexusError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp.server.context import ServerRequestContext
    from pydantic import BaseModel

    from nexus_gateway.streams import Streams
    from nexus_gateway.tools import Progress
    from nexus_gateway.vms import Vms

    Context = ServerRequestContext[dict[str, Any], Any]

_MAX_TEXT = 256 << 10
"""Characters of a result that are repeated as text, for clients that know no structured results."""
_PROGRESS_SECONDS = 0.2
_PROGRESS_TEXT = 4096

_WAY_OUT = {
    "COMMAND_NOT_FOUND": "There is no shell: for builtins and pipes run sh with args ['-c', ...].",
    "FILE_DENIED": "Choose another path, or change its permissions with run_command.",
    "FILE_NOT_FOUND": "List the directory with run_command to find the path.",
    "GUEST_BUSY": "Wait for other calls to end, then try again.",
    "GUEST_DISK_FULL": "Delete what is not needed, then try again.",
    "GUEST_PROTOCOL": "The agent in the VM misbehaves: restart the VM.",
    "GUEST_UNREACHABLE": "The VM may be booting: try again in a few seconds, else restart it.",
    "NOT_A_FILE": "Name a regular file.",
}

_ADVERTISED = {
    tool.name: Advertised(
        name=tool.name,
        description=tool.description,
        input_schema=tool.arguments.model_json_schema(),
        output_schema=tool.result.model_json_schema(),
        annotations=tool.annotations,
    )
    for tool in TOOLS.values()
}


def make_server(
    vms: Vms, streams: Streams, vm_of: Callable[[Context], str]
) -> Server[dict[str, Any]]:
    """Return a server whose calls act in the VM with the id that `vm_of` says."""

    async def list_tools(
        context: Context,  # noqa: ARG001
        params: PaginatedRequestParams | None,  # noqa: ARG001
    ) -> ListToolsResult:
        return ListToolsResult(tools=list(_ADVERTISED.values()))

    async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
        tool = TOOLS.get(params.name)
        if tool is None:
            known = ", ".join(TOOLS)
            raise MCPError(INVALID_PARAMS, f"unknown tool {params.name[:64]!r}; there are: {known}")
        try:
            arguments = tool.arguments.model_validate(params.arguments or {})
            vm = await vms.find_live(vm_of(context))
            call = Call(vm=vm, streams=streams, progress=_progress(context))
            result = await tool.run(call, arguments)
        except ValidationError as error:
            outcome = _failure(_wrong_arguments(tool, error))
        except NexusError as error:
            way_out = _WAY_OUT.get(error.reason, "")
            outcome = _failure(f"{error.reason}: {error.message}. {way_out}".rstrip())
        else:
            outcome = _success(result)
        metrics.tool_calls.add(1, {"tool": tool.name, "error": outcome.is_error})
        return outcome

    return Server(
        "nexus",
        version=VERSION,
        title="Nexus microVM",
        instructions="The tools act in one microVM of its own, as root. Nothing reaches the host.",
        get_tool_input_schema=_input_schema,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _input_schema(name: str) -> dict[str, Any] | None:
    return _ADVERTISED[name].input_schema if name in _ADVERTISED else None


def _success(result: BaseModel) -> CallToolResult:
    text = result.model_dump_json()
    if len(text) > _MAX_TEXT:
        text = f"The result has {len(text)} characters: see the structured content."
    return CallToolResult(
        content=[TextContent(text=text)],
        structured_content=result.model_dump(mode="json"),
        is_error=getattr(result, "success", True) is False,
    )


def _failure(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)], is_error=True)


def _wrong_arguments(tool: Tool, error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)[:5]
    wrong = "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in found
    )
    return f"INVALID_FIELD: {tool.name} cannot be called like this: {wrong}"


def _progress(context: Context) -> Progress:
    """Return what passes a command's output on as it comes, as far as the client asked for it."""
    seen = 0
    next_at = 0.0

    async def report(data: bytes) -> None:
        nonlocal seen, next_at
        seen += len(data)
        now = time.monotonic()
        # A flood of output must not become a flood of notifications; the result has it all.
        if now >= next_at:
            next_at = now + _PROGRESS_SECONDS
            shown = data[:_PROGRESS_TEXT].decode(errors="replace")
            await context.session.report_progress(float(seen), message=shown)

    return report
