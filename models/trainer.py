"""A network in training: the recipe, the optimisers, one step, and all that changes as it goes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from models import parallel
from models.backbones.lookup import LOOKUP_SIDES
from models.backbones.vit import VitConfig
from models.checkpoint import load_state, save_state
from models.levels import constant, sloped
from models.network import WEIGHTS, Network
from models.views import Views


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run's result, recorded with it."""

    minutes: float = 100.0
    scenes: int = 24_000
    validation_scenes: int = 500
    batch: int = 64
    large_batch: int = 48  # once the views are large
    small_side: int = 112
    small_share: float = 0.33  # of the time, at small_side
    warmup: float = 0.02  # share of the time
    decay_from: float = 0.5  # share of the time after which the rates fall to zero
    muon_lr: float = 3e-3
    adam_lr: float = 1.5e-3
    weight_decay: float = 0.05
    average: float = 0.995
    merged: float = 0.0  # share of the steps that merge tokens away, by schedules drawn at random
    narrow: float = 0.0  # share of the steps with half of the MLPs' hidden units
    seed: int = 1


def rate(recipe: Recipe, done: float) -> float:
    """The factor on the learning rates after a share `done` (0..1) of the time."""
    if done < recipe.warmup:
        return max(done / recipe.warmup, 0.01)
    if done < recipe.decay_from:
        return 1.0
    return max(0.0, 1.0 - (done - recipe.decay_from) / (1.0 - recipe.decay_from))


def optimisers_for(network: Network, recipe: Recipe) -> list[Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the others; no decay on vectors and positions."""
    matrices: list[nn.Parameter] = []
    kernels: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if name.startswith("trunk.blocks.") and parameter.ndim == 2:
            matrices.append(parameter)
        elif parameter.ndim >= 2 and "positions" not in name and "cls" not in name:
            kernels.append(parameter)
        else:
            vectors.append(parameter)
    muon = Muon(matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw")
    groups = [
        {"params": kernels, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [muon, AdamW(groups, lr=recipe.adam_lr, betas=(0.9, 0.98))]


def merge_schedule(rng: np.random.Generator, blocks: int, patches: int) -> tuple[int, ...]:
    """A schedule such as a level may have: much in one or two of the first blocks (half of the time; that is what runs
    fastest), constant, falling to nothing, or steep in the first blocks."""
    kind = rng.integers(6)
    most = patches // (blocks + 1)
    if kind == 0:
        return constant(int(rng.integers(1, most + 1)), blocks)
    if kind == 1:
        return sloped(int(rng.integers(1, most + 1)), -1.0, blocks)
    if kind == 2:
        first, fall = rng.uniform(0.1, 0.45) * patches, rng.uniform(0.3, 0.7)
        return tuple(int(first * fall**number) for number in range(blocks))
    counts = [0] * blocks
    left = patches
    for site in sorted(rng.choice(blocks * 5 // 8, size=rng.integers(1, 3), replace=False)):
        counts[site] = int(rng.integers(left // 10, left // 2 + 1))
        left -= counts[site]
    return tuple(counts)


def draw_level(recipe: Recipe, config: VitConfig, side: int, step: int) -> dict[str, Any]:
    """What the trunk is asked for at a step, the same in every process."""
    rng = np.random.default_rng((recipe.seed, 7, step))
    patches = (side // 16) ** 2
    if config.kind == "lookup":
        rows, columns = rng.integers(LOOKUP_SIDES[0], min(LOOKUP_SIDES[1], side // 16) + 1, 2)
        return {"grid": (int(rows), int(columns))}
    level: dict[str, Any] = {}
    if rng.random() < recipe.merged:
        level["merge_counts"] = merge_schedule(rng, config.depth, patches)
    if rng.random() < recipe.narrow:
        level["hidden"] = constant(config.width * config.mlp_ratio // 2, config.depth)
    return level


class Trainer:
    """A network in training with all that changes as it goes: optimisers, averaged weights, step, time, best score."""

    def __init__(self, network: Network, start: dict[str, Any] | None, recipe: Recipe) -> None:
        self.network = network.to(memory_format=torch.channels_last)
        self.recipe = recipe
        self.optimisers = optimisers_for(network, recipe)
        self.base_rates = [recipe.muon_lr, recipe.adam_lr]
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.step = 0
        self.images = 0
        self.seconds = 0.0
        self.best = -1.0
        self.save_due = False
        self.history: list[dict[str, float]] = []
        self.start = start  # the training record of the weights that the network began with
        self.stages: list[dict[str, Any]] = [{"from_step": 0, **asdict(recipe)}]

    @property
    def done(self) -> float:
        return min(1.0, self.seconds / (60.0 * self.recipe.minutes))

    @property
    def side(self) -> int:
        return self.recipe.small_side if self.done < self.recipe.small_share else self.network.config.side

    def update(self, views: Views) -> dict[str, float]:
        """One step on a batch; the unweighted losses."""
        for optimiser, base in zip(self.optimisers, self.base_rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * rate(self.recipe, self.done)
        with torch.autocast(views.images.device.type, torch.bfloat16):
            losses = self.network.losses(views, **draw_level(self.recipe, self.network.config, self.side, self.step))
        total = torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
        total.backward()
        parallel.average([p.grad for p in self.network.parameters() if p.grad is not None])
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        for optimiser in self.optimisers:
            if isinstance(optimiser, Muon):
                parallel.step_in_shares(optimiser)
            else:
                optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.images += len(views.images) * parallel.size()
        self._follow()
        return {name: float(value.detach()) for name, value in losses.items()}

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averaged weights towards the current ones; the average is short-sighted at the start."""
        pace = 1.0 - min(self.recipe.average, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, pace)
            else:
                self.average[name].copy_(value)

    def averaged(self) -> Network:
        """A network with the averaged weights."""
        network = Network(self.network.config, self.network.classes, tuple(self.network.heads))
        network.load_state_dict(self.average)
        return network

    def progress(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "images": self.images,
            "seconds": self.seconds,
            "best": self.best,
            "history": self.history,
            "stages": self.stages,
            "start": self.start,
        }

    def gather(self) -> None:
        """Bring what is spread over the processes together; the leader should then save."""
        for optimiser in self.optimisers:
            if isinstance(optimiser, Muon):
                parallel.collect(optimiser)
        self.save_due = True

    def save(self, folder: Path) -> None:
        save_state(folder, self.network, self.average, self.optimisers, self.progress())
        self.save_due = False

    def resume(self, folder: Path) -> None:
        progress = load_state(folder, self.network, self.average, self.optimisers)
        self.step, self.images = progress["step"], progress["images"]
        self.seconds, self.best, self.history = progress["seconds"], progress["best"], progress["history"]
        self.start = progress["start"]
        # A run may go on with another recipe; its record names each, with the step it began at.
        now = {"from_step": self.step, **asdict(self.recipe)}
        before: list[dict[str, Any]] = progress["stages"]
        changed = any(before[-1].get(key) != value for key, value in now.items() if key != "from_step")
        self.stages = [*before, now] if changed else before
