"""What one image costs, in multiply-accumulates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.backbones.vit import Attention, Stem


def count_macs(model: nn.Module, images: Tensor) -> dict[str, int]:
    """MACs per image of convolutions, linear layers and attention products, by part: stem, blocks, head.

    Norms, activations, softmax and resampling are not counted, as is the custom of the field.
    """
    totals = {"stem": 0, "blocks": 0, "head": 0}
    stem = {id(inner) for outer in model.modules() if isinstance(outer, Stem) for inner in outer.modules()}
    block = {id(m) for name, m in model.named_modules() if ".blocks." in name}

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        part = "stem" if id(module) in stem else "blocks" if id(module) in block else "head"
        if isinstance(module, nn.Conv2d):
            totals[part] += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            totals[part] += output[0].numel() * module.in_features
        elif isinstance(module, Attention):
            tokens, width = output[0].shape[1:]
            totals[part] += 2 * tokens * tokens * width

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    try:
        with torch.no_grad():
            model(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return totals
