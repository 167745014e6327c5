"""Budgets of time and memory: run on an otherwise idle machine (`make bench`)."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from tests.e2e import memory
from tests.e2e.http import once
from tests.e2e.service import ROOT, Service
from tests.unit.core.simulation import EVERY_FAULT, Simulation

pytestmark = pytest.mark.bench

FIRST_ANSWER_SECONDS = 3.0
PSS_BYTES = 450_000_000
SIMULATION_SECONDS = 5.0
TASKS = ("classify", "detect", "segment")


def first_answer(service: Service) -> float:
    """Seconds from starting the command to its first answer."""
    photo = (ROOT / "samples" / "classify.jpg").read_bytes()

    async def ask() -> None:
        while True:
            try:
                if (await once(service.port, "POST", "/classify", photo)).status == 200:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.01)

    start = time.monotonic()
    service.start()
    asyncio.run(asyncio.wait_for(ask(), 120))
    return time.monotonic() - start


@pytest.mark.parametrize("backend", ["auto", "onnxruntime", "openvino/f32", "openvino/bf16"])
def test_start_and_memory_with_the_shipped_models(tmp_path: Path, backend: str) -> None:
    """Measured once before, as on every start but the first."""
    service = Service(tmp_path, "--backend", backend, fake=False)
    cold = first_answer(service)
    service.stop()
    warm = []
    held: dict[str, int] = {}
    for _ in range(5):
        warm.append(first_answer(service))
        service.wait_ready()
        for task in TASKS:
            photo = (ROOT / "samples" / f"{task}.jpg").read_bytes()
            for _ in range(10):
                assert service.request("POST", f"/{task}", photo).status == 200
        held = {title: memory.pss(pid) for title, pid in memory.pids(service).items()}
        service.stop()
    chosen = {line["model"]: line["backend"] for line in service.log_lines("model_loaded")}
    print(
        f"\n{backend}: first start {cold:.1f} s, later starts median {statistics.median(warm):.2f} s "
        f"(of {', '.join(f'{seconds:.2f}' for seconds in warm)}); PSS {sum(held.values()) / 1e6:.0f} MB: "
        + ", ".join(f"{title.removeprefix('squint: ')} {size / 1e6:.0f}" for title, size in held.items())
        + f"; backends {chosen}"
    )
    assert statistics.median(warm) <= FIRST_ANSWER_SECONDS
    assert sum(held.values()) <= PSS_BYTES


def test_simulation_of_a_hundred_thousand_requests() -> None:
    start = time.monotonic()
    out = Simulation(EVERY_FAULT).run()
    seconds = time.monotonic() - start
    print(f"\nsimulation: 100,000 requests in {seconds:.2f} s: {dict(out.answers)}")
    assert len(out.answered) == 100_000
    assert seconds < SIMULATION_SECONDS
