"""A service with one call of each kind, whose behaviour the request names. Run as a process."""

import asyncio
import sys
from pathlib import Path

from nexus.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from nexus_rpc.errors import NotFound
from nexus_rpc.server import Binding, ServerSettings, TlsListener, main
from nexus_rpc.settings import SettingsError


async def _act(word):
    match word:
        case "fail":
            raise NotFound("VM_NOT_FOUND", "no such thing", vm=word)
        case "defect":
            raise ZeroDivisionError
        case "wait":
            await asyncio.Event().wait()


class Servicer(gateway_pb2_grpc.GuestServiceServicer):
    async def GetGuest(self, request, context):
        await _act(request.vm)
        return gateway_pb2.GetGuestResponse(guest=gateway_pb2.Guest(vm_id=request.vm))

    async def Exec(self, request, context):
        yield gateway_pb2.ExecResponse(stdout=b"first")
        await _act(request.vm)
        yield gateway_pb2.ExecResponse(exit=gateway_pb2.ExecExit(code=0))

    async def WriteFile(self, request_iterator, context):
        size = 0
        async for request in request_iterator:
            await _act(request.target.vm)
            size += len(request.data)
        return gateway_pb2.WriteFileResponse(size=size)

    async def ConnectMcp(self, request_iterator, context):
        async for request in request_iterator:
            await _act(request.vm)
            yield gateway_pb2.ConnectMcpResponse(message=request.message)


async def _fail_later(seconds):
    await asyncio.sleep(seconds)
    raise RuntimeError("background work failed")


def run(directory, tls=None, fail_after=None, unfit=None):
    async def compose(stack, tasks):
        if unfit:
            raise SettingsError(unfit)
        if fail_after is not None:
            tasks.create_task(_fail_later(fail_after))
        add = gateway_pb2_grpc.add_GuestServiceServicer_to_server
        return [Binding("nexus.gateway.v1.GuestService", add, Servicer())]

    settings = ServerSettings(runtime_dir=Path(directory), tls=tls, stop_seconds=0.2)
    return main("sample", settings, compose)


if __name__ == "__main__":
    arguments = dict(argument.split("=", 1) for argument in sys.argv[2:])
    listener = None
    if "tls" in arguments:
        files = Path(arguments["files"])
        listener = TlsListener(
            arguments["tls"], files / "ca.pem", files / "server.pem", files / "server.key"
        )
    fail = arguments.get("fail_after")
    sys.exit(run(sys.argv[1], listener, float(fail) if fail else None, arguments.get("unfit")))
