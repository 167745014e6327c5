"""Where every call comes in, whichever service it is for.

Who calls, and whether there is room, is known before a message is read: all methods are served as streams of
messages, which is the same on the wire. Whatever a method raises ends in one of our own errors, and nothing of a
library reaches a client.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from service import log
from service.errors import Refusal, bug
from service.gateway import packing, tls
from service.gateway.auth import ADMIN_CALLS
from service.gateway.rpc import caller, packed, status
from service.gateway.serving import Gateway

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Parse = Callable[[bytes], Any] | None

PUBLIC = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }
)
"""What may be asked without a key: health alone."""


class Inbox(AsyncIterator[Any]):
    """The messages of a call as they come. One that cannot be parsed raises Refusal; the next one may be asked for."""

    def __init__(self, context: Context, parse: Parse, limit: int) -> None:
        self._context = context
        self._parse = parse
        self._limit = limit
        self._reading: asyncio.Future[Any] | None = None
        self.closed = False
        """No more is read, though the client may have more."""

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Any:
        if self.closed:
            raise StopAsyncIteration
        self._reading = asyncio.ensure_future(self._context.read())
        try:
            raw = await self._reading
        except asyncio.CancelledError:
            if self.closed:
                raise StopAsyncIteration from None
            raise
        if raw is grpc.aio.EOF:
            raise StopAsyncIteration
        return parsed(await plain(raw, self._limit), self._parse)

    def close(self) -> None:
        """End it, after what was read last."""
        self.closed = True
        if self._reading is not None:
            self._reading.cancel()


async def plain(raw: bytes, limit: int) -> bytes:
    """A message as its client wrote it, which may have compressed it: at most `limit` bytes. Raises Refusal."""
    encoding = packed.encoding(raw)
    if not encoding:
        return raw
    # However short it is, it may become long.
    return await asyncio.get_running_loop().run_in_executor(None, packing.unpacked, raw, encoding, limit)


def parsed(raw: bytes, parse: Parse) -> Any:
    """The message; raises Refusal."""
    try:
        return parse(raw) if parse else raw
    except DecodeError:
        raise Refusal("bad_request", "the message cannot be parsed") from None


class Entrance(grpc.GenericRpcHandler):
    """All methods by name. To be given to what adds a service to a server, in the server's place."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        config = gateway.config
        self._clients = tls.Clients(config.tls_clients) if config.tls_client_ca else None
        self._services: list[grpc.GenericRpcHandler] = []
        self._methods: dict[str, Handler] = {}
        self._unknown: Handler = grpc.stream_unary_rpc_method_handler(self._refuse_unknown)
        self._inboxes: set[Inbox] = set()
        self.calls = 0
        """Calls under way."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add services; every method must be a coroutine or an asynchronous generator."""
        self._services.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: dict[str, Handler]) -> None:
        """What generated code calls besides, with the same methods. The server would wait for the next call of each of
        them apart, which every call pays for."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """What serves this method."""
        name = handler_call_details.method
        handler = self._methods.get(name)
        if handler is not None:
            return handler
        for one in self._services:
            found = one.service(handler_call_details)
            if found is not None:
                handler = self._methods[name] = self._guarded(name, found)
                return handler
        return self._unknown

    def close(self) -> None:
        """Read no more messages of streams; what was read is answered."""
        for inbox in self._inboxes:
            inbox.close()

    # -- inside ------------------------------------------------------------------------------------------------

    def _guarded(self, name: str, handler: Handler) -> Handler:
        """The same method, served as said above."""
        several, parse = handler.request_streaming, handler.request_deserializer
        if handler.response_streaming:
            method = _streaming(handler.stream_stream if several else handler.unary_stream)

            async def stream(_: object, context: Context) -> None:
                async def work() -> None:
                    if not several:
                        await method(await self._one(context, parse), context)
                        return
                    await self._from_stream(context, parse, method)

                await self._through(name, context, work)

            return grpc.stream_stream_rpc_method_handler(stream, None, handler.response_serializer)
        single: Any = handler.stream_unary if several else handler.unary_unary
        if not inspect.iscoroutinefunction(single):
            raise TypeError(f"{name} is not a coroutine function")

        async def answer(_: object, context: Context) -> Any:
            async def work() -> Any:
                if several:
                    return await self._from_stream(context, parse, single)
                return await single(await self._one(context, parse), context)

            return await self._through(name, context, work)

        return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)

    async def _through(self, name: str, context: Context, work: Callable[[], Awaitable[Any]]) -> Any:
        """Let a call in, and see to it that it ends well."""
        gateway = self._gateway
        told = caller.metadata(context)
        self.calls += 1
        try:
            client, peer = "", self._peer(context)
            if name not in PUBLIC:
                if self.calls > gateway.config.limits.calls:
                    raise Refusal("overloaded", "too many calls at a time", retry_after=1.0)
                client = gateway.guard.identify(told.authorization, told.api_key, peer, name in ADMIN_CALLS)
            caller.enter(client, told)
            return await work()
        except Refusal as refusal:
            gateway.metrics.refused(refusal.code)
            log.event("call_refused", request_id=told.request_id, method=name, outcome=refusal.code)
            await status.abort(context, refusal, told.request_id)
        except grpc.aio.BaseError:
            # Ended by the method itself, by the client, or by the server as it stops.
            raise
        except Exception as error:
            log.event("bug", severity="error", request_id=told.request_id, method=name, trace=log.frames(error))
            gateway.metrics.refused("internal")
            hidden = bug()
            await status.abort(context, hidden, told.request_id)
        finally:
            self.calls -= 1

    def _peer(self, context: Context) -> str:
        """What the connection tells of its client. Raises Refusal."""
        if self._clients is None:
            return caller.address(context.peer())
        return self._clients.name(tls.grpc_names(context.auth_context()))

    async def _one(self, context: Context, parse: Parse) -> Any:
        """The only message of a call. It is held in memory from its first byte on, so it has to come in time."""
        limit = self._gateway.config.limits.upload_seconds
        try:
            async with asyncio.timeout(limit):
                raw = await context.read()
        except TimeoutError:
            raise Refusal("slow_upload", f"the message did not arrive within {limit:g} seconds") from None
        if raw is grpc.aio.EOF:
            raise Refusal("bad_request", "the call has no message")
        return parsed(await plain(raw, self._gateway.config.limits.message_bytes), parse)

    async def _from_stream(self, context: Context, parse: Parse, method: Callable[..., Awaitable[Any]]) -> Any:
        inbox = Inbox(context, parse, self._gateway.config.limits.message_bytes)
        self._inboxes.add(inbox)
        try:
            answer = await method(inbox, context)
        finally:
            self._inboxes.discard(inbox)
        if inbox.closed:
            raise Refusal("unavailable", "this server is leaving", retry_after=1.0)
        return answer

    async def _refuse_unknown(self, _: object, context: Context) -> Any:
        async def work() -> Any:
            raise Refusal("method_not_allowed", "no such method")

        return await self._through("", context, work)


def _streaming(method: Any) -> Callable[..., Awaitable[None]]:
    """A method with many answers as one that writes them itself."""
    if inspect.iscoroutinefunction(method):
        writing: Callable[..., Awaitable[None]] = method
        return writing
    if not inspect.isasyncgenfunction(method):
        raise TypeError(f"{method} is neither a coroutine function nor an asynchronous generator")

    async def written(request: Any, context: Context) -> None:
        async for answer in method(request, context):
            await context.write(answer)

    return written
