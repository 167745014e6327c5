"""Clustering with reconstruction for dense heads (Liang et al. 2022, "Expediting large-scale vision transformer for
dense prediction without fine-tuning", NeurIPS 2022).

Pure functions on tensors: between two blocks the patch tokens of a grid are clustered to a coarser grid, the blocks
after that run on the clusters, and every patch is rebuilt from the clusters it was most like when they were made.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDS = 5
REACH = 2  # how many centroids away, in either direction, a token may belong
FAR = 1e16


def _distances(tokens: Tensor, centroids: Tensor) -> Tensor:
    """Squared distances [B, N, M] in fp32."""
    with torch.autocast(tokens.device.type, enabled=False):
        return torch.cdist(tokens.float(), centroids.float()).square()


def _out_of_reach(grid: tuple[int, int], coarse: tuple[int, int]) -> Tensor:
    """Which centroids [N, M] of a coarse grid are too far from each cell of the fine one."""
    axes = []
    for fine, few in zip(grid, coarse, strict=True):
        home = (torch.arange(fine) * few) // fine
        axes.append((home[:, None] - torch.arange(few)[None, :]).abs() > REACH)
    rows, columns = axes
    return (rows[:, None, :, None] | columns[None, :, None, :]).flatten(2).flatten(0, 1)


def cluster(tokens: Tensor, grid: tuple[int, int], coarse: tuple[int, int], sharpness: float) -> Tensor:
    """Centroids [B, h * w, D] of patch tokens [B, H * W, D], row by row.

    Each round every centroid becomes the mean of the tokens near it on the grid, weighted by a softmax over centroids
    of -`sharpness` times the squared distance.
    """
    square = tokens.transpose(1, 2).unflatten(2, grid)
    centroids = F.adaptive_avg_pool2d(square, coarse).flatten(2).transpose(1, 2)
    barred = _out_of_reach(grid, coarse).to(tokens.device) * FAR
    for _ in range(ROUNDS):
        shares = (-sharpness * (_distances(tokens, centroids) + barred)).softmax(dim=2)
        weights = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-6)
        centroids = weights.transpose(1, 2).to(tokens.dtype) @ tokens
    return centroids


def rebuild(tokens: Tensor, centroids: Tensor, outputs: Tensor, sharpness: float, nearest: int = 20) -> Tensor:
    """Patches [B, N, D'] as mixtures of what the clusters [B, M, D'] have become.

    `tokens` and `centroids` are as they were when the clusters were made; of a patch's clusters the `nearest` count.
    Weights sum to 1 (the released code of the paper normalises them to unit length instead, which a head that reads
    features would notice).
    """
    closest = (-sharpness * _distances(tokens, centroids)).topk(min(nearest, centroids.shape[1]), dim=2)
    shares = closest.values.softmax(dim=2).to(outputs.dtype)
    weights = torch.zeros(*tokens.shape[:2], centroids.shape[1], dtype=outputs.dtype, device=outputs.device)
    return weights.scatter(2, closest.indices, shares) @ outputs
