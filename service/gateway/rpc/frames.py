"""A stream of frames: read as long as there is room for one more under way, answered in the order they came."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from service.errors import Refusal
from service.gateway.rpc import typed
from service.gateway.rpc.caller import Caller
from service.gateway.rpc.entrance import Context, Inbox
from service.gateway.rpc.picture import Picture
from service.gateway.serving import Gateway
from service.proto.squint.v1 import vision_pb2 as pb

IDLE_SECONDS = 300.0
"""A stream on which no frame comes for so long is ended: it holds a place that others may need."""
_ID_LETTERS = 48
"""Of the call's request id, which the ids of its frames begin with."""


class Taken(NamedTuple):
    """A frame under way, or one that could not be read."""

    number: int
    frame: Picture | pb.Error


class Frames:
    """One call of the method Stream."""

    def __init__(self, gateway: Gateway, inbox: Inbox, context: Context, by: Caller) -> None:
        self._gateway = gateway
        self._inbox = inbox
        self._context = context
        self._by = by
        self._count = 0
        self._room = asyncio.Semaphore(gateway.config.limits.stream_frames)
        self._taken: asyncio.Queue[Taken | None] = asyncio.Queue()
        """At most as many as there is room for, and None at the end."""

    async def run(self) -> None:
        """Until the client has sent its last frame and has every answer. Raises Refusal when it sends none for long."""
        reading = asyncio.ensure_future(self._read())
        at: Taken | None = None
        try:
            while (at := await self._taken.get()) is not None:
                await self._context.write(await self._answer(at))
                self._room.release()
            await reading
        finally:
            reading.cancel()
            while at is not None:
                if isinstance(at.frame, Picture):
                    at.frame.drop()
                at = None if self._taken.empty() else self._taken.get_nowait()

    async def _read(self) -> None:
        try:
            while True:
                await self._room.acquire()
                try:
                    async with asyncio.timeout(IDLE_SECONDS):
                        frame = await anext(self._inbox)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise Refusal("deadline_exceeded", f"no frame came for {IDLE_SECONDS:g} seconds") from None
                except Refusal as refusal:
                    self._taken.put_nowait(Taken(0, self._unread(refusal)))
                else:
                    self._taken.put_nowait(self._take(frame))
        finally:
            self._taken.put_nowait(None)

    def _take(self, frame: pb.Frame) -> Taken:
        task = frame.WhichOneof("request")
        if task is None:
            return Taken(frame.number, self._unread(Refusal("bad_request", "the frame holds no request")))
        request: typed.Request = getattr(frame, task)
        picture = Picture(self._gateway, task, request, self._by, self._next_id(), self._context.time_remaining())
        return Taken(frame.number, picture)

    def _unread(self, refusal: Refusal) -> pb.Error:
        self._gateway.metrics.refused(refusal.code)
        return typed.error(refusal, self._next_id())

    def _next_id(self) -> str:
        self._count += 1
        return f"{self._by.request_id[:_ID_LETTERS]}-{self._count}"

    async def _answer(self, taken: Taken) -> pb.FrameAnswer:
        frame = taken.frame
        if isinstance(frame, Picture):
            how = await frame.done
            if isinstance(how, pb.ClassifyResponse):
                return pb.FrameAnswer(number=taken.number, classify=how)
            if isinstance(how, pb.DetectResponse):
                return pb.FrameAnswer(number=taken.number, detect=how)
            if isinstance(how, pb.SegmentResponse):
                return pb.FrameAnswer(number=taken.number, segment=how)
            frame = typed.error(how, frame.request_id)
        return pb.FrameAnswer(number=taken.number, error=frame)
