"""Small timm models with weights that make every part count: fresh ones often do next to nothing."""

from __future__ import annotations

from typing import Any

import timm
import torch

TINY: dict[str, Any] = {"img_size": 64, "depth": 3, "embed_dim": 48, "num_heads": 3, "num_classes": 7}

VITS: dict[str, dict[str, Any]] = {
    "class token": {"name": "vit_small_patch16_224"},
    "distilled": {"name": "deit_small_distilled_patch16_224"},
    "layer scale": {"name": "deit3_small_patch16_224"},
    "registers, mean": {"name": "vit_little_patch16_reg4_gap_256"},
    "mean over all": {"name": "vit_base_patch16_gap_224", "pool_include_prefix": True, "class_token": True},
    "attention pool": {"name": "vit_base_patch16_siglip_224"},
    "post-norm": {"name": "vit_base_patch16_rpn_224"},
    "DINOv3": {"name": "vit_small_patch16_dinov3", "global_pool": "token"},
    "DINOv3, SwiGLU": {"name": "vit_small_plus_patch16_dinov3"},
    "EVA": {"name": "eva02_tiny_patch14_336", "img_size": 70},
    "EVA, separate": {"name": "eva02_base_patch14_224", "img_size": 70},
    "EVA, post-norm": {"name": "eva02_enormous_patch14_clip_224", "img_size": 56},
    "rotary, registers": {"name": "vit_betwixt_patch16_rope_reg4_gap_256"},
    "rotary, mixed": {"name": "vit_base_patch16_rope_mixed_ape_224"},
    "rotary, attention pool": {"name": "vit_pe_core_tiny_patch16_384"},
    "norm of keys": {"name": "vit_small_patch16_224", "qk_norm": True},
    "rotary, norm of keys": {"name": "vit_base_patch16_rope_224", "qk_norm": True},
}
"""Kinds of plain vision transformers: a timm name, and what is different from TINY."""


@torch.no_grad()
def enliven(model: Any, seed: int = 1) -> Any:
    """Fill a model with random weights of about the scale that training gives them; in place."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim > 1 and "token" not in name and "embed" not in name:
            noise = noise / weight[0].numel() ** 0.5
        centre = 1.0 if weight.ndim == 1 and name.endswith(("weight", "gamma", "gamma_1", "gamma_2")) else 0.0
        weight.copy_(centre + (0.3 if weight.ndim == 1 else 1.0) * noise)
    return model.eval().requires_grad_(False)


def tiny(kind: str, **options: Any) -> Any:
    """A small model of one kind."""
    return enliven(timm.create_model(**{"model_name": VITS[kind]["name"], **TINY, **_rest(kind), **options}))


def _rest(kind: str) -> dict[str, Any]:
    return {key: value for key, value in VITS[kind].items() if key != "name"}
