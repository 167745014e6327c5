"""A plain vision transformer with a convolutional stem, and levels: fewer tokens, narrower MLPs.

Pre-norm blocks, a class token and learned positions (Dosovitskiy et al. 2021, "An image is worth 16x16 words"); the
patch embedding is four stride-2 3x3 convolutions (Xiao et al. 2021, "Early convolutions help transformers see
better"), whose finer maps also feed the dense heads. Attention and MLP of a block are separate calls, so that token
reduction can act between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.reduction.attention import attend
from models.reduction.tokens import restore, start
from models.reduction.tome import merge

MEAN = 118  # of every channel, 0..255: a whole number, so that uint8 images can be padded with it
STD = 64.0
PREFIX = 1  # the class token


@dataclass(frozen=True)
class VitConfig:
    """Shape of the trunk. The last stem channel count is the width; the stride is 16."""

    kind: Literal["vit", "lookup"] = "vit"
    side: int = 224
    width: int = 192
    depth: int = 8
    heads: int = 3
    stem: tuple[int, int, int] = (16, 32, 64)
    mlp_ratio: int = 4

    @property
    def grid(self) -> int:
        return self.side // 16

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> VitConfig:
        """The shape that was written down as JSON."""
        return cls(**{**values, "stem": tuple(values["stem"])})


class Features(NamedTuple):
    """What heads read: CLS [B, D] and patches [B, D, g, g] after the final norm, merged ones restored; stem maps at
    strides 4 and 8; and the group map [B, g * g] of the patches."""

    cls: Tensor
    patches: Tensor
    stride4: Tensor
    stride8: Tensor
    group: Tensor


def normalise(images: Tensor) -> Tensor:
    """uint8 or float images [B, H, W, 3] in 0..255 to the network's range, [B, 3, H, W]."""
    return (images.permute(0, 3, 1, 2).float() - MEAN) / STD


def conv_bn(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Stem(nn.Module):
    """Four 3x3 stride-2 convolutions, 3-16-32-64-width; the last one is linear. 56 MMAC at 224 px, width 192."""

    precise = ("conv1",)

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        a, b, c = config.stem
        self.conv1 = conv_bn(3, a, 2)
        self.conv2 = conv_bn(a, b, 2)
        self.conv3 = conv_bn(b, c, 2)
        self.conv4 = nn.Conv2d(c, config.width, 3, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised images [B, 3, H, W] to maps at strides 4, 8 and 16."""
        stride4 = self.conv2(self.conv1(x))
        stride8 = self.conv3(stride4)
        return stride4, stride8, self.conv4(stride8)


class Attention(nn.Module):
    """Multi-head self-attention that also hands out its keys, the measure of likeness for token merging."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, key_bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens [B, t, D] and an optional additive bias per key [B, t] to (tokens, keys [B, heads, t, d])."""
        batch, count, width = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = attend(q, k, v, key_bias)
        return self.proj(out.transpose(1, 2).reshape(batch, count, width)), k


class Block(nn.Module):
    """One pre-norm transformer block, in two halves: `attend`, then `feed`."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, mlp_ratio * width)
        self.fc2 = nn.Linear(mlp_ratio * width, width)

    def attend(self, x: Tensor, key_bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The attention half: tokens [B, t, D] to (tokens, this attention's keys [B, heads, t, d])."""
        out, keys = self.attn(self.norm1(x), key_bias)
        return x + out, keys

    def feed(self, x: Tensor, hidden: int | None = None) -> Tensor:
        """The MLP half: tokens [B, t, D] to tokens, with the first `hidden` units only (all by default).

        The narrower MLP is a part of the wider one (Devvrit et al. 2024, "MatFormer").
        """
        if hidden is None or hidden >= self.fc1.out_features:
            return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        normed = self.norm2(x).to(self.fc1.weight.dtype)
        inner = F.gelu(F.linear(normed, self.fc1.weight[:hidden], self.fc1.bias[:hidden]))
        return x + F.linear(inner, self.fc2.weight[:, :hidden], self.fc2.bias)

    @torch.no_grad()
    def sort_units(self) -> None:
        """Put the hidden units that weigh most first; the answers stay what they are."""
        order = (self.fc1.weight.norm(dim=1) * self.fc2.weight.norm(dim=0)).argsort(descending=True)
        self.fc1.weight.copy_(self.fc1.weight[order])
        self.fc1.bias.copy_(self.fc1.bias[order])
        self.fc2.weight.copy_(self.fc2.weight[:, order])

    def forward(self, x: Tensor) -> Tensor:
        return self.feed(self.attend(x)[0])


class Vit(nn.Module):
    """The trunk shared by all heads."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config)
        self.cls = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + config.grid**2, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self._start()

    def _start(self) -> None:
        nn.init.trunc_normal_(self.cls, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def positions_for(self, height: int, width: int) -> Tensor:
        """Positions [1, 1 + height * width, D], interpolated when the grid is not the trained one."""
        grid = self.config.grid
        if (height, width) == (grid, grid):
            return self.positions
        square = self.positions[:, 1:].transpose(1, 2).reshape(1, -1, grid, grid)
        square = F.interpolate(square, (height, width), mode="bicubic", antialias=True)
        return torch.cat([self.positions[:, :1], square.flatten(2).transpose(1, 2)], dim=1)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised images [B, 3, H, W] to (tokens [B, 1 + N, D], stem map at stride 4, at stride 8)."""
        stride4, stride8, patches = self.stem(x)
        height, width = patches.shape[-2:]
        tokens = torch.cat([self.cls.expand(x.shape[0], -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        return tokens + self.positions_for(height, width), stride4, stride8

    def forward(
        self, x: Tensor, merge_counts: Sequence[int] | None = None, hidden: Sequence[int] | None = None
    ) -> Features:
        """Normalised images [B, 3, H, W], H and W multiples of 16, to features.

        `merge_counts` and `hidden` are the tokens to merge away and the MLP units to use in each block.
        """
        embedded, stride4, stride8 = self.embed(x)
        tokens = start(embedded, PREFIX)
        whole = True
        for number, block in enumerate(self.blocks):
            # Before the first merge all sizes are 1 and the bias nothing.
            attended, keys = block.attend(tokens.x, None if whole else tokens.key_bias)
            tokens = tokens._replace(x=attended)
            if merge_counts is not None and merge_counts[number] > 0:
                tokens = merge(tokens, keys, merge_counts[number], PREFIX)
                whole = False
            tokens = tokens._replace(x=block.feed(tokens.x, None if hidden is None else hidden[number]))
        normed = self.norm(tokens.x)
        patches = normed[:, PREFIX:] if whole else restore(normed[:, PREFIX:], tokens.group)
        grid = (x.shape[2] // 16, x.shape[3] // 16)
        return Features(normed[:, 0], patches.transpose(1, 2).unflatten(2, grid), stride4, stride8, tokens.group)
