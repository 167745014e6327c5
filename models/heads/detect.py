"""Anchor-free detection on a stride-8 map.

Centres as a heat map per class with 3x3 peak picking in place of NMS (Zhou et al. 2019, "Objects as points"), boxes as
four distances learned at every cell near a centre with Gaussian weights and GIoU (Liu et al. 2020, "Training-time-
friendly network for real-time object detection", TTFNet; Rezatofighi et al. 2019, GIoU). Coordinates are fractions of
the input, 0..1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.vit import Features, VitConfig, conv_bn
from models.heads.segment import double

TOP = 30  # detections per image
REACH = 0.25  # a distance of softplus(1.3..) = 1.5 is then 0.37 of the input
SPREAD = 0.54  # TTFNet's alpha: the Gaussian of a box of w cells has sigma alpha * w / 6
HIDDEN = -30.0  # logit of a cell that is no peak


class Detect(nn.Module):
    """Features to heat-map logits and boxes of every cell; `forward` picks the best ones."""

    outputs = ("boxes", "scores", "labels")
    precise = ("heat", "sides")

    def __init__(self, config: VitConfig, classes: int, wide: int = 64) -> None:
        super().__init__()
        self.classes = classes
        self.top = nn.Conv2d(config.width, wide, 1)
        self.lateral8 = nn.Conv2d(config.stem[2], wide, 1)
        self.mix1 = conv_bn(wide, wide)
        self.mix2 = conv_bn(wide, wide)
        self.heat = nn.Conv2d(wide, classes, 1)
        self.sides = nn.Conv2d(wide, 4, 1)
        nn.init.constant_(self.heat.bias, -4.0)  # most cells are no centre: start there (Lin et al. 2017)
        nn.init.constant_(self.sides.bias, -0.7)

    def dense(self, features: Features) -> tuple[Tensor, Tensor]:
        """Heat-map logits [B, C, h, w] and boxes xyxy [B, 4, h, w], h = H/8."""
        x = self.mix1(double(self.top(features.patches)) + self.lateral8(features.stride8))
        x = self.mix2(x)
        return self.heat(x), decode(self.sides(x))

    def forward(self, features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """Features to boxes [B, K, 4], scores [B, K] falling, labels [B, K] int64."""
        return pick(*self.dense(features))


def centres(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """X [1, w] and y [h, 1] of the cells' centres."""
    x = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5) / width
    y = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5) / height
    return x[None, :], y[:, None]


def decode(sides: Tensor) -> Tensor:
    """Raw side outputs [B, 4, h, w] (left, top, right, bottom) to boxes xyxy [B, 4, h, w]."""
    away = F.softplus(sides.float()) * REACH
    x, y = centres(sides.shape[2], sides.shape[3], sides)
    left, top, right, bottom = away.unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], dim=1)


def pick(heat: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The TOP best peaks of heat-map logits [B, C, h, w] with their boxes [B, 4, h, w], clipped to the image."""
    peak = heat == F.max_pool2d(heat, 3, 1, 1)
    cells = heat.shape[2] * heat.shape[3]
    logits, index = torch.where(peak, heat, HIDDEN).flatten(1).topk(TOP, dim=1)
    labels = index // cells
    cell = (index % cells)[:, :, None].expand(-1, -1, 4)
    chosen = boxes.flatten(2).transpose(1, 2).gather(1, cell)
    return chosen.clamp(0.0, 1.0), logits.sigmoid(), labels


def gaussians(boxes: Tensor, valid: Tensor, height: int, width: int) -> Tensor:
    """Heat of every object [B, K, h, w]: 1 at its centre's cell, falling as an ellipse; 0 where not `valid` [B, K]."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    column = ((x0 + x1) / 2 * width).floor().clamp(0, width - 1)[..., None, None]
    row = ((y0 + y1) / 2 * height).floor().clamp(0, height - 1)[..., None, None]
    sigma_x = ((x1 - x0) * width * SPREAD / 6).clamp(min=0.3)[..., None, None]
    sigma_y = ((y1 - y0) * height * SPREAD / 6).clamp(min=0.3)[..., None, None]
    across = torch.arange(width, device=boxes.device)[None, None, None, :] - column
    down = torch.arange(height, device=boxes.device)[None, None, :, None] - row
    heat = torch.exp(-0.5 * ((across / sigma_x) ** 2 + (down / sigma_y) ** 2))
    return torch.where(heat > 0.01, heat, 0.0) * valid[..., None, None]


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes xyxy [..., 4], -1..1."""
    ax0, ay0, ax1, ay1 = a.unbind(-1)
    bx0, by0, bx1, by1 = b.unbind(-1)
    inner = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0) * (
        torch.minimum(ay1, by1) - torch.maximum(ay0, by0)
    ).clamp(min=0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - inner
    hull = (torch.maximum(ax1, bx1) - torch.minimum(ax0, bx0)) * (torch.maximum(ay1, by1) - torch.minimum(ay0, by0))
    return inner / union.clamp(min=1e-9) - (hull - union) / hull.clamp(min=1e-9)


def heat_loss(logits: Tensor, target: Tensor) -> Tensor:
    """The penalty-reduced focal loss of heat maps [B, C, h, w] (Law and Deng 2018), per object."""
    logits = logits.float()
    probability = logits.sigmoid()
    centre = target >= 0.999
    positive = F.logsigmoid(logits) * (1 - probability) ** 2 * centre
    negative = F.logsigmoid(-logits) * probability**2 * (1 - target) ** 4 * ~centre
    return -(positive.sum() + negative.sum()) / centre.sum().clamp(min=1)


def detect_loss(heat: Tensor, boxes: Tensor, truth: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(heat-map loss, box loss) for truth boxes [B, K, 4] and labels [B, K] int64, -1 where there is no object."""
    valid = labels >= 0
    each = gaussians(truth, valid, heat.shape[2], heat.shape[3])
    onehot = F.one_hot(labels.clamp(min=0), heat.shape[1]).to(each.dtype) * valid[..., None]
    target = (each[:, :, None] * onehot[..., None, None]).amax(dim=1)
    # A cell that two objects claim belongs to the one that is strongest there.
    owner = each * (each >= each.amax(dim=1, keepdim=True))
    weight = owner / owner.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    quality = giou(boxes.permute(0, 2, 3, 1)[:, None], truth[:, :, None, None])
    box_loss = ((1 - quality) * weight).sum() / valid.sum().clamp(min=1)
    return heat_loss(heat, target), box_loss
