"""A quick look at a network during training: fixed validation scenes, cheap versions of the three metrics."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models.backbones.vit import normalise
from models.network import Network
from models.toyscape import render, split
from models.views import label_views

SIDE = 224


@dataclass(frozen=True)
class ValidationSet:
    """Scenes at their full size, cut as the service does: `crops` and `wholes` uint8 [N, S, S, 3], `main` [N];
    `instances` [N, S, S] and `table` [N, 9] label the wholes (see views.label_views)."""

    crops: NDArray[np.uint8]
    wholes: NDArray[np.uint8]
    main: NDArray[np.int64]
    instances: NDArray[np.uint8]
    table: NDArray[np.int64]


def centre_square(picture: Image.Image, side: int) -> Image.Image:
    """The classification transform: short side to `side`, middle square, as one antialiased bicubic resample."""
    short = min(picture.size)
    left, top = (picture.width - short) / 2, (picture.height - short) / 2
    box = (left, top, left + short, top + short)
    return picture.resize((side, side), Image.Resampling.BICUBIC, box=box)


def _prepare(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int, NDArray[np.uint8], list[int]]:
    scene = render(seed)
    picture = Image.fromarray(scene.rgb)
    whole = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    instances = np.asarray(Image.fromarray(scene.instances).resize((SIDE, SIDE), Image.Resampling.NEAREST))
    table = [0, *(item.index + 1 for item in scene.objects)]
    return np.asarray(centre_square(picture, SIDE)), whole, scene.main, instances, table + [0] * (9 - len(table))


def validation_set(file: Path, count: int) -> ValidationSet:
    """The first `count` validation scenes, kept in `file` (.npz) once rendered."""
    if not file.exists():
        with get_context("fork").Pool(2) as pool:
            rows = pool.map(_prepare, [split("val", n) for n in range(count)], chunksize=8)
        crops, wholes, main, instances, table = (np.array(column) for column in zip(*rows, strict=True))
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, crops=crops, wholes=wholes, main=main, instances=instances, table=table)
    stored = np.load(file)
    return ValidationSet(*(stored[name] for name in ("crops", "wholes", "main", "instances", "table")))


def mean_iou(confusion: NDArray[np.int64]) -> float:
    """Mean over the classes that occur of intersection over union; confusion [true, predicted] counts pixels."""
    inner = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - inner
    return float((inner[union > 0] / union[union > 0]).mean())


def _found(boxes: Tensor, scores: Tensor, labels: Tensor, truth: Tensor, classes: Tensor) -> tuple[int, int]:
    """How many true objects have a confident detection of their class at IoU 0.5, and how many there are."""
    inner_low = torch.maximum(boxes[:, :, None, :2], truth[:, None, :, :2])
    inner_high = torch.minimum(boxes[:, :, None, 2:], truth[:, None, :, 2:])
    inner = (inner_high - inner_low).clamp(min=0).prod(dim=-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)[:, :, None]
    union = area + (truth[..., 2:] - truth[..., :2]).prod(dim=-1)[:, None] - inner
    good = (inner > 0.5 * union) & (labels[:, :, None] == classes[:, None]) & (scores > 0.3)[:, :, None]
    real = classes >= 0
    return int((good.any(dim=1) & real).sum()), int(real.sum())


def validate(network: Network, data: ValidationSet, batch: int = 50, **level: Any) -> dict[str, float]:
    """top1, miou (at the input's resolution) and recall50 of the heads present; `level` is what the trunk takes."""
    network.eval()
    with torch.no_grad():
        result = _validate(network, data, batch, level)
    network.train()
    return result


def _validate(network: Network, data: ValidationSet, batch: int, level: dict[str, Any]) -> dict[str, float]:
    right, hits, objects = 0, 0, 0
    confusion = np.zeros((network.classes + 1,) * 2, dtype=np.int64)
    for start in range(0, len(data.main), batch):
        part = slice(start, start + batch)
        with torch.autocast("cpu", torch.bfloat16):
            if "classify" in network.heads:
                logits = network(normalise(torch.from_numpy(data.crops[part])), "classify", **level)[0]
                right += int((logits.argmax(dim=1).numpy() == data.main[part]).sum())
            features = network.trunk(normalise(torch.from_numpy(data.wholes[part])), **level)
            truth = label_views(torch.from_numpy(data.instances[part]), torch.from_numpy(data.table[part]))
            if "segment" in network.heads:
                mask = network.heads["segment"](features)[0]
                pairs = truth[0].numpy() * (network.classes + 1) + mask.numpy()
                confusion += np.bincount(pairs.ravel(), minlength=confusion.size).reshape(confusion.shape)
            if "detect" in network.heads:
                boxes, scores, labels = network.heads["detect"](features)
                found, present = _found(boxes, scores, labels, truth[1], truth[2])
                hits, objects = hits + found, objects + present
    result: dict[str, float] = {}
    if "classify" in network.heads:
        result["top1"] = right / len(data.main)
    if "segment" in network.heads:
        result["miou"] = mean_iou(confusion)
    if "detect" in network.heads:
        result["recall50"] = hits / objects
    return result
