"""Classification: logits to the top k classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.tasks.agreement import Agreement, Outputs
from service.wire.messages.decoder import Geometry
from service.wire.messages.results import Classification, Options, Prediction

OUTPUTS = ("logits",)
NEAR = 0.01
"""Two classes whose reference probabilities differ by less are equally right: rounding decides between them."""


def result(outputs: Outputs, geometry: Geometry, options: Options) -> Classification:
    """One image's logits [C] to its `top_k` best classes; equal scores keep the order of the labels.

    Raises ValueError for logits that are no finite numbers.
    """
    scores = softmax(outputs["logits"])
    best = _highest(scores, max(options.top_k, 0))
    pairs = zip(best.tolist(), scores[best].tolist(), strict=True)
    return Classification([Prediction(index, score) for index, score in pairs])


def _highest(scores: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Indices of the `count` highest scores, best first; equal ones in their order."""
    if not 0 < count < len(scores) // 4:
        return np.argsort(-scores, kind="stable")[:count]
    # Only what can be among them is sorted: the least of them, found without sorting, and all that is no lower.
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    among = np.flatnonzero(scores >= least)
    return among[np.argsort(-scores[among], kind="stable")[:count]]


def results(outputs: Outputs, geometries: Sequence[Geometry], options: Sequence[Options]) -> list[Classification]:
    """A batch's logits [B, C] to one result per image."""
    return [
        result({"logits": outputs["logits"][i]}, geometry, option)
        for i, (geometry, option) in enumerate(zip(geometries, options, strict=True))
    ]


def highest(outputs: Outputs) -> int:
    """The highest class index there is in logits [B, C]."""
    return int(outputs["logits"].shape[-1]) - 1


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities over the last axis, in float64. Raises ValueError for logits that are no finite numbers."""
    wide = logits.astype(np.float64)
    if not np.isfinite(wide).all():
        raise ValueError("logits are not finite")
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    total: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return total


def agreement(reference: Outputs, outputs: Outputs) -> Agreement:
    """The share of equal top-1 classes (a near tie of the reference may go either way), and the largest difference of
    a probability, over logits [B, C]."""
    ours, theirs = softmax(outputs["logits"]), softmax(reference["logits"])
    if ours.shape != theirs.shape:
        raise ValueError("logits differ in shape")
    lead = theirs.max(axis=-1) - np.take_along_axis(theirs, ours.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    same = lead < NEAR
    return Agreement(float(same.mean()), float(np.abs(ours - theirs).max()))
