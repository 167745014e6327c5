"""The service squint.v1.Vision: three tasks, and frames in a stream."""

from __future__ import annotations

from typing import Any

import grpc

from service.errors import Refusal
from service.gateway.rpc import caller, status, typed
from service.gateway.rpc.entrance import Context, Entrance, Handler, Inbox
from service.gateway.rpc.frames import Frames
from service.gateway.rpc.picture import Picture
from service.gateway.serving import Gateway
from service.proto.squint.v1 import vision_pb2 as pb

NAME: str = pb.DESCRIPTOR.services_by_name["Vision"].full_name

_TASKS: dict[str, tuple[str, Any, Any]] = {
    "Classify": ("classify", pb.ClassifyRequest, pb.ClassifyResponse),
    "Detect": ("detect", pb.DetectRequest, pb.DetectResponse),
    "Segment": ("segment", pb.SegmentRequest, pb.SegmentResponse),
}
"""Method -> its task, and the types of its messages."""


class Vision:
    """The methods."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def register(self, entrance: Entrance) -> None:
        """Add the service."""
        methods: dict[str, Handler] = {name: self._task(*of) for name, of in _TASKS.items()}
        methods["Stream"] = grpc.stream_stream_rpc_method_handler(
            self._stream, pb.Frame.FromString, pb.FrameAnswer.SerializeToString
        )
        entrance.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(NAME, methods)])

    def _task(self, task: str, takes: Any, gives: Any) -> Handler:
        async def method(request: typed.Request, context: Context) -> typed.Response:
            by = caller.current()
            picture = Picture(self._gateway, task, request, by, by.request_id, context.time_remaining())
            del request  # it holds the image once more
            try:
                answer = await picture.done
            except BaseException:
                picture.drop()
                raise
            if isinstance(answer, Refusal):
                await status.abort(context, answer, by.request_id, picture.serving.trace)
            status.tell_trace(context, picture.serving.trace)
            return answer

        return grpc.unary_unary_rpc_method_handler(method, takes.FromString, gives.SerializeToString)

    async def _stream(self, inbox: Inbox, context: Context) -> None:
        await Frames(self._gateway, inbox, context, caller.current()).run()
