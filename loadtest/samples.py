"""What one run saw: a row for each request, and what the sender itself cost."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

ERRORS = ("", "connect", "reset", "timeout", "protocol", "no connection", "unfinished")
"""What became of a request that got no answer, by number; 0 is an answered one.

connect: no connection could be opened · reset: it broke before the answer was whole · timeout: no answer in time ·
protocol: the answer was no HTTP · no connection: all allowed connections were busy until the timeout ·
unfinished: the run was interrupted before the answer; not counted.
"""
UNFINISHED = ERRORS.index("unfinished")


@dataclass
class Usage:
    """What the sender cost and what the machine did during the run, warm-up included."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    """CPU time of the sending process, system time included."""
    cores: int = 1
    machine_busy: float = 0.0
    """Share of all cores' time that was not idle, everybody's work included."""
    steal: float = 0.0
    """Share of all cores' time that the hypervisor gave to others."""
    nice: int = 0
    """The sender's place in the scheduler's order: below 0 it goes first, and requests leave when they are due."""


@dataclass
class Samples:
    """One row per request, in the order of sending; times in seconds from the run's start."""

    intended: NDArray[np.float64]
    sent: NDArray[np.float64]
    """When it was written to a connection; NaN: never."""
    done: NDArray[np.float64]
    """When the whole answer, or the error, was there; NaN: never."""
    status: NDArray[np.int16]
    """HTTP status; 0: no answer."""
    error: NDArray[np.int8]
    """Number in ERRORS."""
    level: NDArray[np.int16]
    """Number in `levels`; -1: the answer named none."""
    retry_after: NDArray[np.float32]
    """Seconds of the header Retry-After; NaN: there was none."""
    kind: NDArray[np.int16]
    """Number in `kinds`."""
    seconds: float
    """Length of the run with its warm-up, or until it was interrupted."""
    warmup: float
    closed: int
    """Connections of a closed loop; 0: open loop."""
    kinds: list[str]
    levels: list[str] = field(default_factory=list)
    first_bodies: dict[int, str] = field(default_factory=dict)
    """The beginning of the first answer of each status, to see what a status meant."""
    opened: int = 0
    """Connections opened in all."""
    most_open: int = 0
    interrupted: bool = False
    began: float = 0.0
    """The run's start on the clock of time.monotonic(), to lay other observations beside it."""
    usage: Usage = field(default_factory=Usage)

    def __len__(self) -> int:
        return len(self.intended)

    @property
    def latency(self) -> NDArray[np.float64]:
        """Seconds from the intended send time to the whole answer."""
        return self.done - self.intended


def pack(samples: Samples) -> bytes:
    """As bytes, for the process that asked."""
    record: dict[str, Any] = {}
    for one in fields(samples):
        value = getattr(samples, one.name)
        record[one.name] = [value.dtype.str, value.tobytes()] if isinstance(value, np.ndarray) else value
    return msgspec.msgpack.encode(record)


def unpack(data: bytes) -> Samples:
    """The reverse of `pack`."""
    record: dict[str, Any] = msgspec.msgpack.decode(data, strict=False)
    for name in ("intended", "sent", "done", "status", "error", "level", "retry_after", "kind"):
        record[name] = np.frombuffer(record[name][1], record[name][0])
    record["usage"] = Usage(**record["usage"])
    return Samples(**record)
