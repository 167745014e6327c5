"""Training views cut from a store of scenes: random crops, turns and colours, with labels that follow.

Everything happens on whole batches. Half of the views are whole scenes stretched to a square, as detection and
segmentation will see them, the others square crops around the middle, as classification will.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.backbones.vit import normalise
from models.toyscape.store import Store

MAIN_RATIO = 1.5
MIN_MAIN = 0.02  # of the view; a smaller main object teaches classification nothing
MIN_OBJECT = 0.0015  # of the view; less is not worth a box


@dataclass(frozen=True)
class Views:
    """images: normalised [B, 3, S, S]; classes: int64 [B, S, S], 0 background; boxes xyxy 0..1 [B, K, 4];
    labels int64 [B, K], -1 none; main int64 [B], -1 where no object is clearly the main one."""

    images: Tensor
    classes: Tensor
    boxes: Tensor
    labels: Tensor
    main: Tensor


def _placement(rng: np.random.Generator, aspects: NDArray[np.float64]) -> Tensor:
    """Affine maps [B, 2, 3] from view to stored square; `aspects` are the scenes' width / height."""
    count = len(aspects)
    whole = rng.random(count) < 0.5
    wide = np.where(whole, rng.uniform(0.8, 1.0, count), np.minimum(1.0, 1.0 / aspects) * rng.uniform(0.72, 1.0, count))
    high = np.where(whole, rng.uniform(0.8, 1.0, count), np.minimum(1.0, aspects) * rng.uniform(0.72, 1.0, count))
    # A square crop stays near the middle, where the main object is; a whole view may lie anywhere inside.
    reach = np.where(whole, 1.0, 0.5)
    x = rng.uniform(-1, 1, count) * (1 - wide) * reach
    y = rng.uniform(-1, 1, count) * (1 - high) * reach
    turn = np.where(rng.random(count) < 0.3, rng.uniform(-0.2, 0.2, count), 0.0)
    flip = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    c, s = np.cos(turn), np.sin(turn)
    theta = np.stack([np.stack([wide * c * flip, -wide * s, x], -1), np.stack([high * s * flip, high * c, y], -1)], 1)
    return torch.from_numpy(theta.astype(np.float32))


def _recolour(rng: np.random.Generator, images: Tensor) -> Tensor:
    """Random gain and offset per channel, and at times the channels in another order; images [B, 3, S, S], 0..255."""
    count = len(images)
    gain = rng.uniform(0.75, 1.3, (count, 1, 1, 1)) * rng.uniform(0.88, 1.14, (count, 3, 1, 1))
    offset = rng.uniform(-22, 22, (count, 1, 1, 1))
    orders = np.tile(np.arange(3), (count, 1))
    shuffled = rng.random(count) < 0.4
    orders[shuffled] = rng.permuted(orders[shuffled], axis=1)
    images = images[torch.arange(count)[:, None], torch.from_numpy(orders)]
    centre = torch.tensor(118.0)
    jittered = (images - centre) * torch.from_numpy(gain).float() + centre + torch.from_numpy(offset).float()
    return jittered.clamp(0, 255)


def label_views(instances: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(classes, boxes, labels, main) of instance maps uint8 [B, S, S] whose numbers `table` [B, 1 + K] turns into
    class index + 1."""
    side = instances.shape[-1]
    classes = table.gather(1, instances.flatten(1).long()).view_as(instances)
    numbers = torch.arange(1, table.shape[1], dtype=instances.dtype)
    masks = instances[:, None] == numbers[None, :, None, None]
    columns, rows = masks.any(dim=2), masks.any(dim=3)
    last = torch.arange(side, 0, -1, dtype=torch.float32)
    first = torch.arange(side, dtype=torch.float32)

    def extent(line: Tensor) -> tuple[Tensor, Tensor]:
        low = torch.where(line, first, float(side)).amin(dim=2)
        high = side - torch.where(line, last, float(side)).amin(dim=2) + 1
        return low / side, high / side

    (x0, x1), (y0, y1) = extent(columns), extent(rows)
    areas = masks.flatten(2).sum(dim=2).float() / side**2
    labels = torch.where(areas >= MIN_OBJECT, table[:, 1:] - 1, -1)
    boxes = torch.stack([x0, y0, x1, y1], dim=2) * (labels >= 0)[:, :, None]
    largest = areas.topk(2, dim=1)
    clear = (largest.values[:, 0] >= MAIN_RATIO * largest.values[:, 1]) & (largest.values[:, 0] >= MIN_MAIN)
    main = torch.where(clear, labels.gather(1, largest.indices[:, :1])[:, 0], -1)
    return classes, boxes, labels, main


def sample(store: Store, aspects: NDArray[np.float64], rng: np.random.Generator, count: int, side: int) -> Views:
    """`count` random views of `side` pixels; the same generator state gives the same views."""
    index = np.sort(rng.integers(0, len(store), count))
    rgb = torch.from_numpy(store.rgb[index]).permute(0, 3, 1, 2).float()
    instances = torch.from_numpy(store.instances[index])[:, None].float()
    # Objects are numbered from 1 without gaps, so columns past the fullest scene's last object are empty.
    used = 1 + max(2, int((store.classes[index] > 0).sum(axis=1).max()))
    table = torch.from_numpy(store.classes[index][:, :used].astype(np.int64))
    theta = _placement(rng, aspects[index])
    grid = F.affine_grid(theta, [count, 1, side, side], align_corners=False)
    if side * 2 <= rgb.shape[-1]:  # plain bilinear sampling would alias
        rgb = F.avg_pool2d(rgb, 2)
    rgb = F.grid_sample(rgb, grid, mode="bilinear", padding_mode="border", align_corners=False)
    cut = F.grid_sample(instances, grid, mode="nearest", padding_mode="border", align_corners=False)
    images = normalise(_recolour(rng, rgb).permute(0, 2, 3, 1))
    labelled = label_views(cut[:, 0].round().to(torch.uint8), table)
    return Views(images.contiguous(memory_format=torch.channels_last), *labelled)
