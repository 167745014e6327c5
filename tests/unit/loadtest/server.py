"""A real server on loopback, in a thread, that answers what a test tells it to, and can be made to stand still."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

CLOSE = b""
"""As an answer: close the connection without one."""


@dataclass(frozen=True)
class Asked:
    """One request, and how many came before it."""

    number: int
    head: str
    body: bytes


def answer(status: int = 200, body: bytes = b"{}", **headers: str) -> bytes:
    """An HTTP answer; `_` in a header's name is `-`."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Server:
    """Answers each request with `reply(asked)`: bytes, CLOSE, or None for never."""

    def __init__(self, reply: Callable[[Asked], bytes | None] = lambda asked: answer()) -> None:
        self._reply = reply
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()
        self._over: asyncio.Event | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._talking: list[asyncio.Task[None]] = []
        self.port = 0
        self.asked: list[Asked] = []
        self.connections = 0
        self.stalls: list[tuple[float, float]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._over is not None:
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        self._loop.close()

    def stall(self, seconds: float) -> None:
        """For a reply: stand still, so that nothing is read and nothing answered."""
        begin = time.monotonic()
        time.sleep(seconds)
        self.stalls.append((begin, time.monotonic()))

    def _serve(self) -> None:
        self._loop.run_until_complete(self._run())

    async def _run(self) -> None:
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        await asyncio.sleep(0.02)  # who has just connected is accepted
        server.close()
        await asyncio.sleep(0.02)  # and has its transport, which a cancelled acceptance would leave open
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for writer in self._writers:  # a task that was cancelled before it began has closed nothing
            writer.close()
        await asyncio.sleep(0.02)  # closed connections leave the loop in a later turn of it

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._talking.append(self._loop.create_task(self._talk(reader, writer)))

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lengths = [
                    line.split(":")[1] for line in head.split("\r\n") if line.lower().startswith("content-length")
                ]
                asked = Asked(len(self.asked), head, await reader.readexactly(int(lengths[0])) if lengths else b"")
                self.asked.append(asked)
                reply = self._reply(asked)
                if reply is not None:
                    writer.write(reply)
                if reply == CLOSE:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
