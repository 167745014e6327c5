"""What the backend adds to a compiled library, and what compiling gains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from models import manifest  # noqa: E402
from models.levels import plan  # noqa: E402
from service.backends import registry  # noqa: E402
from service.backends import torch as ours  # noqa: E402
from service.backends.base import Artefact  # noqa: E402
from tests.e2e.service import ROOT  # noqa: E402

pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("ignore")]  # the compiler's own deprecations

TURNS, RUNS = 15, 4
MOST = 1.5
"""A run through the backend, in terms of a run of the same library by PyTorch's own loader."""
ZOO = ROOT / "models" / "zoo"
COMPILED = ROOT / ".cache" / "compiled"
"""Kept, as compiling takes minutes."""


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of this thread for one call, the median of a few."""
    taken = []
    for _ in range(RUNS):
        before = time.thread_time()
        call()
        taken.append(time.thread_time() - before)
    return median(taken)


def in_turns(ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The median time of each, after a turn that does not count."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    with torch.no_grad():
        for turn in range(TURNS + 1):
            for way, call in ways.items():
                spent = seconds(call)
                if turn:
                    taken[way].append(spent)
    return {way: median(values) for way, values in taken.items()}


@pytest.mark.parametrize("task", ["classify", "detect", "segment"])
def test_a_library_serves_as_fast_as_it_runs_alone(task: str) -> None:
    directory = manifest.find([ZOO])[f"toyscape-{task}"]
    described = manifest.load(directory)
    graph = manifest.read_file(directory, described, described.graph)
    artefact = Artefact(manifest=described, graph=graph, cache_dir=str(COMPILED))
    images = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    ratios = {}
    for precision in ("f32", "bf16"):
        registry.build(f"torch/{precision}", artefact, lambda step: None)
        backend = registry.open_backend(f"torch/{precision}", artefact)
        network = ours.Network(artefact, precision)
        for level in described.levels:
            at = plan(level.explicit, described.trunk)
            library = network.store.find(network.key(at, 1))
            assert library is not None
            bare = torch._C._aoti.AOTIModelContainerRunnerCpu(str(library / "model.so"), 1)
            times = in_turns(
                {
                    "bare": partial(bare.run, [torch.from_numpy(images)]),
                    "served": partial(backend.run, images, level.name),
                    "uncompiled": partial(network.at(at).__call__, torch.from_numpy(images)),
                }
            )
            what = f"{task} {precision} {level.name}"
            ratios[what] = times["served"] / times["bare"]
            gain = times["uncompiled"] / times["served"]
            shown = ", ".join(f"{way} {taken * 1000:.1f} ms" for way, taken in times.items())
            print(f"\n{what}: {shown}; served / bare {ratios[what]:.3f}, uncompiled / served {gain:.2f}")
        backend.close()
    assert max(ratios.values()) <= MOST, ratios
