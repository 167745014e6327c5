"""Who makes a call, and what it says of itself in its metadata."""

from __future__ import annotations

from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import grpc
import msgspec

from service.gateway.handler import request_id

_NAMES = ("authorization", "x-api-key", "x-request-id", "traceparent")


class Metadata(msgspec.Struct, frozen=True):
    """What a call's metadata say that concerns us."""

    request_id: str
    authorization: str | None
    api_key: str | None
    traceparent: str | None


class Caller(msgspec.Struct, frozen=True):
    """Whose call it is."""

    client: str
    """For fairness between clients."""
    request_id: str
    traceparent: str | None


_caller: ContextVar[Caller] = ContextVar("caller")


def current() -> Caller:
    """Whose call is being served."""
    return _caller.get()


def enter(client: str, told: Metadata) -> None:
    """From here on this call is served."""
    _caller.set(Caller(client, told.request_id, told.traceparent))


def metadata(context: grpc.aio.ServicerContext[Any, Any]) -> Metadata:
    """Read a call's metadata; the first value counts where one was sent more than once."""
    given: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        if name in _NAMES and name not in given and isinstance(value, str):
            given[name] = value
    return Metadata(
        request_id(given.get("x-request-id")),
        given.get("authorization"),
        given.get("x-api-key"),
        given.get("traceparent"),
    )


@lru_cache(1024)
def address(peer: str) -> str:
    """The address of a peer without its port, as HTTP has it: `ipv6:%5B::1%5D:4711` is `::1`."""
    scheme, _, rest = peer.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return scheme
    return unquote(rest).rpartition(":")[0].strip("[]")
