"""Do lost tokens show? Top-1 with tokens merged away against as many thrown away at random."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from models.backbones.vit import PREFIX, Vit, normalise
from models.export import load_network, serving_image
from models.network import Network
from models.reduction.tokens import Tokens, start
from models.reduction.tome import drop_random, merge
from models.toyscape import render, split

DRAWS = 3  # of random removal, averaged
Step = Callable[[Tokens, Tensor], Tokens]  # tokens and the keys of the attention just done, to fewer tokens


def class_token(trunk: Vit, images: Tensor, step: Step) -> Tensor:
    """The CLS [B, D] of normalised images, with `step` acting between attention and MLP of every block."""
    tokens = start(trunk.embed(images)[0], PREFIX)
    for block in trunk.blocks:
        x, keys = block.attend(tokens.x, tokens.key_bias)
        tokens = step(tokens._replace(x=x), keys)
        tokens = tokens._replace(x=block.feed(tokens.x))
    return trunk.norm(tokens.x)[:, 0]


def _scene(seed: int) -> tuple[NDArray[np.uint8], int]:
    scene = render(seed)
    return serving_image(scene.jpeg(), "crop", 224), scene.main


class Tally:
    """Right answers of one network with tokens merged away, or thrown away at random."""

    def __init__(self, network: Network, counts: tuple[int, ...]) -> None:
        self.network = network.eval()
        self.counts = counts
        self.generator = torch.Generator().manual_seed(1)
        self.merged = dict.fromkeys((0, *counts), 0)
        self.dropped = dict.fromkeys(counts, 0)

    def _right(self, images: Tensor, main: Tensor, step: Step) -> int:
        logits = self.network.heads["classify"].linear(class_token(self.network.trunk, images, step))
        return int((logits.argmax(dim=1) == main).sum())

    def add(self, images: Tensor, main: Tensor) -> None:
        """Count a batch: normalised images [B, 3, H, W] and their classes [B]."""
        for r in self.merged:
            self.merged[r] += self._right(images, main, partial(_merge_step, r))
        for r in self.dropped:
            for _ in range(DRAWS):
                self.dropped[r] += self._right(images, main, partial(_drop_step, r, self.generator))


def _merge_step(r: int, tokens: Tokens, keys: Tensor) -> Tokens:
    return merge(tokens, keys, r, PREFIX)


def _drop_step(r: int, generator: torch.Generator, tokens: Tokens, keys: Tensor) -> Tokens:
    return drop_random(tokens, r, generator, PREFIX)


def reduction_check(weights: Path, counts: tuple[int, ...], scenes: int, first: int = 0) -> list[dict[str, float]]:
    """For each count of tokens per block: top-1 unreduced, merged, and with random removal (mean of some draws)."""
    tally = Tally(load_network(weights, "classify")[0], counts)
    seeds = [split("test", first + number) for number in range(scenes)]
    with get_context("spawn").Pool(2) as pool:
        rendered = list(tqdm(pool.imap(_scene, seeds, chunksize=8), total=scenes, unit="scene"))
    with torch.no_grad():
        for start in tqdm(range(0, scenes, 50), unit="batch"):
            part = rendered[start : start + 50]
            images = normalise(torch.from_numpy(np.stack([image for image, _ in part])))
            tally.add(images, torch.tensor([truth for _, truth in part]))
    full = tally.merged[0] / scenes
    return [
        {"r": r, "full": full, "merged": tally.merged[r] / scenes, "random": tally.dropped[r] / DRAWS / scenes}
        for r in counts
    ]
