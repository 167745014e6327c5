"""A small HTTP/1.1 client on asyncio streams: fast enough for load, and free to send what no library would."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


IDLE_SECONDS = 10.0
"""A connection unused for longer is opened anew: the server may be about to close it."""


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._used_at = 0.0

    async def request(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Reply:
        """Send one request and read its response; a lost connection raises ConnectionError."""
        lines = [f"{method} {target} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        return await self.send(head + body)

    async def send(self, data: bytes) -> Reply:
        """Send raw bytes and read one response."""
        if time.monotonic() - self._used_at > IDLE_SECONDS:
            await self.close()
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(data)
        reply = await self.read()
        self._used_at = time.monotonic()
        if reply.headers.get("connection") == "close":
            await self.close()
        return reply

    async def read(self) -> Reply:
        """Read one response."""
        if self._reader is None:
            raise ConnectionError("not connected")
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            status_line, *lines = head.decode("latin-1").split("\r\n")
            headers = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            await self.close()
            raise ConnectionError("connection lost") from error
        return Reply(int(status_line.split()[1]), headers, body)

    async def close(self) -> None:
        """Close, if open."""
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def once(port: int, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
    """One request on a connection of its own."""
    connection = Connection(port)
    try:
        return await connection.request(method, target, body, headers)
    finally:
        await connection.close()
