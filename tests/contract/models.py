"""Model directories made on the spot: tiny random networks, and ones for the fake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import save

from models import manifest
from models.levels import Trunk, plan
from models.manifest import Level, Manifest, Task
from models.reference import kept_answers
from service.backends.choose import choose
from service.backends.trial import Measured, Trial
from service.wire.messages.worker import Timing
from tests.contract.graphs import Shape, graph

LABELS = ["background", "disc", "star", "cup", "key"]
TOLERANCE = manifest.Tolerance(agreement=0.95, score=0.05)
FULL = Level(name="full", gmacs=0.001, tokens=17)
TRUNK = Trunk(blocks=4, width=64, hidden=256, patches=64, prefix=1, fixed=1_000_000, merge=True, shares=("1/2",))
"""Of a transformer that sees 32 x 32 pixels in 8 x 8 patches."""


def images(count: int, side: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random smooth images [count, side, side, 3], no two alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(side // 4, axis=1).repeat(side // 4, axis=2)


def tiny(root: Path, task: Task, name: str = "", tolerance: manifest.Tolerance = TOLERANCE) -> Path:
    """A tiny network with reference outputs from ONNX's own slow evaluator; returns its directory."""
    shape = Shape()
    data = graph(task, shape)
    pictures = images(4, shape.side)
    evaluator = ReferenceEvaluator(data)
    outputs = dict(zip(evaluator.output_names, evaluator.run(None, {"images": pictures}), strict=True))
    return write(root, name or f"tiny-{task}", task, shape.side, data, {"images": pictures, **outputs}, tolerance)


def measured(directory: Path, variant: str, engines: int, wide: float, cache_dir: Path) -> None:
    """Have a model's profile in the cache as if it had been measured: a wide run takes `wide` of a run's time."""

    def attempt(trial: Trial) -> Measured:
        timings = (Timing("full", 0.001, 0.02, wide),)
        return Measured(trial.variant, share=1.0, images_per_second=100.0, timings=timings)

    described = manifest.load(directory)
    backend = variant.partition("/")[0]
    choose(directory, described, backend, engines=engines, cache_dir=str(cache_dir), attempt=attempt)


LEVELLED = Shape(levels=True, depth=3)
LEVELS = ("full", "tome:1", "tome:3", "tome:8", "tome:16", "tome:2,-1", "width:1/2", "tome:3+width:1/2", "tome:0/7")


def levelled(root: Path, task: Task, name: str = "", levels: Mapping[str, str] | None = None) -> Path:
    """A tiny network with levels, `full` and those named, with reference outputs at LEVELS; returns its directory."""
    data = graph(task, LEVELLED)
    pictures = images(4, LEVELLED.side)
    reference = {"images": pictures, **answers_at(data, pictures, "full")}
    del reference["tokens"]
    for explicit in LEVELS:
        reference |= kept_answers(explicit, answers_at(data, pictures, explicit))
    spelled = {"full": "full", **(levels or {})}
    named = [level(word, explicit, LEVELLED.trunk) for word, explicit in spelled.items()]
    side = LEVELLED.side
    return write(root, name or f"levels-{task}", task, side, data, reference, TOLERANCE, named, LEVELLED.trunk)


def answers_at(data: bytes, pictures: NDArray[np.uint8], explicit: str) -> dict[str, NDArray[Any]]:
    """What ONNX's own slow evaluator answers at a level."""
    evaluator = ReferenceEvaluator(data)
    inputs = {name: np.array(values, np.int64) for name, values in plan(explicit, LEVELLED.trunk).inputs.items()}
    return dict(zip(evaluator.output_names, evaluator.run(None, {"images": pictures, **inputs}), strict=True))


def fake(
    root: Path, task: Task = "classify", name: str = "", side: int = 32, levels: Mapping[str, str] | None = None
) -> Path:
    """A model without a network; returns its directory. `levels` are names, beside `full`, of explicit levels of
    TRUNK; without them it has no trunk."""
    spelled = {"full": "full", **(levels or {})}
    named = [level(word, explicit) for word, explicit in spelled.items()] if levels else [FULL]
    reference = {"images": images(1, side)}
    trunk = TRUNK if levels else None
    return write(root, name or f"fake-{task}", task, side, b"no graph", reference, TOLERANCE, named, trunk)


def level(name: str, explicit: str, trunk: Trunk | None = TRUNK) -> Level:
    """A named level of a model with this trunk."""
    planned = plan(explicit, trunk)
    return Level(name=name, gmacs=round(planned.gmacs, 6), tokens=planned.tokens, explicit=planned.level)


def write(
    root: Path,
    name: str,
    task: Task,
    side: int,
    data: bytes,
    reference: Mapping[str, NDArray[Any]],
    tolerance: manifest.Tolerance,
    levels: Sequence[Level] = (FULL,),
    trunk: Trunk | None = None,
) -> Path:
    """Write NAME/1 under `root`."""
    directory = root / name / "1"
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(data)
    (directory / "reference.safetensors").write_bytes(save(dict(reference)))
    described = Manifest(
        format=manifest.FORMAT,
        name=name,
        version="1",
        task=task,
        labels=LABELS,
        licence="Apache-2.0",
        transform=manifest.Transform(fit="stretch", height=side, width=side),
        graph="model.onnx",
        reference="reference.safetensors",
        files={file: manifest.describe_file(directory / file) for file in ("model.onnx", "reference.safetensors")},
        levels=list(levels),
        tolerance=tolerance,
        trunk=trunk,
    )
    manifest.write(directory, described)
    return directory


def reference_of(directory: Path) -> dict[str, NDArray[Any]]:
    """The reference tensors of a model directory, `images` among them."""
    from safetensors.numpy import load

    described = manifest.load(directory)
    return dict(load(manifest.read_file(directory, described, described.reference)))
