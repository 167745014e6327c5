"""Rotary positions in two dimensions, computed from each token's coordinates (Su et al. 2021; Heo et al. 2024).

Queries and keys are turned by angles, one for each pair of channels, that are linear in a token's coordinates. A token
that stands for several patches is where they are on average; prefix tokens are at the origin, which turns by nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.reduction.tokens import Tokens


class Rotation(NamedTuple):
    """Cosines and sines [B or 1, heads or 1, t, d / 2] of the angles that one block turns its tokens by."""

    cos: Tensor
    sin: Tensor


class Rotary(nn.Module):
    """Coordinates of the patches [N, 2], and frequencies [blocks or 1, heads or 1, 2, d / 2]: angles per unit."""

    def __init__(self, coordinates: Tensor, frequencies: Tensor) -> None:
        super().__init__()
        self.register_buffer("coordinates", coordinates.detach().float().contiguous())
        self.register_buffer("frequencies", frequencies.detach().float().contiguous())

    def unmerged(self, prefix: int) -> Tensor:
        """Where the tokens of any image are while none is merged, [1, p + N, 2]."""
        return torch.cat([self.coordinates.new_zeros(prefix, 2), self.coordinates])[None]

    def places(self, tokens: Tokens, prefix: int) -> Tensor:
        """Where tokens are, [B, p + t, 2]: each at the mean of its patches' places."""
        batch, patches = tokens.group.shape
        size = tokens.size[:, prefix:].expand(-1, -1, 2)
        index = tokens.group[:, :, None].expand(-1, -1, 2)
        total = torch.zeros_like(size).scatter_add(1, index, self.coordinates.expand(batch, patches, 2))
        return torch.cat([self.coordinates.new_zeros(batch, prefix, 2), total / size], dim=1)

    def forward(self, coordinates: Tensor, block: int) -> Rotation:
        """Coordinates [B, t, 2] (or [1, t, 2] for all images) to the rotation of block number `block`."""
        frequencies = self.frequencies[block if len(self.frequencies) > 1 else 0]
        # Two products instead of a matrix product: the sum of two terms must not lose digits to a matrix unit.
        angles = coordinates[:, None, :, :1] * frequencies[:, :1] + coordinates[:, None, :, 1:] * frequencies[:, 1:]
        return Rotation(angles.cos(), angles.sin())


def turn(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn x [B, heads, t, d], whose pairs are channel i with channel d / 2 + i."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = rotation
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def grid(
    size: tuple[int, int],
    *,
    centred: bool = False,
    offset: float = 0.0,
    reference: tuple[int, int] | None = None,
    columns_first: bool = False,
) -> Tensor:
    """Coordinates [rows * columns, 2] of patches, row by row: their numbers plus `offset`, scaled as if the grid had
    the `reference` size; or `centred`, from -1 to 1 over the grid. Row and column, or with `columns_first` the other
    way round."""
    axes = []
    for number, length in enumerate(size):
        axis = torch.arange(length, dtype=torch.float32) + offset
        if centred:
            axis = 2 * (axis + 0.5) / length - 1
        elif reference is not None:
            axis = axis / length * reference[number]
        axes.append(axis)
    pair = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)
    return pair.flip(-1) if columns_first else pair


def axial(bands: Tensor) -> Tensor:
    """Frequencies [1, 1, 2, 2 * n] of which the first half of the pairs turns with the first coordinate, by `bands`
    [n] per unit, and the second half with the second."""
    nothing = torch.zeros_like(bands)
    return torch.stack([torch.cat([bands, nothing]), torch.cat([nothing, bands])])[None, None]


def centred_bands(periods: Tensor) -> Tensor:
    """Bands of waves with these periods [n]."""
    return 2 * math.pi / periods
