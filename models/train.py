"""Train the toyscape models: one run, all heads on a shared trunk.

What makes a small ViT learn from few images here: a convolutional stem, dense supervision from the first step, half
resolution first, Muon (Jordan et al. 2024) for the blocks' matrices with AdamW for the rest, an average of the weights
(Polyak), and a learning rate that stays up and falls to zero at the end (warm-up, stable, decay).
Progress is measured in time, not steps: the budget is minutes of work, and a pause does not count.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from models import parallel
from models.backbones.lookup import LOOKUP_SIDES, LookupVit, start_from_vit
from models.backbones.vit import Block, Vit, VitConfig
from models.checkpoint import load_start, save_tensors
from models.levels import constant, sloped
from models.network import TASKS, WEIGHTS, Network
from models.toyscape import CLASSES
from models.toyscape.scene import frame_size, split
from models.toyscape.store import Store, render_store, training_side
from models.trainer import Recipe, Trainer
from models.validate import ValidationSet, validate, validation_set
from models.views import sample

RUNS: dict[str, tuple[str, ...]] = {
    "toyscape": TASKS,
    **{f"toyscape-{task}": (task,) for task in TASKS},
    "toyscape-lookup": ("classify", "segment"),  # the masks only teach; the model that is shipped classifies
}


SAVE_SECONDS = 150.0
LOOK_SECONDS = 420.0


def hardware() -> str:
    """The processor and how many of its cores there are."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} cores"


def training_record(trainer: Trainer, tasks: tuple[str, ...]) -> dict[str, Any]:
    """What the manifest says about how the weights came to be."""
    return {
        "data": f"toyscape, train split, {trainer.recipe.scenes} scenes rendered ahead",
        "tasks": list(tasks),
        "recipe": trainer.stages,
        "loss_weights": WEIGHTS,
        "steps": trainer.step,
        "images": trainer.images,
        "minutes": round(trainer.seconds / 60, 1),
        "hardware": hardware(),
        "precision": "bf16 autocast",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "validation": trainer.history[-1] if trainer.history else {},
        **({"start": trainer.start} if trainer.start else {}),
    }


def _aspects(count: int) -> NDArray[np.float64]:
    sizes = [frame_size(split("train", n), training_side(n)) for n in range(count)]
    return np.array([width / height for width, height in sizes])


def _look(trainer: Trainer, data: ValidationSet, folder: Path, tasks: tuple[str, ...]) -> None:
    """Validate the averaged weights; keep them when they are the best so far."""
    network = trainer.averaged()
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)  # the other processes wait
    result: dict[str, float] = {}
    for prefix, level in looks(trainer.recipe, network.config).items():
        result |= {prefix + name: value for name, value in validate(network, data, **level).items()}
    torch.set_num_threads(threads)
    score = sum(result.values()) / len(result)
    trainer.history.append({"step": trainer.step, "images": trainer.images, "minutes": trainer.seconds / 60, **result})
    line = "  ".join(f"{name} {value:.4f}" for name, value in result.items())
    tqdm.write(f"{trainer.seconds / 60:6.1f} min  step {trainer.step}  images {trainer.images}  {line}")
    if score >= trainer.best:
        trainer.best = score
        metadata = {"record": training_record(trainer, tasks), "config": asdict(network.config)}
        save_tensors(folder / "best.safetensors", network.state_dict(), metadata)


