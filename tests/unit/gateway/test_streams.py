"""Operations in guests that do not keep to the protocol, and their traces."""

import asyncio
from contextlib import aclosing, nullcontext

import pytest
from gateway_doubles import FakeGuest, make_vm
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from nexus_gateway import streams as module
from nexus_gateway.operations import Command
from nexus_gateway.streams import Exit, FileInfo, Output, Streams
from nexus_gateway.vsock import dial
from nexus_guest.wire import Kind
from nexus_rpc.errors import DataLoss, InvalidArgument, NotFound, Unavailable

TRUE = Command(argv=("true",))


@pytest.fixture
def guest(tmp_path):
    return FakeGuest(tmp_path / "agent.sock")


@pytest.fixture
def vm(guest):
    return make_vm(path=guest.path)


@pytest.fixture
def streams():
    return Streams(dial, nullcontext)


async def everything(events):
    async with aclosing(events):
        return [event async for event in events]


async def chunks(*parts):
    for part in parts:
        yield part


def says(*frames):
    """A guest that sends these frames whatever it is asked, and then waits."""

    async def script(side):
        await side.receive()
        for kind, content in frames:
            if isinstance(content, dict):
                await side.message(kind, **content)
            else:
                await side.frame(kind, content)
        await side.closed()

    return script


PID = (Kind.REPLY, {"pid": 7})


async def test_exec(guest, streams, vm):
    guest.ports[300] = says(
        PID, (Kind.STDOUT, b"o"), (Kind.STDERR, b"e"), (Kind.EXIT, {"code": 3, "signal": 0})
    )
    async with guest:
        events = await everything(streams.exec(vm, TRUE))
    assert events == [Output(Kind.STDOUT, b"o"), Output(Kind.STDERR, b"e"), Exit(3, 0)]


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([(Kind.STDOUT, b"x")], id="output before the reply"),
        pytest.param([PID, PID], id="two replies"),
        pytest.param([PID, (Kind.DATA, b"x")], id="file bytes"),
        pytest.param([PID, (Kind.REQUEST, {"op": "exec"})], id="a request"),
        pytest.param([PID, (Kind.EXIT, {})], id="an exit without a code"),
        pytest.param([PID, (Kind.EXIT, {"code": 1 << 70})], id="an absurd code"),
        pytest.param([PID, (Kind.EXIT, {"code": "0"})], id="a code that is text"),
        pytest.param([PID, (Kind.EXIT, {"code": 0, "signal": -1})], id="an absurd signal"),
    ],
)
async def test_exec_out_of_turn(guest, streams, vm, frames):
    guest.ports[300] = says(*frames)
    async with guest:
        with pytest.raises(DataLoss) as caught:
            await everything(streams.exec(vm, TRUE))
    assert caught.value.reason == "GUEST_PROTOCOL"


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([(Kind.REPLY, {})], id="no size"),
        pytest.param([(Kind.REPLY, {"size": -1, "mode": 0})], id="a negative size"),
        pytest.param([(Kind.REPLY, {"size": 1 << 70, "mode": 0})], id="an absurd size"),
        pytest.param([(Kind.REPLY, {"size": 1, "mode": 1}), (Kind.STDOUT, b"x")], id="output"),
        pytest.param([(Kind.END, b"")], id="an end before the beginning"),
    ],
)
async def test_read_out_of_turn(guest, streams, vm, frames):
    guest.ports[300] = says(*frames)
    async with guest:
        with pytest.raises(DataLoss):
            await everything(streams.read(vm, "/x"))


async def test_a_mode_is_cut_to_its_permission_bits(guest, streams, vm):
    guest.ports[300] = says((Kind.REPLY, {"size": 0, "mode": 0o104755}), (Kind.END, b""))
    async with guest:
        assert await everything(streams.read(vm, "/x")) == [FileInfo(size=0, mode=0o4755)]


async def test_an_error_in_the_middle_of_a_file(guest, streams, vm):
    guest.ports[300] = says(
        (Kind.REPLY, {"size": 9, "mode": 0}),
        (Kind.DATA, b"x"),
        (Kind.ERROR, {"reason": "FILE_NOT_FOUND", "message": "gone"}),
    )
    async with guest:
        with pytest.raises(NotFound, match="gone"):
            await everything(streams.read(vm, "/x"))


