"""What one request costs a decoder process: `python -m tests.bench.decoder [FILE.jpg ...]`.

A real, sandboxed `service.decoder` process is asked over its channels, as the gateway asks it. Its CPU time is the
kernel's, so it holds everything: the message in, the decode, the resize, the message out. `alone` is one request at a
time, `stream` keeps eight under way. The parts are measured in this process, with the same functions.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from service import config
from service.config import Config, Limits
from service.decoder import headers, image
from service.decoder.fitting import place
from service.decoder.resample import resample
from service.wire.channel import Channel, ControlChannel
from service.wire.messages.control import Attach, Control, Start
from service.wire.messages.decoder import Decode, Decoded, Fitting, FromDecoder
from service.wire.slots import Arena
from tests.unit.decoder.scenes import photo, save

SIDE = 224
FITTING = Fitting(fit="crop", height=SIDE, width=SIDE, fill=(0, 0, 0))
BODIES, BODY_BYTES = 8, 20 << 20
UNDER_WAY = 8
ROOT = Path(__file__).parents[2]


class Process:
    """A decoder process, with this one as its supervisor and gateway."""

    def __init__(self) -> None:
        self.pixels = Arena.create("pixels", BODIES, SIDE * SIDE * 3)
        self.bodies = Arena.create("bodies", BODIES, BODY_BYTES)
        board = Arena.create("board", 1, 16)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service.decoder.main", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
            env={"OPENBLAS_NUM_THREADS": "1"},
        )
        theirs.close()
        self.control: ControlChannel[Control] = ControlChannel(ours, Control)
        arenas = (self.pixels, self.bodies, board)
        self.control.send(
            Start("decoder", 0, config.encode(Config()), BODIES, SIDE * SIDE * 3, BODIES, BODY_BYTES, 0, 1),
            tuple(arena.descriptor for arena in arenas),
        )
        ours, theirs = socket.socketpair()
        self.control.send(Attach("decoder", 0), (theirs.fileno(),))
        theirs.close()
        self.data: Channel[FromDecoder] = Channel(ours, FromDecoder)
        self.control.receive(60)

    def cpu(self) -> float:
        """Seconds of CPU that the process has used."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def ask(self, body: bytes, count: int, under_way: int) -> tuple[float, float]:
        """Decode a body `count` times: seconds of the process's CPU per request, and of the wall clock."""
        for slot in range(BODIES):
            self.bodies.view(slot)[: len(body)] = body
        sent = answered = 0
        cpu, wall = self.cpu(), time.perf_counter()
        while answered < count:
            while sent < count and sent - answered < under_way:
                self.data.send(Decode(sent, sent % BODIES, len(body), sent % BODIES, FITTING))
                sent += 1
            for answer in self.data.receive():
                if not isinstance(answer, Decoded):
                    raise RuntimeError(f"not decoded: {answer}")
                answered += 1
        return (self.cpu() - cpu) / count, (time.perf_counter() - wall) / count

    def close(self) -> None:
        """End it."""
        self.control.close()
        self.process.wait(30)


def parts(body: bytes) -> dict[str, Callable[[], object]]:
    """The steps of `image.decode` on their own."""
    limits = Limits()
    header = headers.read(body, limits)
    placing = place(*header.displayed, FITTING)
    shrink = image.shrink_of(header, placing)
    pixels = np.asarray(image.read(body, header, shrink))
    box = image.shrunk_box(placing, header, shrink)
    target = np.empty((SIDE, SIDE, 3), np.uint8)
    out = memoryview(bytearray(SIDE * SIDE * 3))
    return {
        "header": lambda: headers.read(body, limits),
        "decode": lambda: image.read(body, header, shrink),
        "resize": lambda: resample(pixels, box, target),
        "image.decode": lambda: image.decode(body, out, FITTING, limits),
    }


def least(call: Callable[[], object], rounds: int) -> float:
    """The least CPU seconds of many calls."""
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time_ns()
        call()
        best = min(best, (time.process_time_ns() - started) / 1e9)
    return best


def main() -> None:
    """Print one table."""
    bodies = {Path(name).name: Path(name).read_bytes() for name in sys.argv[1:]}
    if not bodies:
        bodies = {
            f"{width}x{height}": save(photo(width, height), "JPEG", quality=quality)
            for width, height, quality in ((500, 375, 92), (1280, 960, 92), (4000, 3000, 85), (4000, 3000, 92))
        }
    process = Process()
    print("| CPU ms per request | kB | process, alone | process, stream | header | decode | resize | image.decode |")
    print("|---" * 8 + "|")
    for name, body in bodies.items():
        count = max(30, min(2000, 60_000_000 // len(body)))
        process.ask(body, count // 4, 1)
        alone = min(process.ask(body, count // 3, 1)[0] for _ in range(3))
        stream = min(process.ask(body, count // 3, UNDER_WAY)[0] for _ in range(3))
        cells = [alone, stream, *(least(call, count // 4) for call in parts(body).values())]
        print(f"| {name} | {len(body) // 1000} | " + " | ".join(f"{1000 * cell:.2f}" for cell in cells) + " |")
    process.close()


if __name__ == "__main__":
    main()
