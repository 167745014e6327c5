"""Segmentation: tokens brought up to stride 4 with the stem's own maps as skips.

A small U-Net decoder (Ronneberger et al. 2015) in the manner of Semantic FPN (Kirillov et al. 2019): each step is
bilinear x2, a 1x1 lateral from the stem, one 3x3 convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.vit import Features, VitConfig, conv_bn


def double(x: Tensor) -> Tensor:
    """Bilinear x2 of [B, C, h, w]."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Segment(nn.Module):
    """Features to per-pixel class logits at stride 4; class 0 is the background."""

    outputs = ("mask",)
    precise = ("out",)

    def __init__(self, config: VitConfig, classes: int, wide: int = 64, narrow: int = 32) -> None:
        super().__init__()
        _, at4, at8 = config.stem
        self.top = nn.Conv2d(config.width, wide, 1)
        self.lateral8 = nn.Conv2d(at8, wide, 1)
        self.mix8 = conv_bn(wide, wide)
        self.down = nn.Conv2d(wide, narrow, 1)
        self.lateral4 = nn.Conv2d(at4, narrow, 1)
        self.mix4 = conv_bn(narrow, narrow)
        self.out = nn.Conv2d(narrow, 1 + classes, 1)

    def logits(self, features: Features) -> Tensor:
        """Class logits [B, 1 + C, H/4, W/4]."""
        x = self.mix8(double(self.top(features.patches)) + self.lateral8(features.stride8))
        x = self.mix4(double(self.down(x)) + self.lateral4(features.stride4))
        logits: Tensor = self.out(x)
        return logits

    def forward(self, features: Features) -> tuple[Tensor]:
        """Features to the mask uint8 [B, H, W]: the likeliest class of every pixel of the input."""
        full = F.interpolate(self.logits(features), scale_factor=4.0, mode="bilinear", align_corners=False)
        return (full.argmax(dim=1).to(torch.uint8),)


def segment_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy and Dice of logits [B, 1 + C, h, w] against classes [B, 4h, 4w] int64.

    Logits are brought up x2; each of their cells answers for its 2x2 true pixels, so that a boundary between two cells
    is learned where it is. Objects, and the few pixels at boundaries where masks go wrong, count for more.
    """
    likely = double(logits.float()).log_softmax(dim=1)
    corners = [classes[:, y::2, x::2] for y in (0, 1) for x in (0, 1)]
    weight = pixel_weight(corners[0])
    surprise = sum(F.nll_loss(likely, corner, reduction="none") for corner in corners) / 4
    return (surprise * weight).sum() / weight.sum() + dice_loss(likely.exp(), corners[0])


def pixel_weight(classes: Tensor) -> Tensor:
    """1 for background, 2 for objects, 2 more at their boundaries; classes [B, h, w]."""
    values = classes.float()[:, None]
    edge = F.max_pool2d(values, 3, 1, 1) != -F.max_pool2d(-values, 3, 1, 1)
    return 1.0 + (classes > 0) + 2.0 * edge[:, 0]


def dice_loss(shares: Tensor, classes: Tensor) -> Tensor:
    """1 - Dice, averaged over the classes present in the batch (Milletari et al. 2016); shares [B, C, h, w]."""
    count = torch.bincount(classes.flatten(), minlength=shares.shape[1]).float()
    right = shares.gather(1, classes[:, None]).flatten()
    inner = torch.zeros_like(count).index_add(0, classes.flatten(), right)
    dice = 2 * inner / (count + shares.sum(dim=(0, 2, 3))).clamp(min=1.0)
    present = count > 0
    return 1 - (dice * present).sum() / present.sum()
