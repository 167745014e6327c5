"""grpc.health.v1: what `/readyz` says, for those who ask by gRPC. Nothing is remembered: each answer is looked up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2 as pb

from service.errors import Refusal
from service.gateway.rpc.entrance import Context, Entrance, Handler
from service.gateway.serving import Gateway

NAME: str = pb.DESCRIPTOR.services_by_name["Health"].full_name
LOOK_SECONDS = 0.1
"""How often a watcher looks."""
WATCHERS = 64
"""Most calls of Watch at a time: these need no key."""

_Status = pb.HealthCheckResponse


class Health:
    """The methods. `services` are the names one may ask about besides the empty one, which is the whole server; all of
    them are served by the same workers and share one state."""

    def __init__(self, gateway: Gateway, services: Sequence[str]) -> None:
        self._gateway = gateway
        self._services = {"", *services}
        self._watchers = 0

    def register(self, entrance: Entrance) -> None:
        """Add the service."""
        methods: dict[str, Handler] = {
            "Check": grpc.unary_unary_rpc_method_handler(
                self._check, pb.HealthCheckRequest.FromString, pb.HealthCheckResponse.SerializeToString
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self._watch, pb.HealthCheckRequest.FromString, pb.HealthCheckResponse.SerializeToString
            ),
        }
        entrance.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(NAME, methods)])

    def _status(self) -> int:
        return int(_Status.SERVING if self._gateway.state() == "ready" else _Status.NOT_SERVING)

    async def _check(self, request: pb.HealthCheckRequest, context: Context) -> pb.HealthCheckResponse:
        if request.service not in self._services:
            raise Refusal("not_found", "no such service")
        return _Status(status=self._status())

    async def _watch(self, request: pb.HealthCheckRequest, context: Context) -> None:
        """Tell the state now and whenever it changes, until the port closes."""
        if self._watchers >= WATCHERS:
            raise Refusal("overloaded", "too many watch already", retry_after=1.0)
        self._watchers += 1
        told = None
        try:
            while not self._gateway.closed():
                status = self._status() if request.service in self._services else int(_Status.SERVICE_UNKNOWN)
                if status != told:
                    await context.write(_Status(status=status))
                    told = status
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._watchers -= 1
