"""Detection: boxes of the network's input to boxes of the displayed image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.tasks.agreement import Agreement, Outputs
from service.wire.messages.decoder import Geometry
from service.wire.messages.results import Detection, Detections, Options

OUTPUTS = ("boxes", "scores", "labels")
CONFIDENT = 0.3
"""Reference objects below this score are not compared: nobody is shown them by default."""
SAME = 0.75
"""Intersection over union above which two boxes of one class are the same object."""

Boxes = NDArray[np.float64]


def result(outputs: Outputs, geometry: Geometry, options: Options) -> Detections:
    """One image's boxes [K, 4] in 0..1 of the input, scores [K] and labels [K] to at most `max_detections` objects.

    Boxes are in pixels of the displayed image and lie within it; what lies outside altogether is left out. Raises
    ValueError for values that are no finite numbers.
    """
    scores = outputs["scores"].astype(np.float64)
    boxes = _displayed(outputs["boxes"].astype(np.float64), geometry)
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise ValueError("boxes or scores are not finite")
    wanted = (scores >= options.threshold) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    order = np.argsort(-scores, kind="stable")
    best = order[wanted[order]][: max(options.max_detections, 0)]
    labels = outputs["labels"]
    objects = []
    for i in best:
        x0, y0, x1, y1 = boxes[i].tolist()
        objects.append(Detection(int(labels[i]), min(float(scores[i]), 1.0), (x0, y0, x1, y1)))
    return Detections(objects)


def results(outputs: Outputs, geometries: Sequence[Geometry], options: Sequence[Options]) -> list[Detections]:
    """A batch's boxes [B, K, 4], scores [B, K] and labels [B, K] to one result per image."""
    return [
        result({name: outputs[name][i] for name in OUTPUTS}, geometry, option)
        for i, (geometry, option) in enumerate(zip(geometries, options, strict=True))
    ]


def highest(outputs: Outputs) -> int:
    """The highest class index in labels [B, K]."""
    return int(outputs["labels"].max(initial=0))


def _displayed(boxes: Boxes, geometry: Geometry) -> Boxes:
    x0, y0, x1, y1 = geometry.box
    scale, shift = np.array([x1 - x0, y1 - y0] * 2), np.array([x0, y0] * 2)
    limits = np.array([geometry.width, geometry.height] * 2, np.float64)
    clipped: Boxes = np.clip(boxes * scale + shift, 0.0, limits)
    return clipped


def agreement(reference: Outputs, outputs: Outputs) -> Agreement:
    """Over boxes [B, K, 4], scores [B, K] and labels [B, K]: the share of confident objects of either side that the
    other side has too (one to one, same class, overlapping), and the largest difference of their scores.

    The other side may score an object below CONFIDENT, so that one at the threshold is no disagreement; where no
    side is confident, the best scores of each image are compared.
    """
    confident = matched = 0
    largest = 0.0
    for i in range(len(reference["scores"])):
        one = {name: reference[name][i] for name in OUTPUTS}
        other = {name: outputs[name][i] for name in OUTPUTS}
        if not (np.isfinite(other["scores"]).all() and np.isfinite(other["boxes"]).all()):
            return Agreement(0.0, 1.0)
        largest = max(largest, abs(float(one["scores"].max()) - float(other["scores"].max())))
        for left, right in ((one, other), (other, one)):
            differences, missing = _match(left, right)
            confident += len(differences) + missing
            matched += len(differences)
            largest = max([largest, *differences])
    return Agreement(matched / confident if confident else 1.0, largest)


def _match(left: Outputs, right: Outputs) -> tuple[list[float], int]:
    """Score differences of the confident objects of `left` found in `right`, and how many were not found."""
    free = np.ones(len(right["scores"]), bool)
    differences: list[float] = []
    missing = 0
    for i in np.argsort(-left["scores"], kind="stable"):
        if left["scores"][i] < CONFIDENT:
            break
        overlaps = _iou(left["boxes"][i].astype(np.float64), right["boxes"].astype(np.float64))
        overlaps[~free | (right["labels"] != left["labels"][i])] = -1.0
        best = int(overlaps.argmax())
        if overlaps[best] < SAME:
            missing += 1
            continue
        free[best] = False
        differences.append(abs(float(left["scores"][i]) - float(right["scores"][best])))
    return differences, missing


def _iou(box: Boxes, boxes: Boxes) -> Boxes:
    """Intersection over union of one box [4] with boxes [K, 4]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0.0, None), axis=1)
    areas = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None), axis=1)
    union = areas + np.prod(np.clip(box[2:] - box[:2], 0.0, None)) - shared
    overlap: Boxes = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap
