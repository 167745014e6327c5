"""Plain vision transformers of the timm library in the form of `models.backbones.vit`: blocks of two halves.

A timm block computes attention and MLP in one call; token reduction acts between them. So the parts of each block are
taken over, weights and all, and put together anew: ViT, DeiT, AugReg and register models, and those of the EVA family
with rotary positions (EVA-02, DINOv3, RoPE-ViT). While nothing is merged, they compute what timm computes.

Where positions are rotary, a token that stands for several patches is at the mean of their places. Likeness is measured
on keys before they are turned: on what a patch shows, not on where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from timm.layers import AttentionPoolLatent, AttentionRope
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Attention as VitAttention
from timm.models.vision_transformer import Block as VitBlock
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import Tensor, nn

from models.backbones.rotary import Rotary, Rotation, axial, centred_bands, grid, turn
from models.levels import Trunk, constant, vit_macs
from models.reduction.attention import attend
from models.reduction.tokens import Tokens, mean_patch, start
from models.reduction.tome import merge

TRUNKS = (VisionTransformer, VisionTransformerDistilled, Eva)
BLOCKS = (VitBlock, ResPostBlock, EvaBlock, EvaBlockPostNorm)
ATTENTIONS = (VitAttention, EvaAttention, AttentionRope)
POOLS = ("token", "avg", "map")
FREQUENCIES = ("freqs", "periods", "bands")
"""What the kinds of rotary positions known here call them."""


Step = Callable[[int, Tokens, Tensor], Tokens]
"""Number of a block, tokens and keys [B, heads, p + t, d] of the attention just done, to fewer tokens."""


class Answer(NamedTuple):
    """logits [B, C], embedding [B, D], and the group map [B, N] of the patches."""

    logits: Tensor
    embedding: Tensor
    group: Tensor


class Scale(nn.Module):
    """Multiply channels by a weight each ("layer scale")."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Attention(nn.Module):
    """Multi-head self-attention made of a timm one's parts, which also hands out its keys."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.heads: int = source.num_heads
        self.qkv = _joined(source)
        self.q_norm, self.k_norm, self.norm, self.proj = source.q_norm, source.k_norm, source.norm, source.proj
        if isinstance(source, EvaAttention | AttentionRope) and not source.rotate_half:
            self._pair_by_halves()

    @torch.no_grad()
    def _pair_by_halves(self) -> None:
        """Reorder the channels of queries and keys so that pairs are (i, d / 2 + i) instead of (2i, 2i + 1).

        Both in the same way, so that their products stay what they are.
        """
        width = self.qkv.out_features // 3
        order = torch.arange(width).reshape(self.heads, -1, 2).transpose(1, 2).flatten()
        rows = torch.cat([order, width + order, torch.arange(2 * width, 3 * width)])
        self.qkv.weight.copy_(self.qkv.weight[rows])
        if self.qkv.bias is not None:
            self.qkv.bias.copy_(self.qkv.bias[rows])
        for norm in (self.q_norm, self.k_norm):
            for weight in norm.parameters():
                weight.copy_(weight[order[: width // self.heads]])

    def forward(
        self, x: Tensor, key_bias: Tensor | None = None, rotation: Rotation | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens [B, t, D] and an optional additive bias per key [B, t] to (tokens, keys [B, heads, t, d])."""
        batch, count, width = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, keys = self.q_norm(q), self.k_norm(k)
        k = keys
        if rotation is not None:
            q, k = turn(q, rotation), turn(keys, rotation)
        out = attend(q, k, v, key_bias)
        return self.proj(self.norm(out.transpose(1, 2).reshape(batch, count, width))), keys


