"""Token merging by bipartite soft matching (Bolya et al. 2023, "Token merging: your ViT but faster").

Pure functions on tensors, written from the paper's description. Prefix tokens never take part. Of the patch tokens,
those at odd positions are sources or stay, those at even positions receive; for a model with one class token and no
other prefix that is the paper's partition, whose positions count the class token.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.levels import clamp
from models.reduction.tokens import Tokens


class Matching(NamedTuple):
    """kept [B, a - r] (rising) and merged [B, r] index the a sources, into [B, r] the receivers."""

    kept: Tensor
    merged: Tensor
    into: Tensor


@torch.no_grad()
def match(keys: Tensor, count: int) -> Matching:
    """The `count` most alike (source, receiver) pairs by cosine of keys [B, t, d], in fp32; ties go to the earlier
    source. `count` must already be clamped."""
    with torch.autocast(keys.device.type, enabled=False):
        metric = F.normalize(keys.float(), dim=-1)
        best, partner = (metric[:, 1::2] @ metric[:, ::2].transpose(1, 2)).max(dim=-1)
    order = best.argsort(dim=-1, descending=True, stable=True)
    merged = order[:, :count]
    return Matching(order[:, count:].sort(dim=-1).values, merged, partner.gather(1, merged))


def _rows(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))


def merge_sum(values: Tensor, matching: Matching) -> Tensor:
    """Values of patch tokens [B, t, C] with merged ones added to their receivers: [B, t - r, C], kept sources first."""
    sources, receivers = values[:, 1::2], values[:, ::2]
    into = matching.into[:, :, None].expand(-1, -1, values.shape[2])
    received = receivers.scatter_add(1, into, _rows(sources, matching.merged))
    return torch.cat([_rows(sources, matching.kept), received], dim=1)


def regroup(group: Tensor, matching: Matching) -> Tensor:
    """The group map [B, N] after a merge."""
    batch, kept = matching.kept.shape
    sources = kept + matching.merged.shape[1]
    place = torch.empty(batch, sources, dtype=group.dtype, device=group.device)
    place.scatter_(1, matching.kept, torch.arange(kept, device=group.device).expand(batch, -1))
    place.scatter_(1, matching.merged, kept + matching.into)
    was_source, half = group % 2 == 1, group // 2
    return torch.where(was_source, place.gather(1, half.clamp(max=sources - 1)), kept + half)


def merge(tokens: Tokens, keys: Tensor, count: int, prefix: int = 1) -> Tokens:
    """Merge `count` tokens away (fewer when fewer can go), as size-weighted means.

    `keys` [B, heads, p + t, d] are those of the attention just done; their mean over heads is the measure of likeness.
    """
    count = clamp(tokens.x.shape[1], count, prefix)
    if count == 0:
        return tokens
    matching = match(keys[:, :, prefix:].float().mean(dim=1), count)
    size = merge_sum(tokens.size[:, prefix:], matching)
    x = merge_sum(tokens.x[:, prefix:] * tokens.size[:, prefix:], matching) / size
    return Tokens(
        torch.cat([tokens.x[:, :prefix], x.to(tokens.x.dtype)], dim=1),
        torch.cat([tokens.size[:, :prefix], size], dim=1),
        regroup(tokens.group, matching),
    )


def drop_random(tokens: Tokens, count: int, generator: torch.Generator, prefix: int = 1) -> Tokens:
    """The yardstick for `merge`: throw `count` random tokens away. The group map is lost with them."""
    count = clamp(tokens.x.shape[1], count, prefix)
    lots = torch.rand(tokens.x.shape[:2], generator=generator)
    lots[:, :prefix] = 2.0
    kept = lots.argsort(dim=1, descending=True)[:, : tokens.x.shape[1] - count].sort(dim=1).values
    return Tokens(_rows(tokens.x, kept), _rows(tokens.size, kept), tokens.group)
