"""A client of squint.v1.Vision as any gRPC client is: generated messages, and methods by their names."""

from __future__ import annotations

from typing import Any

import grpc

from service.proto.squint.v1 import vision_pb2 as pb

SERVICE = "/squint.v1.Vision/"
HEALTH = "/grpc.health.v1.Health/"
UNARY: dict[str, tuple[Any, Any]] = {
    "Classify": (pb.ClassifyRequest, pb.ClassifyResponse),
    "Detect": (pb.DetectRequest, pb.DetectResponse),
    "Segment": (pb.SegmentRequest, pb.SegmentResponse),
}
LARGE = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


class Vision:
    """The methods, on a connection of their own. `aio` says whether they are awaited."""

    def __init__(self, port: int, *, aio: bool = False, options: tuple[tuple[str, Any], ...] = ()) -> None:
        target = f"127.0.0.1:{port}"
        # Otherwise channels to one port share a connection.
        given = [*LARGE, ("grpc.use_local_subchannel_pool", 1), *options]
        self.channel: Any = grpc.aio.insecure_channel(target, given) if aio else grpc.insecure_channel(target, given)
        for name, (takes, gives) in UNARY.items():
            setattr(self, name, self.channel.unary_unary(SERVICE + name, takes.SerializeToString, gives.FromString))
        self.Stream: Any = self.channel.stream_stream(
            SERVICE + "Stream", pb.Frame.SerializeToString, pb.FrameAnswer.FromString
        )

    Classify: Any
    Detect: Any
    Segment: Any

    def raw(self, method: str) -> Any:
        """A unary method that takes and gives bytes."""
        return self.channel.unary_unary(method)

    def check(self, service: str = "") -> str:
        """What health says; blocking."""
        from grpc_health.v1 import health_pb2

        check = self.channel.unary_unary(
            HEALTH + "Check", health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckResponse.FromString
        )
        answer = check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def watch(self, service: str = "") -> Any:
        """What health says, and says next."""
        from grpc_health.v1 import health_pb2

        watch = self.channel.unary_stream(
            HEALTH + "Watch", health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckResponse.FromString
        )
        return watch(health_pb2.HealthCheckRequest(service=service))

    def __enter__(self) -> Vision:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    async def __aenter__(self) -> Vision:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()


def told(error: Any) -> dict[str, str]:
    """The trailing metadata of a call that failed."""
    return {name: value for name, value in error.trailing_metadata() or () if isinstance(value, str)}