async def test_a_guest_that_refuses_a_file_before_it_has_come_is_not_waited_for(guest, streams, vm):
    async def refuses(side):
        await side.receive()
        await side.message(Kind.ERROR, reason="GUEST_DISK_FULL", message="no room")
        await side.closed()

    async def endless():
        yield b"x"
        await asyncio.Event().wait()

    guest.ports[300] = refuses
    async with guest:
        with pytest.raises(Exception, match="no room") as caught:
            await streams.write(vm, "/x", None, endless())
    assert caught.value.reason == "GUEST_DISK_FULL"


@pytest.mark.parametrize("reply", [{}, {"size": 0}, {"size": "1"}, {"size": 2}])
async def test_a_guest_that_did_not_write_what_it_was_sent(guest, streams, vm, reply):
    async def shrugs(side):
        while (frame := await side.receive()) is not None:
            if frame.kind is Kind.END:
                await side.message(Kind.REPLY, **reply)

    guest.ports[300] = shrugs
    async with guest:
        with pytest.raises(DataLoss, match="did not write the 1 bytes"):
            await streams.write(vm, "/x", None, chunks(b"x"))


async def test_a_caller_that_breaks_off_a_file_has_the_last_word(guest, streams, vm):
    ended = asyncio.get_running_loop().create_future()

    async def listens(side):
        frames = []
        while (frame := await side.receive()) is not None:
            frames.append(frame.kind)
        ended.set_result(frames)

    async def breaks():
        yield b"x"
        raise InvalidArgument("INVALID_FIELD", "a mistake")

    guest.ports[300] = listens
    async with guest:
        with pytest.raises(InvalidArgument, match="a mistake"):
            await streams.write(vm, "/x", None, breaks())
        assert Kind.END not in await ended


async def test_a_guest_that_says_nothing_about_a_file(guest, streams, vm, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT", 0.05)
    guest.ports[300] = says()
    async with guest:
        with pytest.raises(Unavailable):
            await everything(streams.exec(vm, TRUE))
        with pytest.raises(Unavailable):
            await everything(streams.read(vm, "/x"))
        with pytest.raises(Unavailable, match="did not finish"):
            await streams.write(vm, "/x", None, chunks(b"x"))
        with pytest.raises(Unavailable):
            await streams.delete(vm, "/x")


async def test_leaving_an_operation_closes_its_connection(guest, streams, vm):
    closed = asyncio.Event()

    async def runs(side):
        await side.receive()
        await side.message(Kind.REPLY, pid=7)
        await side.frame(Kind.STDOUT, b"on")
        await side.closed()
        closed.set()

    guest.ports[300] = runs
    async with guest, asyncio.timeout(10):
        async with aclosing(streams.exec(vm, TRUE)) as events:
            async for _ in events:
                break
        await closed.wait()


async def test_one_guest_that_holds_its_operations_costs_no_other(guest, streams, vm, tmp_path):
    async def holds(side):
        await side.closed()

    guest.ports[300] = holds
    good = FakeGuest(
        tmp_path / "good.sock", port300=says(PID, (Kind.EXIT, {"code": 0, "signal": 0}))
    )
    async with guest, good:
        held = [asyncio.create_task(everything(streams.exec(vm, TRUE))) for _ in range(48)]
        for _ in held:
            await guest.arrivals.get()
        with pytest.raises(Exception, match="48 operations") as caught:
            await everything(streams.exec(vm, TRUE))
        assert caught.value.reason == "GUEST_BUSY"
        other = make_vm("good", vm_id="b" * 13, path=good.path)
        assert await everything(streams.exec(other, TRUE)) == [Exit(0, 0)]
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        guest.ports[300] = good.ports[300]
        assert await everything(streams.exec(vm, TRUE)) == [Exit(0, 0)]


async def test_an_operation_is_a_span_in_the_callers_trace(guest, streams, vm, monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    monkeypatch.setattr(module, "_tracer", tracer)
    guest.ports[300] = says((Kind.ERROR, {"reason": "FILE_NOT_FOUND", "message": "none"}))
    async with guest:
        with tracer.start_as_current_span("caller") as caller, pytest.raises(NotFound):
            await streams.delete(vm, "/x")
    span = next(span for span in exporter.get_finished_spans() if span.name == "guest delete")
    assert span.parent.span_id == caller.get_span_context().span_id
    assert (span.attributes["nexus.vm"], span.status.description) == (vm.id, "FILE_NOT_FOUND")
    assert trace.StatusCode.ERROR is span.status.status_code