def _joined(source: nn.Module) -> nn.Linear:
    """One linear layer to queries, keys and values, of an attention that may keep them, or their biases, apart."""
    parts = [source.qkv] if source.qkv is not None else [source.q_proj, source.k_proj, source.v_proj]
    biases = [part.bias for part in parts]
    if source.qkv is not None and getattr(source, "q_bias", None) is not None:
        biases = [source.q_bias, source.k_bias, source.v_bias]
    weight = torch.cat([part.weight for part in parts]).detach()
    joined = nn.Linear(weight.shape[1], weight.shape[0], bias=any(bias is not None for bias in biases))
    joined.requires_grad_(False).weight.copy_(weight)
    if joined.bias is not None:
        third = weight.new_zeros(weight.shape[0] // len(biases))
        joined.bias.copy_(torch.cat([third if bias is None else bias for bias in biases]))
    return joined


class Block(nn.Module):
    """One transformer block, pre-norm or post-norm, in two halves: `attend`, then `feed`."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        post = isinstance(source, ResPostBlock | EvaBlockPostNorm)
        scales = [
            Scale(gamma) if isinstance(gamma, Tensor) else getattr(source, name, nn.Identity())
            for gamma, name in ((getattr(source, f"gamma_{n}", None), f"ls{n}") for n in (1, 2))
        ]
        self.attn, self.mlp = Attention(source.attn), source.mlp
        self.before1, self.after1 = (nn.Identity(), source.norm1) if post else (source.norm1, scales[0])
        self.before2, self.after2 = (nn.Identity(), source.norm2) if post else (source.norm2, scales[1])

    def attend(
        self, x: Tensor, key_bias: Tensor | None = None, rotation: Rotation | None = None
    ) -> tuple[Tensor, Tensor]:
        """The attention half: tokens [B, t, D] to (tokens, this attention's keys [B, heads, t, d])."""
        out, keys = self.attn(self.before1(x), key_bias, rotation)
        return x + self.after1(out), keys

    def feed(self, x: Tensor) -> Tensor:
        """The MLP half: tokens [B, t, D] to tokens."""
        return x + self.after2(self.mlp(self.before2(x)))


class TimmVit(nn.Module):
    """A timm ViT with its blocks in two halves. Takes the model over: it cannot be used on its own afterwards."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.rotary = rotary_of(source)
        self.blocks = nn.ModuleList(Block(block) for block in source.blocks)
        source.blocks = nn.Identity()
        self.source = source
        self.prefix: int = source.num_prefix_tokens

    def embed(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] to tokens [B, p + N, D], positions added."""
        tokens = self.source._pos_embed(self.source.patch_embed(x))
        return self.source.norm_pre(tokens[0] if isinstance(tokens, tuple) else tokens)

    def answer(self, tokens: Tokens) -> Answer:
        """Tokens after the last block to the outputs; every pooling counts a token as often as it stands for one."""
        source = self.source
        x = source.norm(tokens.x)
        first = 0 if getattr(source, "pool_include_prefix", isinstance(source, Eva)) else self.prefix
        if isinstance(source, VisionTransformerDistilled):
            return Answer(source.forward_head(x), source.forward_head(x, pre_logits=True), tokens.group)
        if source.attn_pool is not None:
            pooled = source.attn_pool(x[:, first:], attn_mask=tokens.key_bias[:, None, None, first:])
        elif source.global_pool == "avg":
            first = self.prefix if isinstance(source, Eva) else first
            pooled = mean_patch(tokens._replace(x=x), first)
        else:
            pooled = x[:, 0]
        embedding = source.fc_norm(pooled)
        return Answer(source.head(embedding), embedding, tokens.group)

    def run(self, x: Tensor, step: Step | None) -> Answer:
        """Normalised images [B, 3, H, W] to answers; `step` acts between attention and MLP of each block."""
        tokens = started = start(self.embed(x), self.prefix)
        for number, block in enumerate(self.blocks):
            whole = tokens.size is started.size  # nothing is merged yet: all sizes are 1 and the bias nothing
            rotation = self._rotation(number, None if whole else tokens)
            attended, keys = block.attend(tokens.x, None if whole else tokens.key_bias, rotation)
            tokens = tokens._replace(x=attended)
            if step is not None:
                tokens = step(number, tokens, keys)
            tokens = tokens._replace(x=block.feed(tokens.x))
        return self.answer(tokens)

    def _rotation(self, number: int, tokens: Tokens | None) -> Rotation | None:
        """What block `number` turns its tokens by; those of the beginning if none are given."""
        if self.rotary is None:
            return None
        places = self.rotary.unmerged(self.prefix) if tokens is None else self.rotary.places(tokens, self.prefix)
        return self.rotary(places, number)

    def forward(self, x: Tensor, merge_counts: Sequence[int] | None = None) -> Answer:
        """Normalised images [B, 3, H, W] to answers; `merge_counts` are the tokens to merge away in each block."""
        if merge_counts is None:
            return self.run(x, None)
        return self.run(x, lambda number, tokens, keys: merge(tokens, keys, merge_counts[number], self.prefix))


def rotary_of(source: nn.Module) -> Rotary | None:
    """The rotary positions of a timm model; None if it has none."""
    rope = getattr(source, "rope", None)
    if rope is None:
        return None
    size = tuple(source.patch_embed.grid_size)
    columns_first = rope.grid_indexing == "xy"
    if hasattr(rope, "freqs"):  # learnt for each block and head (Heo et al. 2024)
        return Rotary(grid(size, columns_first=columns_first), rope.freqs.permute(1, 2, 0, 3))
    if hasattr(rope, "periods"):  # DINOv3
        coordinates = grid(size, centred=True, offset=rope.grid_offset, columns_first=columns_first)
        return Rotary(coordinates, axial(centred_bands(rope.periods)))
    coordinates = grid(size, offset=rope.grid_offset, reference=rope.ref_feat_shape, columns_first=columns_first)
    return Rotary(coordinates, axial(rope.bands))


def is_plain(source: nn.Module) -> bool:
    """Whether a timm model is a ViT that can be taken apart: every block attends, then feeds, at one width."""
    if type(source) not in TRUNKS or source.global_pool not in POOLS:
        return False
    if not isinstance(source.attn_pool, AttentionPoolLatent | None):
        return False
    rope = getattr(source, "rope", None)
    if rope is not None and not any(hasattr(rope, name) for name in FREQUENCIES):
        return False
    width = source.embed_dim
    return all(
        type(block) in BLOCKS
        and type(block.attn) in ATTENTIONS
        and getattr(block.attn, "gate", None) is None
        and block.attn.num_heads * block.attn.head_dim == width
        and getattr(block.attn, "num_kv_groups", 1) == 1
        for block in source.blocks
    )


def trunk_of(model: TimmVit, macs: int) -> Trunk:
    """What its levels depend on; `macs` is what the whole model costs when nothing is merged.

    A gated MLP counts half as many units again as it has, which is what it costs.
    """
    width = model.source.embed_dim
    linear = sum(part.weight.numel() for part in model.blocks[0].mlp.modules() if isinstance(part, nn.Linear))
    trunk = Trunk(
        blocks=len(model.blocks),
        width=width,
        hidden=linear // (2 * width),
        patches=model.source.patch_embed.num_patches,
        prefix=model.prefix,
        fixed=0,
        merge=True,
    )
    blocks = vit_macs(trunk, constant(0, trunk.blocks), constant(trunk.hidden, trunk.blocks))
    return Trunk(**{**{name: getattr(trunk, name) for name in trunk.__struct_fields__}, "fixed": macs - blocks})
