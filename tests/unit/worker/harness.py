"""A worker process under test, with the test in the place of the supervisor and the gateway."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import manifest
from service.config import Config, encode
from service.errors import WireError
from service.wire.channel import Channel, ControlChannel
from service.wire.messages.control import Attach, Control, Failed, Ready, Start, Unit
from service.wire.messages.decoder import Geometry
from service.wire.messages.results import Options
from service.wire.messages.worker import FromWorker, Hello, Ran, Run, RunFailed, Work
from service.wire.pulse import Pulse
from service.wire.slots import Arena

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 60.0
"""Seconds after which a test fails for want of an answer; nothing is measured."""


class WorkerProcess:
    """One worker. `side` is the side of its models' images, `slots` the number of pixel slots."""

    def __init__(self, config: Config, side: int = 32, slots: int = 64) -> None:
        self.side = side
        self.pixels = Arena.create("pixels", slots, side * side * 3)
        self._bodies = Arena.create("bodies", 1, 1)
        self._board = Arena.create("board", config.threads + 1, 16)
        self.pulses = [Pulse(self._board, 1 + number) for number in range(config.threads)]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control: ControlChannel[Control] = ControlChannel(ours, Control)
        command = [sys.executable, "-m", "service.worker.main", str(theirs.fileno())]
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True
        )
        theirs.close()
        arenas = (self.pixels.descriptor, self._bodies.descriptor, self._board.descriptor)
        units = [Unit(name, name, str(there)) for name, there in manifest.find([Path(config.models[0])]).items()]
        start = Start("worker", 0, encode(config), slots, side * side * 3, 1, 1, 1, config.threads, units)
        self.control.send(start, arenas)
        self._batches = 0

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()
        self.control.close()
        for arena in (self.pixels, self._bodies, self._board):
            os.close(arena.descriptor)

    def told(self) -> Ready | Failed:
        """What the worker says to the supervisor next."""
        received = self.control.receive(PATIENCE)
        assert received is not None and isinstance(received[0], Ready | Failed)
        return received[0]

    def attach(self) -> Gateway:
        """A new gateway, in the place of the one before."""
        ours, theirs = socket.socketpair()
        self.control.send(Attach("worker", 0), (theirs.fileno(),))
        theirs.close()
        return Gateway(ours)

    def ready(self) -> Gateway:
        """Wait until the worker is ready, and be its gateway."""
        assert self.told() == Ready()
        gateway = self.attach()
        hello = gateway.answer()
        assert isinstance(hello, Hello)
        gateway.hello = hello
        return gateway

    def put(self, slot: int, image: NDArray[np.uint8]) -> None:
        """Write an image [side, side, 3] into a slot."""
        self.pixels.view(slot)[: image.size] = np.ascontiguousarray(image).tobytes()

    def batch(
        self, images: Iterable[NDArray[np.uint8]], model: str, level: str = "full", first_slot: int = 0, **options: Any
    ) -> Run:
        """Put the images into slots and make the message that runs them as one batch."""
        works = []
        for slot, image in enumerate(images, first_slot):
            self.put(slot, image)
            place = Geometry(self.side, self.side, (0.0, 0.0, float(self.side), float(self.side)))
            works.append(Work(100 + slot, slot, 7, place, Options(**options)))
        self._batches += 1
        return Run(self._batches, model, level, works)

    def status(self) -> int:
        """Wait for the end of the process; its exit status, negative for a signal."""
        return self.process.wait(PATIENCE)

    def overdue(self) -> bool:
        """Whether some engine thread is late."""
        return any(pulse.read().overdue(time.monotonic()) for pulse in self.pulses)

    def becomes_overdue(self) -> bool:
        """Wait until some engine thread is late."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not self.overdue():
            time.sleep(0.05)
        return self.overdue()


class Gateway:
    """The gateway's end of a data channel."""

    def __init__(self, sock: socket.socket) -> None:
        self.channel: Channel[FromWorker] = Channel(sock, FromWorker)
        self.hello: Hello | None = None
        self._ready: list[FromWorker] = []

    def send(self, run: Run) -> None:
        self.channel.send(run)

    def answer(self, timeout: float = PATIENCE) -> FromWorker:
        """The next message of the worker."""
        until = time.monotonic() + timeout
        while not self._ready:
            assert select.select([self.channel], [], [], max(until - time.monotonic(), 0))[0], "no answer"
            self._ready += self.channel.receive()
        return self._ready.pop(0)

    def silent(self, seconds: float) -> bool:
        """Nothing comes for this long, or ever, since the worker has closed the channel."""
        if self._ready:
            return False
        if not select.select([self.channel], [], [], seconds)[0]:
            return True
        try:
            self._ready += self.channel.receive()
        except WireError:
            return True
        return not self._ready

    def run(self, run: Run) -> Ran | RunFailed:
        """Send a batch and wait for its answer."""
        self.send(run)
        answer = self.answer()
        assert isinstance(answer, Ran | RunFailed) and answer.batch == run.batch
        return answer

    def close(self) -> None:
        self.channel.close()
