"""A trunk with its heads: what is trained (all heads at once) and what is exported (one at a time)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from models.backbones.lookup import LookupVit
from models.backbones.vit import Vit, VitConfig
from models.heads.classify import Classify, classify_loss
from models.heads.detect import Detect, detect_loss
from models.heads.segment import Segment, segment_loss
from models.manifest import Task
from models.views import Views

TASKS: tuple[Task, ...] = ("classify", "detect", "segment")
WEIGHTS = {"classify": 0.6, "heat": 0.4, "box": 1.5, "segment": 5.0}


class Network(nn.Module):
    """One trunk and the heads of the named tasks."""

    def __init__(self, config: VitConfig, classes: int, tasks: Sequence[str] = TASKS) -> None:
        super().__init__()
        self.config = config
        self.classes = classes
        self.trunk: Vit | LookupVit = LookupVit(config) if config.kind == "lookup" else Vit(config)
        heads: dict[str, nn.Module] = {}
        for task in tasks:
            if task == "classify":
                heads[task] = Classify(config.width, classes)
            elif task == "detect":
                heads[task] = Detect(config, classes)
            elif task == "segment":
                heads[task] = Segment(config, classes)
            else:
                raise ValueError(f"unknown task {task!r}; accepted: {', '.join(TASKS)}")
        self.heads = nn.ModuleDict(heads)

    def losses(self, views: Views, **level: Any) -> dict[str, Tensor]:
        """The unweighted losses of the heads present, by name (see WEIGHTS); `level` is what the trunk takes."""
        features = self.trunk(views.images, **level)
        losses: dict[str, Tensor] = {}
        if "classify" in self.heads:
            losses["classify"] = classify_loss(self.heads["classify"](features)[0], views.main)
        if "segment" in self.heads:
            losses["segment"] = segment_loss(cast(Segment, self.heads["segment"]).logits(features), views.classes)
        if "detect" in self.heads:
            heat, boxes = cast(Detect, self.heads["detect"]).dense(features)
            losses["heat"], losses["box"] = detect_loss(heat, boxes, views.boxes, views.labels)
        return losses

    def forward(self, x: Tensor, task: str, **level: Any) -> tuple[Tensor, ...]:
        """Normalised images [B, 3, H, W] to one task's outputs, in the order its head names them."""
        return cast("tuple[Tensor, ...]", self.heads[task](self.trunk(x, **level)))
