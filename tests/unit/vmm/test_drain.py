"""The client of nexus-drain.service: VMs are stopped when the host goes down, and only then."""

from contextlib import asynccontextmanager
from types import SimpleNamespace

import grpc
import pytest

from nexus.vmm.v1 import vmm_pb2, vmm_pb2_grpc
from nexus_rpc.errors import Unavailable
from nexus_vmm import drain


class Vmm(vmm_pb2_grpc.VmServiceServicer):
    calls = 0

    async def DrainVms(self, request, context):
        self.calls += 1
        assert not request.HasField("grace_seconds")
        return vmm_pb2.DrainVmsResponse(stopped=3)


class Systemd:
    def __init__(self, stops):
        self.stops = stops
        self.closed = False

    async def open(self):
        if self.stops is None:
            raise Unavailable("SYSTEMD_UNREACHABLE", "no answer")
        return self

    async def host_stops(self):
        return self.stops

    def close(self):
        self.closed = True


@asynccontextmanager
async def serving(directory):
    server = grpc.aio.server()
    vmm = Vmm()
    vmm_pb2_grpc.add_VmServiceServicer_to_server(vmm, server)
    server.add_insecure_port(f"unix:{directory}/vmm.sock")
    await server.start()
    try:
        yield vmm
    finally:
        await server.stop(0)


@pytest.mark.parametrize("stops", [True, False])
async def test_vms_are_stopped_if_the_host_goes_down(stops, short_path, monkeypatch):
    systemd = Systemd(stops)
    monkeypatch.setattr(drain, "SystemdUnits", systemd)
    settings = SimpleNamespace(server=SimpleNamespace(runtime_dir=short_path))
    async with serving(short_path) as vmm:
        assert await drain.drain(settings) == 3 * stops
        assert vmm.calls == stops
    assert systemd.closed


def test_what_cannot_be_done_is_said(monkeypatch, tmp_path, capsys):
    config = tmp_path / "vmm.toml"
    config.write_text("")
    monkeypatch.setattr(drain, "SystemdUnits", Systemd(None))
    monkeypatch.setattr("sys.argv", ["drain", "--config", str(config)])
    assert drain.main() == 1
    assert capsys.readouterr().err == "VMs cannot be stopped: no answer\n"
