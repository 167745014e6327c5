"""The data channels of who dispatches: to decoders, to workers, and to gateways that are processes of their own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

import msgspec

from service import log
from service.wire.channel import MAX_FRAME, Splitter, frame
from service.wire.messages.control import Role
from service.wire.messages.decoder import FromDecoder
from service.wire.messages.gateway import FromGateway, ToGateway
from service.wire.messages.worker import FromWorker

_TYPES: dict[str, Any] = {
    "decoder": FromDecoder,
    "worker": FromWorker,
    "gateway": FromGateway,
    "dispatcher": ToGateway,
}

OnMessage = Callable[[int, Any], None]
"""Takes a message of peer `index`; raises WireError when it is not what that peer may say."""
OnLost = Callable[[int], None]
OnRead = Callable[[int], None]
"""Told when all that came at once has been taken."""
OnCut = Callable[[Role, int], None]

_MAX_FRAME = {"decoder": 1 << 16, "worker": MAX_FRAME, "gateway": 1 << 20, "dispatcher": MAX_FRAME}
"""A decoder, which reads strangers' bytes, has nothing long to say."""


class Peer(asyncio.Protocol):
    """One data channel: whole messages in, whole messages out, and one notice when it ends."""

    def __init__(
        self, role: Role, index: int, on_message: OnMessage, on_lost: OnLost, on_cut: OnCut, on_read: OnRead | None
    ) -> None:
        self._role = role
        self._index = index
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_cut = on_cut
        self._on_read = on_read
        self._splitter: Splitter[Any] = Splitter(_TYPES[role], _MAX_FRAME[role])
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The channel is open."""
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came. A peer that sends nonsense is cut off, and the supervisor asked to replace it."""
        try:
            for message in self._splitter.feed(data):
                self._on_message(self._index, message)
            if self._on_read is not None:
                self._on_read(self._index)
        except Exception as error:
            # Not WireError alone: a bug of ours here must not leave a peer that nobody talks to any more.
            trace = log.frames(error)
            log.event("channel_error", severity="error", role=self._role, index=self._index, trace=trace)
            self.close()
            self._on_cut(self._role, self._index)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other process is gone, or the channel was closed here."""
        self._on_lost(self._index)

    def send(self, message: msgspec.Struct) -> None:
        """Queue one message."""
        if self._transport is not None:
            self._transport.write(frame(message))

    def close(self) -> None:
        """Cut the channel at once."""
        if self._transport is not None:
            self._transport.abort()


class Pool:
    """All peers by role and index."""

    def __init__(self, on_cut: OnCut) -> None:
        self._on_cut = on_cut
        self._peers: dict[tuple[Role, int], Peer] = {}

    async def attach(
        self,
        role: Role,
        index: int,
        descriptor: int,
        on_message: OnMessage,
        on_lost: OnLost,
        on_read: OnRead | None = None,
    ) -> None:
        """Take over one end of a new data channel."""

        def lost(number: int) -> None:
            if self._peers.get((role, number)) is peer:
                del self._peers[role, number]
                on_lost(number)

        peer = Peer(role, index, on_message, lost, self._on_cut, on_read)
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        former = self._peers.get((role, index))
        if former is not None:
            former.connection_lost(None)
            former.close()
        self._peers[role, index] = peer
        await asyncio.get_running_loop().create_unix_connection(lambda: peer, sock=sock)

    def send(self, role: Role, index: int, message: msgspec.Struct) -> None:
        """Send to a peer; if it is gone, its on_lost has told or will tell."""
        peer = self._peers.get((role, index))
        if peer is not None:
            peer.send(message)
