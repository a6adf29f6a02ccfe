"""Server interceptors: one wrapper for the four kinds of call, and what is done around a call.

A servicer only converts; errors become status here, and here each call gets its span, its metrics
and its log line.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import grpc
from opentelemetry import metrics, propagate, trace

from nexus_rpc.errors import Internal, NexusError, to_status

Context = grpc.aio.ServicerContext[Any, Any]
Around = Callable[[str, Context], AbstractAsyncContextManager[None]]

_log = logging.getLogger(__name__)
_tracer = trace.get_tracer(__name__)
_seconds = metrics.get_meter(__name__).create_histogram(
    "rpc.server.duration",
    unit="s",
    description="Time from the request to the end of the answer",
    explicit_bucket_boundaries_advisory=[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100],
)


@asynccontextmanager
async def errors(method: str, context: Context) -> AsyncIterator[None]:
    """Turn what a servicer raises into the status of the call."""
    try:
        yield
    except NexusError as error:
        await context.abort_with_status(to_status(error))
    except grpc.aio.AbortError:
        raise
    except Exception:  # noqa: BLE001  # the last resort: whatever it is, the caller gets a status
        _log.exception("defect in a call", extra={"method": method})
        message = f"{method} failed by a defect of Nexus; its log has the details"
        await context.abort_with_status(to_status(Internal("DEFECT", message)))


@asynccontextmanager
async def observed(method: str, context: Context) -> AsyncIterator[None]:
    """Give the call a span in the caller's trace, and count and time it."""
    carrier = {
        key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
    }
    began = time.monotonic()
    with _tracer.start_as_current_span(
        method, context=propagate.extract(carrier), kind=trace.SpanKind.SERVER
    ) as span:
        status = "OK"
        try:
            yield
        except BaseException:
            # Unset where the caller went away: there is no one left to give a status to.
            status = _name(context.code()) or "CANCELLED"
            raise
        finally:
            attributes = {"rpc.method": method, "rpc.grpc.status_code": status}
            span.set_attributes(attributes)
            _seconds.record(time.monotonic() - began, attributes)


def _name(code: object) -> str | None:
    return code.name if isinstance(code, grpc.StatusCode) else None


class AroundCalls(grpc.aio.ServerInterceptor):
    """Runs every call, of whichever kind, inside `around`."""

    def __init__(self, around: Around) -> None:
        self._around = around

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler of the call, wrapped."""
        handler = await continuation(handler_call_details)
        # None for an unknown method: gRPC answers UNIMPLEMENTED by itself.
        if handler is None:
            return handler
        return _wrap(handler, handler_call_details.method.lstrip("/"), self._around)


def _wrap(
    handler: grpc.RpcMethodHandler[Any, Any], method: str, around: Around
) -> grpc.RpcMethodHandler[Any, Any]:
    kind = ("stream" if handler.request_streaming else "unary") + (
        "_stream" if handler.response_streaming else "_unary"
    )
    behaviour = getattr(handler, kind)

    async def unary(request: Any, context: Context) -> Any:  # noqa: ANN401  # any message
        async with around(method, context):
            return await behaviour(request, context)

    async def stream(request: Any, context: Context) -> None:  # noqa: ANN401  # any message
        # A coroutine that writes: a generator of a cancelled call is left to the collector.
        async with around(method, context), aclosing(behaviour(request, context)) as answers:
            async for answer in answers:
                await context.write(answer)

    make = getattr(grpc, f"{kind}_rpc_method_handler")
    wrapped: grpc.RpcMethodHandler[Any, Any] = make(
        stream if inspect.isasyncgenfunction(behaviour) else unary,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
    return wrapped
