"""Operators of our own in the networks that are exported: what torch computes, but tracing cannot follow.

How many tokens a level leaves is known when the graph runs, not when it is traced. So each step whose result has a
length of its own, or may be left out, is one operator here: computed by the functions that training uses, traced as
one node with a length nobody knows, and written to the graph as what `models.graph.nodes` says.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.backbones import lookup
from models.reduction import tokens as reduction
from models.reduction import tome
from models.reduction.tokens import Tokens


@torch.library.custom_op("squint::merge", mutates_args=())
def _merge(
    x: Tensor, size: Tensor, group: Tensor, keys: Tensor, count: Tensor, prefix: int, heads: int, start: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    split = keys[:, :, start : start + width].unflatten(2, (heads, -1)).transpose(1, 2)
    merged = tome.merge(Tokens(x, size, group), split, int(count), prefix)
    return merged.x.clone(), merged.size.clone(), merged.group.clone()


@_merge.register_fake
def _(
    x: Tensor, size: Tensor, group: Tensor, keys: Tensor, count: Tensor, prefix: int, heads: int, start: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    left = torch.library.get_ctx().new_dynamic_size()
    return x.new_empty(x.shape[0], left, x.shape[2]), size.new_empty(x.shape[0], left, 1), group.new_empty(group.shape)


def merge(
    tokens: Tokens, keys: Tensor, count: Tensor, *, prefix: int, heads: int, start: int = 0, width: int | None = None
) -> Tokens:
    """`models.reduction.tome.merge` with `count` [1] int64, a part of the graph's input.

    Keys come as the linear layer wrote them, [B, p + t, C]: those of all heads next to each other in `width` channels
    (all by default) from `start` on. Reading them there costs a run that merges nothing nothing.
    """
    parts = (tokens.x, tokens.size, tokens.group, keys, count, prefix, heads, start)
    merged = Tokens(*torch.ops.squint.merge(*parts, keys.shape[2] - start if width is None else width))
    torch._check(merged.x.shape[1] > 1)  # so that tracing knows: no length to be broadcast
    return merged


@torch.library.custom_op("squint::restore", mutates_args=())
def restore(patches: Tensor, group: Tensor) -> Tensor:
    """`models.reduction.tokens.restore`: patch tokens [B, t, D] and a group map [B, N] to [B, N, D]."""
    return reduction.restore(patches, group)


@restore.register_fake
def _(patches: Tensor, group: Tensor) -> Tensor:
    return patches.new_empty(*group.shape, patches.shape[2])


@torch.library.custom_op("squint::widen", mutates_args=())
def widen(x: Tensor, normed: Tensor, inner: Tensor, bias: Tensor, outer: Tensor, units: Tensor, least: int) -> Tensor:
    """Add what further hidden units of an MLP contribute, if `units` [1] of them are wanted and not just `least`.

    x and normed [B, t, D]; the further units' weights [h, D], biases [h] and output weights [D, h].
    """
    if int(units) <= least:
        return x.clone()
    return x + F.linear(F.gelu(F.linear(normed, inner, bias)), outer)


@widen.register_fake
def _(x: Tensor, normed: Tensor, inner: Tensor, bias: Tensor, outer: Tensor, units: Tensor, least: int) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("squint::resampling", mutates_args=())
def resampling(side: Tensor, source: int) -> Tensor:
    """`models.backbones.lookup.resampling` to `side` [1] int64 cells, a part of the graph's input."""
    return lookup.resampling(int(side), source)


@resampling.register_fake
def _(side: Tensor, source: int) -> Tensor:
    return torch.empty(torch.library.get_ctx().new_dynamic_size(), source)


def matrices(sides: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The two matrices that resample a grid to `sides` [2] int64, rows and columns."""
    rows, columns = (resampling(sides[axis : axis + 1], source) for axis, source in enumerate(grid))
    torch._check(rows.shape[0] > 1)
    torch._check(columns.shape[0] > 1)
    return rows, columns
