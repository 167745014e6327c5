"""LookupViT: a few compressed tokens do the thinking, many lookup tokens keep the detail.

After Koner et al. 2024, "LookupViT: Compressing visual information to a limited number of tokens" (ECCV 2024, arXiv
2407.12753). No code or weights were published, so what the paper states is told apart here from what is our reading.

Stated by the paper: two sets of tokens; the compressed ones pass through full self-attention and MLP, the lookup ones
only through a cheap MLP; multi-head bidirectional cross-attention joins them, in three stages named information
gathering, representation refinement and global context infusion; no cost quadratic in the number of lookup tokens; one
model runs at several compressed sizes, drawn at random in training.

Our reading: the compressed tokens start as the lookup tokens (positions included) resampled to the compressed grid
with an antialiased triangle filter; infusion uses gathering's attention map transposed, as it is, without a new
softmax; gathering and infusion have value and output projections of their own; lookup MLPs are half the width; the
infused value is normalised first; no class token, the mean of the compressed tokens classifies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.vit import Block, Features, Stem, Vit, VitConfig

LOOKUP_SIDES = (3, 10)  # least and largest side of a compressed grid
LOOKUP_SHARE = 2  # the lookup MLP has width / 2 units: with it a block costs what `levels.lookup_block_macs` says


def resampling(target: int, source: int) -> Tensor:
    """The matrix [target, source] that resamples `source` cells on a line to `target` with an antialiased triangle
    filter. Every row sums to 1."""
    scale = source / target
    centres = (torch.arange(target) + 0.5) * scale - 0.5
    weights = (1 - (torch.arange(source)[None, :] - centres[:, None]).abs() / max(scale, 1.0)).clamp(min=0.0)
    return weights / weights.sum(dim=1, keepdim=True)


def compress(grid: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Tokens on a grid [B, h, w, D] to [B, rows * columns, D], by matrices [rows, h] and [columns, w]."""
    return torch.einsum("rh,cw,bhwd->brcd", rows, columns, grid).flatten(1, 2)


class Bidirectional(nn.Module):
    """Multi-head bidirectional cross-attention: gathering forth, infusion back over the same map."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.gathered = nn.Linear(width, width)
        self.value_back = nn.Linear(width, width)
        self.infused = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def gather(self, compressed: Tensor, lookup: Tensor) -> tuple[Tensor, Tensor]:
        """What compressed tokens [B, M, D] take from lookup tokens [B, N, D], and the map [B, heads, M, N]."""
        keys, values = self.key_value(lookup).chunk(2, dim=2)
        queries = self._split(self.query(compressed))
        likeness = queries @ self._split(keys).transpose(2, 3) * queries.shape[-1] ** -0.5
        shares = likeness.softmax(dim=-1)
        return self.gathered((shares @ self._split(values)).transpose(1, 2).flatten(2)), shares

    def infuse(self, compressed: Tensor, shares: Tensor) -> Tensor:
        """What lookup tokens [B, N, D] get back from compressed ones [B, M, D]."""
        values = self._split(self.value_back(compressed))
        return self.infused((shares.transpose(2, 3) @ values).transpose(1, 2).flatten(2))


class LookupBlock(nn.Module):
    """Gather, refine, infuse."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm_compressed = nn.LayerNorm(width, eps=1e-6)
        self.norm_lookup = nn.LayerNorm(width, eps=1e-6)
        self.cross = Bidirectional(width, heads)
        self.refine = Block(width, heads, mlp_ratio)
        self.norm_back = nn.LayerNorm(width, eps=1e-6)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, width // LOOKUP_SHARE)
        self.fc2 = nn.Linear(width // LOOKUP_SHARE, width)

    def forward(self, compressed: Tensor, lookup: Tensor) -> tuple[Tensor, Tensor]:
        """Compressed [B, M, D] and lookup [B, N, D] tokens to the same."""
        taken, shares = self.cross.gather(self.norm_compressed(compressed), self.norm_lookup(lookup))
        compressed = self.refine(compressed + taken)
        lookup = lookup + self.cross.infuse(self.norm_back(compressed), shares)
        return compressed, lookup + self.fc2(F.gelu(self.fc1(self.norm_mlp(lookup))))


class LookupVit(nn.Module):
    """The trunk; `cls` of its features is the mean compressed token, `patches` are the lookup tokens."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config)
        self.positions = nn.Parameter(torch.zeros(1, config.grid, config.grid, config.width))
        self.blocks = nn.ModuleList(
            LookupBlock(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.norm_lookup = nn.LayerNorm(config.width, eps=1e-6)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def positions_for(self, height: int, width: int) -> Tensor:
        """Positions [1, h, w, D], interpolated when the grid is not the trained one."""
        if (height, width) == (self.config.grid, self.config.grid):
            return self.positions
        square = self.positions.permute(0, 3, 1, 2)
        return F.interpolate(square, (height, width), mode="bicubic", antialias=True).permute(0, 2, 3, 1)

    def forward(self, x: Tensor, grid: tuple[int, int] = (10, 10)) -> Features:
        """Normalised images [B, 3, H, W], H and W multiples of 16, and the compressed grid (rows, columns)."""
        stride4, stride8, patches = self.stem(x)
        height, width = patches.shape[-2:]
        matrices = (resampling(grid[0], height).to(x.device), resampling(grid[1], width).to(x.device))
        return self.features(stride4, stride8, patches, *matrices)

    def features(self, stride4: Tensor, stride8: Tensor, patches: Tensor, rows: Tensor, columns: Tensor) -> Features:
        """`forward` from the stem's maps and the matrices that make the compressed grid (see `compress`)."""
        height, width = patches.shape[-2:]
        embedded = patches.permute(0, 2, 3, 1) + self.positions_for(height, width)
        compressed, lookup = compress(embedded, rows, columns), embedded.flatten(1, 2)
        for block in self.blocks:
            compressed, lookup = block(compressed, lookup)
        fine = self.norm_lookup(lookup).transpose(1, 2).unflatten(2, (height, width))
        group = torch.arange(height * width, device=patches.device).expand(patches.shape[0], -1)
        return Features(self.norm(compressed).mean(dim=1), fine, stride4, stride8, group)


@torch.no_grad()
def start_from_vit(trunk: LookupVit, vit: Vit) -> None:
    """Begin with the weights of a plain ViT of the same shape: gathering and refinement as its attention and MLP,
    infusion and lookup MLPs silent."""
    grid = trunk.config.grid
    trunk.stem.load_state_dict(vit.stem.state_dict())
    trunk.positions.copy_(vit.positions[:, 1:].unflatten(1, (grid, grid)))
    for norm in (trunk.norm, trunk.norm_lookup):
        norm.load_state_dict(vit.norm.state_dict())
    for block, old in zip(trunk.blocks, vit.blocks, strict=True):
        block.refine.load_state_dict(old.state_dict())
        for norm in (block.norm_compressed, block.norm_lookup):
            norm.load_state_dict(old.norm1.state_dict())
        cross, width = block.cross, trunk.config.width
        for layer, part in ((cross.query, slice(width)), (cross.key_value, slice(width, None))):
            layer.weight.copy_(old.attn.qkv.weight[part])
            layer.bias.copy_(old.attn.qkv.bias[part])
        cross.value_back.weight.copy_(old.attn.qkv.weight[2 * width :])
        cross.value_back.bias.copy_(old.attn.qkv.bias[2 * width :])
        cross.gathered.load_state_dict(old.attn.proj.state_dict())
        for silent in (cross.infused, block.fc2):
            silent.weight.zero_()
            silent.bias.zero_()
