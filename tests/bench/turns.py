"""Several ways of asking one service, measured in turns."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Container, Coroutine, Mapping
from pathlib import Path
from typing import Any

import uvloop
from tqdm import tqdm

from tests.e2e.service import Service

Sender = Callable[[int, float], Coroutine[Any, Any, int]]
"""Asks at a port until a time of the monotonic clock; how often it was answered."""
_TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def compare(
    service: Service, ways: Mapping[str, Sender], over_grpc: Container[str], seconds: float, rounds: int
) -> dict[str, Any]:
    """All ways in turns, after one turn of each that does not count; the first is what the others are compared with."""
    (gateway,) = service.pids("gateway")
    first = next(iter(ways))
    rates: dict[str, list[float]] = {way: [] for way in ways}
    gateway_ms: dict[str, list[float]] = {way: [] for way in ways}
    client_ms: dict[str, list[float]] = {way: [] for way in ways}
    with tqdm(total=(rounds + 1) * len(ways), unit="turn") as bar:
        for number in range(rounds + 1):
            for way, send in ways.items():
                port = service.grpc_port if way in over_grpc else service.port
                begin, before, own = time.monotonic(), cpu(gateway), time.process_time()
                count: int = uvloop.run(send(port, begin + seconds))
                if number:
                    rates[way].append(count / (time.monotonic() - begin))
                    gateway_ms[way].append((cpu(gateway) - before) / count * 1000)
                    client_ms[way].append((time.process_time() - own) / count * 1000)
                bar.update()
    return {
        way: {
            "per_second": round(statistics.median(rates[way])),
            "of_rest": round(statistics.median(a / b for a, b in zip(rates[way], rates[first], strict=True)), 3),
            "gateway_cpu_ms": round(statistics.median(gateway_ms[way]), 3),
            "client_cpu_ms": round(statistics.median(client_ms[way]), 3),
        }
        for way in ways
    }
