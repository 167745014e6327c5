"""Scores over many scenes: top-1, COCO mean average precision, mean intersection over union."""

from __future__ import annotations

import contextlib
import io
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from squint.measure.answers import Answer, Mask, Top
from squint.measure.scenes import TestScene

SCORES = {"classify": ("top1", "top1"), "detect": ("map", "map50"), "segment": ("miou", "miou")}
"""By task: the score that stands in a manifest, and the one that the drop is counted in."""


class Score(ABC):
    """Takes a scene and the answer for it, one after another; `result` sums up."""

    @abstractmethod
    def add(self, scene: TestScene, answer: Answer) -> None: ...

    @abstractmethod
    def result(self) -> dict[str, float]: ...


class Top1(Score):
    """The share of scenes whose main object was named."""

    def __init__(self) -> None:
        self.right = 0
        self.scenes = 0

    def add(self, scene: TestScene, answer: Answer) -> None:
        if not isinstance(answer, Top):
            raise TypeError("classification is scored on a Top")
        self.right += answer.index == scene.main
        self.scenes += 1

    def result(self) -> dict[str, float]:
        return {"top1": self.right / self.scenes}


class MeanAveragePrecision(Score):
    """COCO's mAP over IoU 0.5 to 0.95, and at 0.5, by pycocotools; boxes in pixels of the scene."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.scenes = 0
        self.truth: list[dict[str, Any]] = []
        self.found: list[dict[str, Any]] = []

    def add(self, scene: TestScene, answer: Answer) -> None:
        if not isinstance(answer, list):
            raise TypeError("detection is scored on a list of boxes")
        self.scenes += 1
        for item in scene.objects:
            self.truth.append(
                {
                    "id": len(self.truth) + 1,
                    "image_id": self.scenes,
                    "category_id": item.index + 1,
                    "bbox": _xywh(item.box),
                    "area": item.area,
                    "iscrowd": 0,
                }
            )
        for box in answer:
            self.found.append(
                {"image_id": self.scenes, "category_id": box.index + 1, "bbox": _xywh(box.corners), "score": box.score}
            )

    def result(self) -> dict[str, float]:
        if not self.found:
            return {"map": 0.0, "map50": 0.0}
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": number + 1} for number in range(self.scenes)],
            "categories": [{"id": index + 1} for index in range(self.classes)],
            "annotations": self.truth,
        }
        with contextlib.redirect_stdout(io.StringIO()):  # the library reports its progress by print
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes(self.found), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return {"map": float(evaluation.stats[0]), "map50": float(evaluation.stats[1])}


class MeanIou(Score):
    """Intersection over union per class at the scene's full resolution, background included, averaged."""

    def __init__(self, classes: int) -> None:
        self.confusion = np.zeros((classes + 1, classes + 1), dtype=np.int64)

    def add(self, scene: TestScene, answer: Answer) -> None:
        if not isinstance(answer, Mask):
            raise TypeError("segmentation is scored on a Mask")
        if answer.classes.shape != scene.classes.shape:
            raise ValueError(f"mask is {answer.classes.shape}, scene is {scene.classes.shape}")
        side = len(self.confusion)
        pairs = scene.classes.astype(np.int64) * side + answer.classes
        self.confusion += np.bincount(pairs.ravel(), minlength=side * side).reshape(side, side)

    def result(self) -> dict[str, float]:
        inner = np.diag(self.confusion)
        union = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - inner
        return {"miou": float((inner[union > 0] / union[union > 0]).mean())}


def _xywh(corners: tuple[float, ...]) -> list[float]:
    x0, y0, x1, y1 = corners
    return [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]


def score_for(task: str, classes: int) -> Score:
    """The score of a task; `classes` counts the object classes, background apart."""
    if task == "classify":
        return Top1()
    if task == "detect":
        return MeanAveragePrecision(classes)
    if task == "segment":
        return MeanIou(classes)
    raise ValueError(f"unknown task {task!r}; accepted: classify, detect, segment")
