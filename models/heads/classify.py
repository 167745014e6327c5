"""Classification: a linear layer on the class token."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.vit import Features


class Classify(nn.Module):
    """CLS to class logits; the CLS itself serves as the image's embedding."""

    outputs = ("logits", "embedding")
    precise = ("linear",)

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Features) -> tuple[Tensor, Tensor]:
        """Features to (logits [B, C], embedding [B, D])."""
        return self.linear(features.cls), features.cls


def classify_loss(logits: Tensor, main: Tensor) -> Tensor:
    """Cross-entropy with label smoothing; `main` [B] int64 is -1 where a view shows no clear main object."""
    known = (main >= 0).sum().clamp(min=1)
    return F.cross_entropy(logits.float(), main, ignore_index=-1, label_smoothing=0.05, reduction="sum") / known
