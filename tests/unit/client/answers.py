"""Answers as a service gives them, small enough to work out by hand."""

from __future__ import annotations

from typing import Any

COMMON: dict[str, Any] = {
    "request_id": "r1", "model": "m", "version": "1", "level": "fast", "tokens": 5, "gmacs": 0.5, "backend": "fake",
    "timing_ms": {"decode": 1.5, "queue": 0.25, "infer": 2, "post": 0, "total": 4},
}  # fmt: skip
CLASSIFICATION: dict[str, Any] = {
    **COMMON,
    "task": "classify",
    "predictions": [{"label": "star", "index": 1, "score": 0.75}, {"label": "car", "index": 2, "score": 0.25}],
}
DETECTIONS: dict[str, Any] = {
    **COMMON,
    "task": "detect",
    "predictions": [
        {"label": "star", "index": 1, "score": 0.9, "box": [10.0, 20.5, 60.0, 70.0]},
        {"label": "car", "index": 2, "score": 0.4, "box": [70.0, 1.0, 99.0, 40.0]},
    ],
}
# 2 rows, 3 columns; class 2 is the middle column and the lower right pixel, down the columns 2 off, 2 on, 1 off, 1 on.
SEGMENTATION: dict[str, Any] = {
    **COMMON,
    "task": "segment",
    "size": [2, 3],
    "mask": {"format": "rle", "counts": "221O"},
    "segments": [{"label": "car", "index": 2, "area": 3, "counts": "221O"}],
}
MODEL: dict[str, Any] = {
    "name": "toy", "version": "3", "task": "classify", "licence": "Apache-2.0", "backend": "openvino/bf16",
    "default_level": "full", "explicit_levels": "tome:...", "labels": ["star", "car"], "input": {"fit": "crop"},
    "evaluation": {"top1": 0.9},
    "levels": [
        {"name": "full", "gmacs": 0.9, "tokens": 197, "explicit": "full", "accuracy": 0.97, "agreement": None},
        {"name": "fast", "gmacs": 0.4, "tokens": 96, "explicit": "tome:13", "accuracy": None, "agreement": 0.9},
    ],
}  # fmt: skip


def error(code: str = "overloaded", message: str = "too much is waiting", request_id: str = "r9") -> dict[str, Any]:
    return {"error": message, "code": code, "request_id": request_id}
