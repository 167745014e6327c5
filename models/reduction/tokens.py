"""What every reduction method works on: tokens that stand for several patches, and which patches those are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """x [B, p + t, D]: p prefix tokens (class token, registers), then t for the patches. size [B, p + t, 1]: how many
    patches each stands for. group [B, N] int64: which of the t each of the image's N patches is in."""

    x: Tensor
    size: Tensor
    group: Tensor

    @property
    def key_bias(self) -> Tensor:
        """log(size) [B, p + t], which attention adds to its logits per key: a token that stands for s patches counts
        as s equal ones would ("proportional attention", Bolya et al. 2023)."""
        return self.size[:, :, 0].log()


def start(x: Tensor, prefix: int) -> Tokens:
    """Tokens [B, p + N, D] of which each patch stands for itself."""
    batch, count = x.shape[:2]
    size = torch.ones(batch, count, 1, device=x.device)
    return Tokens(x, size, torch.arange(count - prefix, device=x.device).expand(batch, -1))


def restore(patches: Tensor, group: Tensor) -> Tensor:
    """Patch tokens [B, t, D] back to one per patch [B, N, D]: every patch gets what its group has become."""
    return patches.gather(1, group[:, :, None].expand(-1, -1, patches.shape[2]))


def mean_patch(tokens: Tokens, prefix: int) -> Tensor:
    """The mean over patches [B, D], each token counted as often as it stands for one."""
    size = tokens.size[:, prefix:]
    return (tokens.x[:, prefix:] * size).sum(dim=1) / size.sum(dim=1)