def looks(recipe: Recipe, config: VitConfig) -> dict[str, dict[str, Any]]:
    """The levels that validation looks at, by what their results' names begin with."""
    if config.kind == "lookup":
        return {"": {"grid": LOOKUP_SIDES[1:] * 2}, "5x5 ": {"grid": (5, 5)}}
    levels: dict[str, dict[str, Any]] = {"": {}}
    if recipe.merged:
        levels["merged "] = {"merge_counts": sloped(20, -1.0, config.depth)}
    if recipe.narrow:
        levels["narrow "] = {"hidden": constant(config.width * config.mlp_ratio // 2, config.depth)}
    return levels


def _network(name: str, recipe: Recipe, start: Path | None) -> tuple[Network, dict[str, Any] | None]:
    """A network to train and the training record of what it begins with, if anything."""
    lookup = name == "toyscape-lookup"
    network = Network(VitConfig(kind="lookup" if lookup else "vit"), len(CLASSES), RUNS[name])
    if start is None:
        return network, None
    vit = Network(VitConfig(), len(CLASSES), RUNS[name]) if lookup else network
    record = load_start(start, vit)
    if isinstance(network.trunk, LookupVit) and isinstance(vit.trunk, Vit):
        start_from_vit(network.trunk, vit.trunk)
        network.heads.load_state_dict(vit.heads.state_dict())
    elif recipe.narrow:
        for block in network.trunk.blocks:
            cast(Block, block).sort_units()
    return network, record


class Clock:
    """Says when something is due again, every so many seconds, and once more at the end."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.last = time.monotonic()

    def due(self, end: bool) -> bool:
        """True when the time has come; it then starts over."""
        if not end and time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True


def _steps(trainer: Trainer, store: Store, stopping: Callable[[], bool]) -> Iterator[dict[str, float]]:
    """Take steps until the time is up or the leader is `stopping`, in every process alike; yields the losses."""
    aspects = _aspects(len(store))
    save = Clock(SAVE_SECONDS)
    while True:
        started = time.monotonic()
        asked = stopping()
        due = save.due(asked or trainer.done >= 1.0)
        trainer.seconds, saving, stop = parallel.lead([trainer.seconds, float(due), float(asked)])
        if saving:
            trainer.gather()
        if stop or trainer.done >= 1.0:
            return
        # Seeded by the step, so that a resumed run draws what an unbroken one would have drawn.
        rng = np.random.default_rng((trainer.recipe.seed, trainer.step, parallel.rank()))
        count = trainer.recipe.batch if trainer.side == trainer.recipe.small_side else trainer.recipe.large_batch
        losses = trainer.update(sample(store, aspects, rng, count // parallel.size(), trainer.side))
        trainer.seconds += min(time.monotonic() - started, 10.0)  # a step takes 1 to 4 s; more was a pause
        yield losses


def _lead(trainer: Trainer, store: Store, data: ValidationSet, folder: Path, tasks: tuple[str, ...]) -> None:
    """The leading process: steps, progress bar, validation, saving."""
    smooth: dict[str, float] = {}
    look = Clock(LOOK_SECONDS)
    total = round(trainer.recipe.minutes * 60)
    with (
        parallel.interruptible() as stopping,
        tqdm(total=total, initial=round(trainer.seconds), unit="s", mininterval=10) as bar,
    ):
        for losses in _steps(trainer, store, stopping):
            smooth = {name: 0.95 * smooth.get(name, value) + 0.05 * value for name, value in losses.items()}
            shown = {name: f"{value:.3f}" for name, value in smooth.items()}
            bar.set_postfix(images=trainer.images, side=trainer.side, **shown, refresh=False)
            bar.update(round(trainer.seconds) - bar.n)
            if look.due(trainer.done >= 1.0):
                _look(trainer, data, folder, tasks)
            if trainer.save_due:
                trainer.save(folder)
        trainer.save(folder)
    if trainer.done < 1.0:
        print(f"stopped at step {trainer.step}; the same command goes on from there")


def _follow(rank: int, size: int, port: int, name: str, recipe: Recipe, cache: Path, start: Path | None) -> None:
    """Every other process: steps only."""
    parallel.join(rank, size, port)
    trainer, store = _prepare(name, recipe, cache, start)
    for _ in _steps(trainer, store, lambda: False):
        pass


def _prepare(name: str, recipe: Recipe, cache: Path, start: Path | None) -> tuple[Trainer, Store]:
    torch.manual_seed(recipe.seed)
    store = render_store(cache / "toyscape" / "train", "train", recipe.scenes)
    trainer = Trainer(*_network(name, recipe, start), recipe)
    folder = cache / "runs" / name
    if (folder / "state.safetensors").exists():
        trainer.resume(folder)
    return trainer, store


def train(
    name: str, recipe: Recipe, cache: Path, fresh: bool = False, processes: int = 0, start: Path | None = None
) -> Path:
    """Run (or go on with) a training run; returns the file of the best weights.

    `processes` is how many train together, 0 for one per core; a new run begins with the weights in `start`. An
    interrupt saves after the step and ends; a second one ends at once, with a state at most a few minutes old.
    """
    if name not in RUNS:
        raise ValueError(f"unknown run {name!r}; accepted: {', '.join(RUNS)}")
    folder = cache / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    if fresh:
        (folder / "state.safetensors").unlink(missing_ok=True)
    render_store(cache / "toyscape" / "train", "train", recipe.scenes)
    data = validation_set(cache / "toyscape" / f"val-{recipe.validation_scenes}.npz", recipe.validation_scenes)
    with parallel.team(processes or os.cpu_count() or 1, _follow, name, recipe, cache, start):
        trainer, store = _prepare(name, recipe, cache, start)
        _lead(trainer, store, data, folder, RUNS[name])
    return folder / "best.safetensors"
