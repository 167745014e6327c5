"""Raw bytes to a port, and every answer until the connection ends."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from dataclasses import dataclass

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass(frozen=True)
class Spoken:
    """What came back on one connection."""

    statuses: tuple[int, ...]
    data: bytes
    closed: bool
    """The other side closed it, within the time."""


def speak_tls(port: int, data: bytes, context: ssl.SSLContext, seconds: float = 5.0) -> Spoken:
    """The same over TLS, blocking; nothing is read of a server that does not agree on it."""
    read = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
                secure.sendall(data)
                while part := secure.recv(1 << 16):
                    read += part
        except (ssl.SSLError, ConnectionError):
            pass
    return Spoken(tuple(answers(read)), read, True)


async def speak(port: int, data: bytes, seconds: float = 5.0) -> Spoken:
    """Send the bytes, and read until the other side closes or the time is over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    read, closed = bytearray(), False
    try:
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(seconds):
                writer.write(data)
                try:
                    while part := await reader.read(1 << 16):
                        read += part
                except ConnectionResetError:
                    pass
                closed = True
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return Spoken(tuple(answers(bytes(read))), bytes(read), closed)


def answers(data: bytes) -> list[int]:
    """The statuses of the responses in a stream, read by their lengths, so that none is found within a body."""
    found = []
    while data:
        match = _STATUS.match(data)
        if match is None:
            raise ValueError(f"no response begins here: {data[:80]!r}")
        found.append(int(match[1]))
        head, _, data = data.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        data = data[int(length[1]) if length else 0 :]
    return found
