"""Token merging by bipartite soft matching (Bolya et al. 2023, "Token merging: your ViT but faster").

Pure functions on tensors, written from the paper's description. Tokens [B, t, D] carry sizes [B, t, 1]: how many
patches each stands for. Attention afterwards should add log(size) to its logits per key ("proportional attention").
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Matching(NamedTuple):
    """Even positions are sources or stay, odd positions receive. All indices count within their own half.

    kept [B, ta - r] (rising) and merged [B, r] index the even tokens, into [B, r] the odd ones.
    """

    kept: Tensor
    merged: Tensor
    into: Tensor


def clamp_count(tokens: int, count: int, protected: int = 1) -> int:
    """How many of `count` tokens can be merged away at once: at most half of the unprotected ones."""
    return max(0, min(count, (tokens - protected) // 2))


def match(keys: Tensor, count: int) -> Matching:
    """The `count` most alike (even, odd) pairs by cosine of keys [B, t, d]; position 0, the class token, never merges
    into another. `count` must already be clamped."""
    metric = F.normalize(keys.float(), dim=-1)
    likeness = metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)
    likeness[:, 0] = -torch.inf
    best, partner = likeness.max(dim=-1)
    order = best.argsort(dim=-1, descending=True, stable=True)
    merged = order[:, :count]
    kept = order[:, count:].sort(dim=-1).values
    return Matching(kept, merged, partner.gather(1, merged))


def merge_sum(values: Tensor, matching: Matching) -> Tensor:
    """Values [B, t, C] with merged tokens added to their targets: [B, t - r, C], kept even tokens first."""
    even, odd = values[:, ::2], values[:, 1::2]

    def along(index: Tensor) -> Tensor:
        return index[:, :, None].expand(-1, -1, values.shape[2])

    received = odd.scatter_add(1, along(matching.into), even.gather(1, along(matching.merged)))
    return torch.cat([even.gather(1, along(matching.kept)), received], dim=1)


def merge(x: Tensor, size: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merge `count` tokens away (fewer when fewer can go): tokens [B, t, D] and sizes [B, t, 1] as size-weighted means.

    `keys` [B, heads, t, d] are those of the attention just done; their mean over heads is the measure of likeness.
    """
    count = clamp_count(x.shape[1], count)
    if count == 0:
        return x, size
    matching = match(keys.mean(dim=1), count)
    sizes = merge_sum(size, matching)
    return merge_sum(x * size, matching) / sizes, sizes


def drop_random(x: Tensor, size: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The yardstick for `merge`: throw `count` random tokens away, never the class token."""
    count = clamp_count(x.shape[1], count)
    if count == 0:
        return x, size
    lots = torch.rand(x.shape[:2], generator=generator)
    lots[:, 0] = 2.0
    kept = lots.argsort(dim=1, descending=True)[:, : x.shape[1] - count].sort(dim=1).values[:, :, None]
    return x.gather(1, kept.expand(-1, -1, x.shape[2])), size.gather(1, kept)
