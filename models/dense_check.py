"""Which way of restoring tokens dense heads should get: merging with its group map, or clustering with reconstruction,
at equal cost and with the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.backbones.vit import PREFIX, Features, Vit, VitConfig
from models.checkpoint import load_start
from models.levels import block_macs, constant, trace
from models.network import Network
from models.reduction.cluster import cluster, rebuild
from models.reduction.tokens import start
from models.toyscape import CLASSES
from models.validate import ValidationSet, validate

SHARPNESS = 8.0  # over the mean squared distance of neighbouring patches: what trained features were best served by


class Clustered(nn.Module):
    """A trunk whose patch tokens are clustered to a `coarse` grid after `after` blocks and rebuilt after the last."""

    def __init__(self, trunk: Vit) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, x: Tensor, after: int, coarse: tuple[int, int], sharpness: float = SHARPNESS) -> Features:
        """Normalised images [B, 3, H, W] to features."""
        tokens, stride4, stride8 = self.trunk.embed(x)
        grid = (x.shape[2] // 16, x.shape[3] // 16)
        for block in self.trunk.blocks[:after]:
            tokens = block(tokens)
        fine = tokens[:, PREFIX:]
        scale = sharpness / float((fine[:, 1:] - fine[:, :-1]).float().square().sum(dim=2).mean())
        centroids = cluster(fine, grid, coarse, scale)
        few = torch.cat([tokens[:, :PREFIX], centroids], dim=1)
        for block in self.trunk.blocks[after:]:
            few = block(few)
        few = self.trunk.norm(few)
        patches = rebuild(fine, centroids, few[:, PREFIX:], scale)
        group = start(tokens, PREFIX).group
        return Features(few[:, 0], patches.transpose(1, 2).unflatten(2, grid), stride4, stride8, group)


def _blocks_gmacs(counts: Sequence[tuple[int, int]], width: int, hidden: int) -> float:
    return sum(block_macs(attending, feeding, width, hidden) for attending, feeding in counts) / 1e9


def dense_check(
    weights: Path,
    data: ValidationSet,
    merges: Sequence[tuple[int, ...]],
    clusters: Sequence[tuple[int, tuple[int, int]]],
) -> list[dict[str, float | str]]:
    """MIoU and recall of detection with merging by each schedule, and with clustering after so many blocks to such a
    grid; each with the GMACs of its blocks."""
    network = Network(VitConfig(), len(CLASSES), ("detect", "segment"))
    load_start(weights, network)
    config, rows = network.config, list[dict[str, float | str]]()
    hidden, tokens = config.width * config.mlp_ratio, config.grid**2 + PREFIX
    for counts in tqdm([constant(0, config.depth), *merges], unit="schedule"):
        left = trace(tokens, counts, PREFIX)
        gmacs = _blocks_gmacs(list(zip((tokens, *left[:-1]), left, strict=True)), config.width, hidden)
        name = "tome:" + "/".join(map(str, counts))
        rows.append({"how": name, "gmacs": gmacs, **validate(network, data, merge_counts=counts)})
    network.trunk = Clustered(network.trunk)
    for after, coarse in tqdm(clusters, unit="grid"):
        few = coarse[0] * coarse[1] + PREFIX
        gmacs = _blocks_gmacs([(tokens, tokens)] * after + [(few, few)] * (config.depth - after), config.width, hidden)
        name = f"cluster:{coarse[0]}x{coarse[1]} after {after}"
        rows.append({"how": name, "gmacs": gmacs, **validate(network, data, after=after, coarse=coarse)})
    return rows
