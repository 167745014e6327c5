"""Try one variant on one model, in a process of its own: does it run here, do its answers agree, how fast is it.

`python -m service.backends.measure` reads a Trial from stdin and writes a Measured to stdout. A process of its own,
because a runtime library may crash on a CPU it does not know, and because it would stay in memory when another one is
chosen.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import load as load_tensors

from models import manifest
from models.manifest import Manifest, ManifestError
from service.backends import registry
from service.backends.base import Artefact, Backend, BackendError, Images, Outputs
from service.backends.trial import Measured, Trial
from service.backends.wide import LEAST_RUNS, TURNS, shares, under_load
from service.errors import ConfigError
from service.tasks.agreement import Agreement
from service.tasks.registry import TASKS
from service.wire.messages.worker import Timing

SIZES = (1, 2, 4, 8)
"""Batch sizes that are timed; on a device those that it runs."""
SECONDS_PER_LEVEL = 4.0
"""When this much is used up, larger batches are not timed."""
FASTER = 0.97
"""A level is offered if it takes less than this share of the next higher one's time; less could be noise."""

_PR_SET_PDEATHSIG = 1


def measure(trial: Trial) -> Measured:
    """Carry out a trial in this process."""
    directory = Path(trial.directory)
    described = manifest.load(directory)
    graph = manifest.read_file(directory, described, described.graph)
    artefact = Artefact(
        manifest=described,
        graph=graph,
        engines=trial.engines,
        cache_dir=trial.cache_dir,
        device=trial.device,
        wide=trial.wide,
    )
    if trial.rehearse:
        return rehearsed(trial.variant, artefact)
    reference: Outputs = dict(load_tensors(manifest.read_file(directory, described, described.reference)))
    before = time.monotonic()
    backend = registry.open_backend(trial.variant, artefact)
    result = Measured(trial.variant, load_seconds=time.monotonic() - before)
    images = reference.pop("images")
    problem, agreed = agreement(backend, described, images, reference, wide=trial.wide)
    result = msgspec.structs.replace(result, share=agreed.share, score=agreed.score, refused=problem)
    if problem or not trial.speed:
        return result
    names = [level.name for level in described.levels]
    measured = batch_seconds(backend, images, names, trial.engines)
    abreast = 1 if backend.pipelined else trial.engines
    best = max(abreast * n / taken for n, taken in measured[names[0]].items())
    left_out = slower(measured)
    wide = dict.fromkeys(names, 1.0)
    if trial.engines > 1 and trial.variant in registry.WIDE:
        spreading = registry.open_backend(trial.variant, replace(artefact, wide=True))
        if not agreement(spreading, described, images, reference, wide=True)[0]:
            wide |= shares(backend, spreading, images[:1], names, trial.engines)
    timings = [Timing(name, *fit(measured[name]), wide[name]) for name in names if name not in left_out]
    return msgspec.structs.replace(result, timings=tuple(timings), images_per_second=best, left_out=left_out)


def rehearsed(variant: str, artefact: Artefact) -> Measured:
    """Load, and run one image at every level."""
    before = time.monotonic()
    backend = registry.open_backend(variant, artefact, allow_fake=True)
    transform = artefact.manifest.transform
    for level in artefact.manifest.levels:
        backend.run(np.zeros((1, transform.height, transform.width, 3), np.uint8), level.name, wide=artefact.wide)
    return Measured(variant, load_seconds=time.monotonic() - before)


