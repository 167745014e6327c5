"""Attention over tokens that stand for several patches, in forms that fused kernels take."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PARTS = 2
"""Channels that carry the bias: what a short mantissa loses of it in the first is in the second."""
MULTIPLE = 8
"""Fused kernels want a number of channels that this divides."""


def attend(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v [B, heads, t, d] for q, k, v of that shape and a bias per key [B, t] or none.

    On a GPU the bias goes in as channels, since the flash kernels there take no mask; a CPU's takes one.
    """
    q, k = q.to(v.dtype), k.to(v.dtype)  # positions turn both in float32
    if key_bias is None:
        return F.scaled_dot_product_attention(q, k, v)
    if q.is_cuda:
        return in_channels(q, k, v, key_bias)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=key_bias[:, None, None, :].to(q.dtype))


def in_channels(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor) -> Tensor:
    """The same without a mask: queries get channels of ones, keys the bias, each times sqrt(d) as the scale stays."""
    size = q.shape[-1]
    bias = key_bias * size**0.5
    whole = bias.to(q.dtype)
    parts = torch.stack([whole, (bias - whole).to(q.dtype)], dim=-1)
    zeros = -(size + PARTS) % MULTIPLE
    query = F.pad(F.pad(q, (0, PARTS), value=1.0), (0, zeros))
    key = F.pad(torch.cat([k, parts[:, None].expand(-1, k.shape[1], -1, -1)], dim=-1), (0, zeros))
    value = F.pad(v, (0, PARTS + zeros))
    return F.scaled_dot_product_attention(query, key, value, scale=size**-0.5)[..., :size]
