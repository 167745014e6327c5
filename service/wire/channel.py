"""Frames over unix socket pairs: a length, then one MessagePack message.

`Splitter` is the protocol without I/O; `Channel` is its blocking form for decoders and workers; gateways and the
dispatcher feed a Splitter from their event loops. Control messages use one SOCK_SEQPACKET datagram each, so that a
descriptor stays with its message. Nothing here trusts the other side: lengths are capped and any malformed frame is a
WireError.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from service.errors import FrameTooLong, WireError

MAX_FRAME = 64 << 20
MAX_CONTROL = 128 << 10
MAX_DESCRIPTORS = 8
_LENGTH = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()

T = TypeVar("T")


def frame(message: msgspec.Struct) -> bytes:
    """One message as bytes on the wire."""
    payload = _encoder.encode(message)
    if len(payload) > MAX_FRAME:
        raise FrameTooLong("frame too long")
    return _LENGTH.pack(len(payload)) + payload


class Splitter(Generic[T]):
    """Turns a stream of bytes, cut anywhere, into messages of one union of types."""

    def __init__(self, types: Any, max_frame: int = MAX_FRAME) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(types)
        self._buffer = bytearray()
        self._max_frame = max_frame

    def feed(self, data: bytes | memoryview) -> Iterator[T]:
        """Yield every message that `data` completes."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > self._max_frame:
                    raise WireError("frame too long")
                end = start + _LENGTH.size + length
                if len(buffer) < end:
                    break
                payload = bytes(buffer[start + _LENGTH.size : end])
                start = end
                yield _decoded(self._decoder, payload)
        finally:
            del buffer[:start]

    def close(self) -> None:
        """The stream has ended; a frame cut short is an error."""
        if self._buffer:
            raise WireError("connection closed inside a frame")


def _decoded(decoder: msgspec.msgpack.Decoder[T], payload: bytes) -> T:
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise WireError("malformed message") from error


class Channel(Generic[T]):
    """A blocking data channel over a connected stream socket."""

    def __init__(self, sock: socket.socket, types: Any) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._splitter: Splitter[T] = Splitter(types)
        self._ready: list[T] = []

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def send(self, message: msgspec.Struct) -> None:
        """Send one message whole. Raises WireError when the other side is gone."""
        try:
            self._socket.sendall(frame(message))
        except OSError as error:
            raise WireError("peer is gone") from error

    def receive(self) -> list[T]:
        """The messages of one read, perhaps none yet; WireError when the other side closed or sent nonsense."""
        try:
            data = self._socket.recv(1 << 16)
        except OSError as error:
            raise WireError("peer is gone") from error
        if not data:
            self._splitter.close()
            raise WireError("peer closed")
        return list(self._splitter.feed(data))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class ControlChannel(Generic[T]):
    """A control channel over a SOCK_SEQPACKET pair: one datagram is one message with its descriptors."""

    def __init__(self, sock: socket.socket, types: Any) -> None:
        self._socket = sock
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(types)

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def send(self, message: msgspec.Struct, descriptors: tuple[int, ...] = ()) -> None:
        """Send one message and descriptors with it. Raises WireError when the other side is gone."""
        try:
            socket.send_fds(self._socket, [_encoder.encode(message)], list(descriptors))
        except OSError as error:
            raise WireError("peer is gone") from error

    def receive(self, timeout: float | None = None) -> tuple[T, list[int]] | None:
        """The next message and its descriptors (now ours to close), or None after `timeout` seconds."""
        if timeout is not None and not select.select([self._socket], [], [], timeout)[0]:
            return None
        try:
            data, descriptors, flags, _ = socket.recv_fds(self._socket, MAX_CONTROL, MAX_DESCRIPTORS)
        except OSError as error:
            raise WireError("peer is gone") from error
        if not data:
            raise WireError("peer closed")
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise WireError("control message too long")
            return _decoded(self._decoder, data), descriptors
        except WireError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