def agreement(
    backend: Backend, described: Manifest, images: Images, reference: Outputs, *, wide: bool = False
) -> tuple[str, Agreement]:
    """How far the backend's answers at the highest level agree with the reference, and what is wrong if it is too
    little."""
    task = TASKS[described.task]
    nothing = Agreement(0.0, 1.0)
    # In batches of different sizes, since a backend may run them differently.
    parts = [backend.run(images[:1], described.levels[0].name, wide=wide)]
    if len(images) > 1:
        parts.append(backend.run(images[1:], described.levels[0].name, wide=wide))
    missing = [name for name in task.outputs if name not in parts[0] or name not in reference]
    if missing:
        return f"has no output {missing[0]}", nothing
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in task.outputs}
    wrong = [name for name in task.outputs if outputs[name].shape != reference[name].shape]
    if wrong:
        return f"output {wrong[0]} has the wrong shape", nothing
    if task.highest(outputs) >= len(described.labels):
        return "answers classes that have no label", nothing
    try:
        agreed = task.agreement(reference, outputs)
    except ValueError as error:
        return str(error), nothing
    if agreed.within(described.tolerance):
        return "", agreed
    wanted = described.tolerance
    return (
        f"disagrees with the reference: {agreed.share:.4f} of decisions the same (least {wanted.agreement}), "
        f"scores within {agreed.score:.4f} (most {wanted.score})"
    ), agreed


def batch_seconds(backend: Backend, images: Images, levels: list[str], engines: int) -> dict[str, dict[int, float]]:
    """Level -> batch size -> median seconds of one run while all engines run batches of that size; of a device that
    they share, the seconds that each run takes of it.

    The levels take turns, so that what else the machine does meets them all alike. One image is timed on a device even
    if it is filled up to more: what a small batch costs there is part of its profile.
    """
    found: dict[str, dict[int, float]] = {level: {} for level in levels}
    used, budget = 0.0, SECONDS_PER_LEVEL * len(levels)
    for n in sorted({1, *backend.sizes}) if backend.pipelined else SIZES:
        known = [times for times in found.values() if times]
        if known and used + LEAST_RUNS * 2 * sum(max(times.values()) for times in known) > budget:
            break
        batch = np.ascontiguousarray(np.resize(images, (n, *images.shape[1:])))
        before = time.monotonic()
        taken: dict[str, list[float]] = {level: [] for level in levels}
        for turn in range(TURNS + 1):
            for level in levels:
                if turn == 0:
                    backend.run(batch, level)
                else:
                    taken[level] += under_load(backend, batch, level, engines)
        for level in levels:
            found[level][n] = float(np.median(taken[level])) / (engines if backend.pipelined else 1)
        used += time.monotonic() - before
    return found


def slower(measured: dict[str, dict[int, float]]) -> dict[str, str]:
    """Of levels with their times by batch size, highest level first: those not worth offering, and why.

    A level has to be faster than the next higher one that is offered, on average over the batch sizes.
    """
    offered, *rest = measured
    left_out: dict[str, str] = {}
    for level in rest:
        ratios = [measured[level][n] / measured[offered][n] for n in measured[offered]]
        ratio = float(np.exp(np.mean(np.log(ratios))))
        if ratio < FASTER:
            offered = level
        else:
            left_out[level] = f"takes {ratio:.2f} of the time of {offered} here"
    return left_out


def fit(seconds: dict[int, float]) -> tuple[float, float]:
    """The a >= 0 and b > 0 of t(n) = a + b * n nearest to the measured times, by relative error."""
    n = np.array(list(seconds), np.float64)
    t = np.array(list(seconds.values()), np.float64)
    if len(n) > 1:
        weighted = np.stack([1 / t, n / t], axis=1)
        (a, b), *_ = np.linalg.lstsq(weighted, np.ones_like(t), rcond=None)
        if a >= 0 and b > 0:
            return float(a), float(b)
    return 0.0, max(float(np.mean(t / n)), 1e-9)


def main() -> None:
    """The process: one trial, one answer."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    trial = msgspec.json.decode(sys.stdin.buffer.read(), type=Trial)
    try:
        answer = measure(trial)
    except (BackendError, ConfigError, ManifestError) as error:
        answer = Measured(trial.variant, refused=str(error))
    sys.stdout.buffer.write(b"\n" + msgspec.json.encode(answer) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
