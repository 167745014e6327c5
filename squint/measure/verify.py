"""Does every level of a model answer as PyTorch does, on every backend?

The reference is PyTorch itself, with weights that are at hand, or the answers that the model's directory keeps for its
first reference images. Merging picks the most alike pairs; where two pairs are alike to the last bit, rounding decides,
so an fp32 backend may differ on an image if its group map differs, too: that is a tie, and must be rare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.manifest import Manifest
from models.reference import KEPT, THIN, answers_kept
from service.backends.base import Backend
from service.tasks.registry import TASKS

NEAR = 1e-4
"""How far an fp32 backend's numbers may be from the reference's."""
PIXELS = 1e-3
"""The share of a mask's pixels that fp32 may decide otherwise: those where two classes are as likely."""
CONFIDENT = 0.05
"""Boxes scored less are not compared; which of them are among the best is chance."""
TIES = 0.005
"""The share of images that may be ties."""
DECISIONS = 0.999
"""The least share of decisions that an fp32 backend has to share; others, what the manifest's tolerance says."""
SIZES = (1, 3, 2)
"""Images per run, in turns: who shares a batch must not matter."""

Images = NDArray[np.uint8]
Outputs = Mapping[str, NDArray[Any]]
Reference = Callable[[Images, str], Outputs]


@dataclass(frozen=True)
class Row:
    """One level on one backend: the share of images that are near the reference, how many are ties, the share of
    decisions that are the same, the largest difference of what is near, and what is wrong (empty if nothing)."""

    backend: str
    level: str
    images: int
    near: float
    ties: int
    decisions: float
    worst: float
    wrong: str

    @property
    def exact(self) -> bool:
        """Whether numbers have to be near: those of fp32."""
        return self.backend.endswith("/f32")


def kept_reference(stored: Mapping[str, NDArray[Any]]) -> tuple[Images, Reference]:
    """Images and answers that a model's directory keeps; the answers of a level that it does not keep are empty."""

    def reference(images: Images, level: str) -> Outputs:
        return answers_kept(stored, level)

    return stored["images"][:KEPT], reference


def remembered(reference: Reference) -> Reference:
    """Ask once for each level; the images must stay the same."""
    known: dict[str, Outputs] = {}

    def ask(images: Images, level: str) -> Outputs:
        if level not in known:
            known[level] = reference(images, level)
        return known[level]

    return ask


def check(
    described: Manifest, backend: Backend, images: Images, levels: Sequence[str], reference: Reference
) -> Iterator[Row]:
    """Every level that there are reference answers for."""
    for level in levels:
        wanted = reference(images, level)
        if wanted:
            yield compare(described, backend.name, level, wanted, run(backend, images, level))


def run(backend: Backend, images: Images, level: str) -> Outputs:
    """Outputs for images [B, H, W, 3], in runs of different sizes."""
    parts: list[Outputs] = []
    start = 0
    while start < len(images):
        size = SIZES[len(parts) % len(SIZES)]
        parts.append(backend.run(images[start : start + size], level))
        start += size
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def compare(described: Manifest, backend: str, level: str, wanted: Outputs, given: Outputs) -> Row:
    """A backend's outputs at a level against the reference's, image by image."""
    task = TASKS[described.task]
    if described.task == "segment" and given["mask"].shape != wanted["mask"].shape:
        given = {**given, "mask": given["mask"][:, ::THIN, ::THIN]}
    missing = [name for name in wanted if name not in given or given[name].shape != wanted[name].shape]
    count = len(next(iter(wanted.values())))
    if missing:
        return Row(backend, level, count, 0.0, 0, 0.0, 0.0, f"output {missing[0]} is missing or has the wrong shape")
    try:
        agreed = task.agreement(dict(wanted), {name: given[name] for name in wanted})
    except ValueError as error:
        return Row(backend, level, count, 0.0, 0, 0.0, 0.0, str(error))
    away = DIFFERENCES[described.task](wanted, given)
    near = away <= (PIXELS if described.task == "segment" else NEAR)
    same_groups = np.ones(count, bool)
    if "tokens" in wanted:
        same_groups = (wanted["tokens"] == given["tokens"]).all(axis=1)
    worst = float(away[near].max(initial=0.0))
    row = Row(backend, level, count, float(near.mean()), int((~near & ~same_groups).sum()), agreed.share, worst, "")
    least = DECISIONS if row.exact else described.tolerance.agreement
    return replace(row, wrong=_wrong(row, int((~near & same_groups).sum()), least))


def _wrong(row: Row, unexplained: int, least: float) -> str:
    if row.exact and unexplained:
        return f"{unexplained} images differ, with the same tokens merged"
    if row.exact and row.ties > max(TIES * row.images, 1):
        return f"{row.ties} images differ, with other tokens merged"
    if row.decisions < min(least, 1 - 1 / row.images):
        return f"{row.decisions:.4f} of decisions the same, least {least}"
    return ""


def _classify(wanted: Outputs, given: Outputs) -> NDArray[np.float64]:
    """The largest difference of an image's numbers."""
    away = [np.abs(wanted[name].astype(np.float64) - given[name]).max(axis=1) for name in wanted if name != "tokens"]
    largest: NDArray[np.float64] = np.where(np.isfinite(away), away, np.inf).max(axis=0)
    return largest


def _segment(wanted: Outputs, given: Outputs) -> NDArray[np.float64]:
    """The share of an image's pixels that differ."""
    different: NDArray[np.float64] = (wanted["mask"] != given["mask"]).mean(axis=(1, 2))
    return different


def _detect(wanted: Outputs, given: Outputs) -> NDArray[np.float64]:
    """The largest difference of an image's boxes and scores; rows of nearly the same score may change places."""
    return np.array([_rows(wanted, given, number) for number in range(len(wanted["scores"]))])


def _rows(wanted: Outputs, given: Outputs, image: int) -> float:
    largest = 0.0
    for one, other in ((wanted, given), (given, wanted)):
        for row in np.flatnonzero(one["scores"][image] >= CONFIDENT):
            boxes = np.abs(other["boxes"][image] - one["boxes"][image][row]).max(axis=1)
            away = np.maximum(boxes, np.abs(other["scores"][image] - one["scores"][image][row]))
            away = np.where(other["labels"][image] == one["labels"][image][row], away, np.inf)
            largest = max(largest, float(away.min()))
    return largest


DIFFERENCES: dict[str, Callable[[Outputs, Outputs], NDArray[np.float64]]] = {
    "classify": _classify,
    "detect": _detect,
    "segment": _segment,
}
