"""The gRPC port: which services it has, its limits, and how it opens and closes."""

from __future__ import annotations

import socket
from collections.abc import Callable

import grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from service import log
from service.config import Config
from service.gateway import tls
from service.gateway.kserve import rpc as kserve
from service.gateway.rpc import health, vision
from service.gateway.rpc.entrance import Entrance
from service.gateway.rpc.health import Health
from service.gateway.rpc.vision import Vision
from service.gateway.serving import Gateway

METADATA_BYTES = 16_384
"""Of one call."""
HANDSHAKE_MS = 10_000
"""From a connection's opening until it speaks HTTP/2."""
PING_FLOOR_MS = 10_000
"""Whoever pings more often than this without sending anything is disconnected."""
ALIVE_MS, ALIVE_ANSWER_MS = 60_000, 20_000
"""A silent client is pinged after the first, and given up after the second."""
CONNECTIONS = 4096
"""Most connections at a time."""
_PLAIN, _DEFLATE, _GZIP = 1, 2, 4
"""Bits of what messages may be compressed by."""


class RpcServer:
    """The port. `register` holds what adds each service; more may be appended before `start`. Raises StartError."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._entrance = Entrance(gateway)
        self._credentials = tls.grpc_credentials(gateway.config)
        self._server: grpc.aio.Server | None = None
        self.services = [vision.NAME, kserve.NAME]
        self.register: list[Callable[[Entrance], None]] = [Vision(gateway).register, kserve.Inference(gateway).register]

    async def start(self) -> None:
        """Open the port."""
        config = self._gateway.config
        for add in self.register:
            add(self._entrance)
        Health(self._gateway, self.services).register(self._entrance)
        if config.grpc_reflection:
            described = reflection.aio.ReflectionServicer([*self.services, health.NAME, reflection.SERVICE_NAME])
            add_ServerReflectionServicer_to_server(described, self._entrance)
        server = grpc.aio.server(handlers=[self._entrance], options=_options(config))
        if self._credentials is None:
            server.add_insecure_port(_address(config))
        else:
            server.add_secure_port(_address(config), self._credentials)
        await server.start()
        self._server = server

    async def stop(self, seconds: float) -> None:
        """Close the port, and give what is under way so long to end."""
        if self._server is not None:
            self._entrance.close()
            log.event("grpc_closing", calls=self._entrance.calls)
            await self._server.stop(seconds)


def _address(config: Config) -> str:
    """Where to listen, in numbers: what the supervisor keeps for us, and not all that a name stands for."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    host = socket.getaddrinfo(config.host, None, family, socket.SOCK_STREAM)[0][4][0]
    return f"[{host}]:{config.grpc_port}" if family is socket.AF_INET6 else f"{host}:{config.grpc_port}"


def _options(config: Config) -> list[tuple[str, int]]:
    limits = config.limits
    return [
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", limits.message_bytes),
        ("grpc.max_concurrent_streams", limits.calls),
        ("grpc.max_allowed_incoming_connections", CONNECTIONS),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_FLOOR_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", ALIVE_MS),
        ("grpc.keepalive_timeout_ms", ALIVE_ANSWER_MS),
        ("grpc.compression_enabled_algorithms_bitset", _PLAIN | _DEFLATE | _GZIP),
        # The library would unpack a message without any limit; see `packed`.
        ("grpc.per_message_decompression", 0),
        # The supervisor holds the port, so that it stays ours while a gateway is replaced.
        ("grpc.so_reuseport", 1),
    ]
