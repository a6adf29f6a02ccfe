"""A real server process, as systemd would run it."""

import asyncio
import json
import os
import signal
import stat
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from cryptography_files import make_ca, make_certificate
from free_port import free_port
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from notifications import Notifications

from nexus.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from nexus_rpc.channel import ClientTls, connect
from nexus_rpc.errors import from_rpc_error

SAMPLE = Path(__file__).with_name("sample_service.py")


@asynccontextmanager
async def serving(directory, *arguments, watchdog_seconds=0):
    with Notifications(directory / "notify") as notifications:
        environment = os.environ | {
            "NOTIFY_SOCKET": str(notifications.path),
            "WATCHDOG_USEC": str(int(watchdog_seconds * 1_000_000)),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            SAMPLE,
            directory,
            *arguments,
            env=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await notifications.until("READY=1", process)
            yield process, notifications
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@pytest.fixture
def target(tmp_path):
    return f"unix:{tmp_path}/sample.sock"


async def test_socket_mode_health_and_reflection(tmp_path, target):
    async with serving(tmp_path), connect(target) as channel:
        assert stat.S_IMODE((tmp_path / "sample.sock").stat().st_mode) == 0o660

        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "nexus.gateway.v1.GuestService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="*")
        async for answer in reflection.ServerReflectionInfo(iter([ask])):
            names = {service.name for service in answer.list_services_response.service}
        assert {"nexus.gateway.v1.GuestService", "grpc.health.v1.Health"} <= names


async def _unary(stub, word):
    return (await stub.GetGuest(gateway_pb2.GetGuestRequest(vm=word))).guest.vm_id


async def _server_stream(stub, word):
    return [answer async for answer in stub.Exec(gateway_pb2.ExecRequest(vm=word))][0].stdout


async def _client_stream(stub, word):
    target = gateway_pb2.FileTarget(vm=word)
    parts = [gateway_pb2.WriteFileRequest(target=target), gateway_pb2.WriteFileRequest(data=b"12")]
    return (await stub.WriteFile(iter(parts))).size


async def _both(stub, word):
    messages = iter([gateway_pb2.ConnectMcpRequest(vm=word, message=b"m")])
    return [answer.message async for answer in stub.ConnectMcp(messages)]


KINDS = {_unary: "fine", _server_stream: b"first", _client_stream: 2, _both: [b"m"]}


@pytest.mark.parametrize("call", KINDS, ids=lambda call: call.__name__)
async def test_errors_and_defects_in_each_kind_of_call(tmp_path, target, call):
    async with serving(tmp_path), connect(target) as channel:
        stub = gateway_pb2_grpc.GuestServiceStub(channel)

        assert await call(stub, "fine") == KINDS[call]

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(stub, "fail")
        error = from_rpc_error(caught.value)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert (error.reason, error.metadata) == ("VM_NOT_FOUND", {"vm": "fail"})

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(stub, "defect")
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "ZeroDivision" not in caught.value.details()


async def test_sigterm_ends_open_streams_and_exits_cleanly(tmp_path, target):
    async with serving(tmp_path) as (process, notifications), connect(target) as channel:
        stream = gateway_pb2_grpc.GuestServiceStub(channel).Exec(gateway_pb2.ExecRequest(vm="wait"))
        assert (await stream.read()).stdout == b"first"

        process.send_signal(signal.SIGTERM)
        await notifications.until("STOPPING=1", process)
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.read()
        _, log = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 0
    lines = [json.loads(line) for line in log.decode().splitlines()]
    assert [line["message"] for line in lines] == ["ready", "stopped"]
    assert not (tmp_path / "sample.sock").exists()


async def test_a_second_server_refuses_and_leaves_the_first_alone(tmp_path, target):
    async with serving(tmp_path), connect(target) as channel:
        second = await asyncio.create_subprocess_exec(
            sys.executable, SAMPLE, tmp_path, stderr=asyncio.subprocess.PIPE
        )
        _, log = await second.communicate()
        assert second.returncode == 1
        assert "another server holds" in json.loads(log)["message"]
        assert await _unary(gateway_pb2_grpc.GuestServiceStub(channel), "fine") == "fine"


async def test_a_killed_server_can_be_started_again(tmp_path, target):
    async with serving(tmp_path) as (process, _):
        process.kill()
        await process.wait()
    (tmp_path / "notify").unlink()
    async with serving(tmp_path), connect(target) as channel:
        assert await _unary(gateway_pb2_grpc.GuestServiceStub(channel), "fine") == "fine"


async def test_the_watchdog_is_fed(tmp_path):
    async with serving(tmp_path, watchdog_seconds=0.3) as (process, notifications):
        for _ in range(3):
            await notifications.until("WATCHDOG=1", process)


async def test_failed_background_work_ends_the_service(tmp_path):
    async with serving(tmp_path, "fail_after=0.2") as (process, _):
        _, log = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert "background work failed" in log.decode()


async def test_what_it_cannot_start_with_is_one_line_and_no_defect(tmp_path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, SAMPLE, tmp_path, "unfit=no such user", stderr=asyncio.subprocess.PIPE
    )
    _, log = await process.communicate()
    (line,) = map(json.loads, log.splitlines())
    assert (process.returncode, line["message"]) == (1, "cannot start: no such user")
    assert "exception" not in line


async def test_metrics_on_the_unix_socket(tmp_path, target):
    async with serving(tmp_path), connect(target) as channel:
        await _unary(gateway_pb2_grpc.GuestServiceStub(channel), "fine")

        reader, writer = await asyncio.open_unix_connection(tmp_path / "metrics.sock")
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = (await asyncio.wait_for(reader.read(), 10)).decode()
        writer.close()

        assert answer.startswith("HTTP/1.1 200 OK")
        assert 'rpc_method="nexus.gateway.v1.GuestService/GetGuest"' in answer


async def test_tcp_takes_only_clients_of_our_ca(tmp_path):
    ours, theirs = make_ca(tmp_path / "ca"), make_ca(tmp_path / "other")
    make_certificate(ours, tmp_path / "server", "localhost")
    make_certificate(ours, tmp_path / "client", "friend")
    make_certificate(theirs, tmp_path / "stranger", "stranger")
    listen = f"127.0.0.1:{free_port()}"

    def tls(who):
        return ClientTls(tmp_path / "ca.pem", tmp_path / f"{who}.pem", tmp_path / f"{who}.key")

    async with serving(tmp_path, f"tls={listen}", f"files={tmp_path}"):
        async with connect(listen, tls("client")) as channel:
            assert await _unary(gateway_pb2_grpc.GuestServiceStub(channel), "fine") == "fine"
        for channel in (connect(listen, tls("stranger")), connect(listen)):
            async with channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await gateway_pb2_grpc.GuestServiceStub(channel).GetGuest(
                        gateway_pb2.GetGuestRequest(vm="fine"), timeout=5
                    )
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
