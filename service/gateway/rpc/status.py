"""Refusals in gRPC's words: which status, and what the trailing metadata say."""

from __future__ import annotations

from typing import Any, Never

import grpc

from service.errors import Refusal

BY_HTTP: dict[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""HTTP status of a refusal -> status of the call."""

CODE, REQUEST_ID, RETRY_AFTER = "x-squint-code", "x-request-id", "retry-after-ms"
TRACE = "traceparent"
"""The call's own place in its trace (W3C), where traces are collected; as in the headers of an answer over HTTP."""
PUSHBACK = "grpc-retry-pushback-ms"
"""What gRPC's own clients read before they retry by their retry policy."""


def retry_ms(refusal: Refusal) -> int:
    """When to come back, in milliseconds; 0 when that does not help."""
    return 0 if refusal.retry_after is None else max(1, round(refusal.retry_after * 1000))


def trailers(refusal: Refusal, request_id: str, trace: str = "") -> tuple[tuple[str, str], ...]:
    """The trailing metadata of a call that is refused."""
    told = [(CODE, refusal.code), (REQUEST_ID, request_id)]
    if after := retry_ms(refusal):
        told += [(RETRY_AFTER, str(after)), (PUSHBACK, str(after))]
    if trace:
        told.append((TRACE, trace))
    return tuple(told)


async def abort(
    context: grpc.aio.ServicerContext[Any, Any], refusal: Refusal, request_id: str, trace: str = ""
) -> Never:
    """End the call with this refusal; raises what ends its handler."""
    await context.abort(BY_HTTP[refusal.status], refusal.message, trailers(refusal, request_id, trace))


def tell_trace(context: grpc.aio.ServicerContext[Any, Any], trace: str) -> None:
    """Have the answer of a call tell its place in its trace, if it has one."""
    if trace:
        context.set_trailing_metadata(((TRACE, trace),))
