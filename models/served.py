"""The network as it is served: uint8 pixels in, one task's answers out, everything foldable folded.

Batch norm goes into the convolution before it. Normalisation goes into the first convolution; a zero of padding there
stood for the mean grey, so the image itself is padded with the mean, as uint8, where that is cheapest. Weights are
rounded to fp16 and kept as fp32: the rounded weights are the reference for every backend.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.backbones.vit import MEAN, STD, Stem
from models.network import Network


def fold_batch_norms(module: nn.Module) -> None:
    """Replace every Conv2d + BatchNorm2d pair inside nn.Sequential by one Conv2d, in place."""
    for child in module.modules():
        if not isinstance(child, nn.Sequential) or len(child) < 2 or not isinstance(child[1], nn.BatchNorm2d):
            continue
        conv, norm = cast(nn.Conv2d, child[0]), child[1]
        conv.weight, conv.bias = cast(
            "tuple[nn.Parameter, nn.Parameter]",
            fuse_conv_bn_weights(
                conv.weight,
                conv.bias,
                cast(Tensor, norm.running_mean),
                cast(Tensor, norm.running_var),
                norm.eps,
                norm.weight,
                norm.bias,
            ),
        )
        child[1] = nn.Identity()


def _first_convolution(stem: Stem) -> nn.Conv2d:
    return cast(nn.Conv2d, stem.conv1[0])


def fold_normalisation(stem: Stem) -> None:
    """Let the first convolution read pixels 0..255 padded with MEAN, in place; batch norms must be folded already."""
    conv = _first_convolution(stem)
    if conv.bias is None:
        raise ValueError("fold the batch norms before the normalisation")
    with torch.no_grad():
        conv.weight.div_(STD)
        conv.weight.copy_(round_half(conv.weight))  # the bias must match the weights that will really be used
        conv.bias.sub_(MEAN * conv.weight.sum(dim=(1, 2, 3)))
    conv.padding = (0, 0)


def round_half(values: Tensor) -> Tensor:
    """The nearest fp16 values, as fp32."""
    return values.half().float()


def is_stored_half(name: str, value: Tensor) -> bool:
    """Which parameters are stored as fp16: matrices and kernels; vectors are few and stay fp32."""
    return bool(value.is_floating_point() and value.ndim >= 2 and value.numel() >= 256)


class Served(nn.Module):
    """One task of a trained network, folded and rounded. Takes the network over: train no further with it."""

    def __init__(self, network: Network, task: str) -> None:
        super().__init__()
        self.task = task
        self.trunk = network.trunk
        self.head = network.heads[task]
        self.eval()
        self.requires_grad_(False)
        fold_batch_norms(self)
        fold_normalisation(self.trunk.stem)
        for name, value in self.named_parameters():
            if is_stored_half(name, value):
                value.copy_(round_half(value))

    @property
    def outputs(self) -> tuple[str, ...]:
        return cast("tuple[str, ...]", self.head.outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """uint8 images [B, H, W, 3] to the task's outputs (see the head)."""
        # Stride 2 over an even side never reads the right and bottom padding.
        pixels = F.pad(images.permute(0, 3, 1, 2), (1, 0, 1, 0), value=MEAN)
        return cast("tuple[Tensor, ...]", self.head(self.trunk(pixels.float())))
