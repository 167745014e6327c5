"""Runs the sender in a process of its own, so that plots, progress bars and garbage collection never delay a request.

The two talk in frames of a length and a message: the plan goes in, progress and at last the samples come out. When
our end of its input closes, because we stop or because we are gone, the sender stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from loadtest import machine
from loadtest import plan as plans
from loadtest import samples as rows
from loadtest.plan import Plan, Target
from loadtest.samples import Samples
from loadtest.sender import Progress, send

LENGTH = struct.Struct("<Q")
MORE_SECONDS = 20.0
"""How long the sender may take to hand over after it was told to stop."""


class SenderFailed(Exception):
    """The sending process ended without samples; the message is one line."""


def run(plan: Plan, target: Target, progress: Callable[[Progress], None] | None = None) -> Samples:
    """Send a plan from a new process and return what it saw; blocks until then.

    Ctrl-C ends the run early: what was measured is returned with `interrupted` set; a second Ctrl-C raises
    KeyboardInterrupt. Raises SenderFailed if the process dies.
    """
    root = str(Path(__file__).resolve().parents[1])
    # A session of its own: Ctrl-C in a terminal then reaches us alone, and we say how to stop.
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}); from loadtest.process import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    if process.stdin is None or process.stdout is None:
        raise SenderFailed("the sending process has no pipes")
    try:
        with contextlib.suppress(BrokenPipeError):
            _write(process.stdin, plans.pack(plan, target))
        try:
            samples = _read_all(process.stdout, progress)
        except KeyboardInterrupt:
            process.stdin.close()
            samples = _read_all(process.stdout, None)
        if samples is None:
            raise SenderFailed(f"the sending process ended with code {process.wait()} before the run did")
        return samples
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(MORE_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()
        process.stdout.close()


def _read_all(stream: IO[bytes], progress: Callable[[Progress], None] | None) -> Samples | None:
    while True:
        frame = _read(stream)
        if frame is None:
            return None
        if frame[:1] == b"S":
            return rows.unpack(frame[1:])
        if progress is not None:
            progress(msgspec.msgpack.decode(frame[1:], type=Progress))


def _write(stream: IO[bytes], message: bytes) -> None:
    stream.write(LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes | None:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = stream.read(length)
    return body if len(body) == length else None


def main() -> None:
    """The sending process."""
    import uvloop

    faulthandler.enable()
    message = _read(sys.stdin.buffer)
    if message is None:
        return
    plan, target = plans.unpack(message)
    del message
    machine.go_first()
    gc.collect()
    gc.freeze()
    gc.disable()
    samples = uvloop.run(_send(plan, target))
    with contextlib.suppress(BrokenPipeError):
        _write(sys.stdout.buffer, b"S" + rows.pack(samples))


async def _send(plan: Plan, target: Target) -> Samples:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)

    def tell(progress: Progress) -> None:
        with contextlib.suppress(BrokenPipeError):
            _write(sys.stdout.buffer, b"P" + msgspec.msgpack.encode(progress))

    threading.Thread(target=watch, daemon=True).start()
    return await send(plan, target, tell, stop)
