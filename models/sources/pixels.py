"""A network from outside behind the graph contract: uint8 pixels in, its normalisation folded away where that is exact.

A network reads (pixel / 255 - mean) / std per channel. The division goes into the weights of its first convolution,
and the subtraction into its bias, unless the convolution pads its input with zeros: a zero there stands for the mean,
so the mean is subtracted from the image instead. A network whose first convolution is not plain, or that looks at the
image in other ways too, gets the normalisation as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

LEVELS = 255.0


class Normalise(nn.Module):
    """uint8 images [B, H, W, 3] to what the network reads, [B, 3, H, W]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", LEVELS * torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("factor", 1 / (LEVELS * torch.tensor(std).reshape(1, 3, 1, 1)))
        self.shift = self.scale = True

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).float()
        if self.shift:
            x = x - self.mean
        return x * self.factor if self.scale else x

    def fold_into(self, conv: nn.Conv2d) -> None:
        """Let `conv`, which reads what this gives, do as much of this as it can; in place."""
        with torch.no_grad():
            conv.weight.mul_(self.factor)
            self.scale = False
            if conv.padding == (0, 0):
                shift = -(conv.weight * self.mean).sum(dim=(1, 2, 3))
                conv.bias = nn.Parameter(shift if conv.bias is None else conv.bias + shift, requires_grad=False)
                self.shift = False


def first_convolution(model: nn.Module, name: object, images: Tensor) -> nn.Conv2d | None:
    """The convolution called `name`, if it is a plain one and the first to see normalised `images` [B, 3, H, W]."""
    found: Any = dict(model.named_modules()).get(name) if isinstance(name, str) else None
    if type(found) is not nn.Conv2d or found.in_channels != 3 or found.groups != 1 or found.padding_mode != "zeros":
        return None
    seen: list[Tensor] = []
    hook = found.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(images)
    hook.remove()
    return found if len(seen) == 1 and seen[0] is images else None


def fold(model: nn.Module, name: object, mean: Sequence[float], std: Sequence[float], images: Tensor) -> Normalise:
    """What is left to do before the model, once its first convolution, called `name`, does what it can; in place.

    `images` uint8 [B, H, W, 3], two at least, show whether the answers stay what they were; if they do not, nothing
    is folded.
    """
    whole, folded = Normalise(mean, std), Normalise(mean, std)
    with torch.no_grad():
        pixels = whole(images)
        conv = first_convolution(model, name, pixels)
        if conv is None:
            return whole
        before, weight, bias = model(pixels), conv.weight.clone(), copy.copy(conv.bias)
        folded.fold_into(conv)
        spread = (before - before.mean(dim=0)).abs().max()
        if (model(folded(images)) - before).abs().max() <= 0.01 * spread:
            return folded
        conv.weight.copy_(weight)
        conv.bias = bias
    return whole
