"""The networks brought in as a user would (`squint models add timm/...`), with their levels named.

The weights are random, so that nothing has to be fetched; their head is spread so that classes do not tie. Speed does
not depend on them. Which levels are worth a name nobody can measure on them, so the names are given.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loadtest.images import scene
from models import manifest
from models.levels import plan
from models.manifest import Level
from tests.gpu.plan import Network, Settings
from tests.walls import ROOT

SEED, PHOTOS, SPREAD = 5, 16, 0.3


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    """Make those that are not there."""
    made: dict[str, Any] = {}
    for network in settings.networks:
        directory = settings.zoo / network.name / "1"
        if not directory.exists():
            add(network, settings)
        made[network.name] = {
            "levels": {level.name: level.explicit for level in named(directory, network)},
            "gmacs": {level.name: round(level.gmacs, 3) for level in manifest.load(directory).levels},
        }
        save({"networks": made})


def add(network: Network, settings: Settings) -> None:
    """`squint models add`."""
    weights = spread(network, settings.folder)
    words = ["models", "add", f"timm/{network.timm}", "--name", network.name, "--weights", str(weights)]
    subprocess.run([sys.executable, "-m", "squint", *words, "--to", str(settings.zoo)], cwd=ROOT, check=True)
    weights.unlink()


def spread(network: Network, folder: Path) -> Path:
    """Random weights whose classes differ: a file for `--weights`."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(SEED)
    model: Any = timm.create_model(network.timm, exportable=True).eval().requires_grad_(False)
    torch.nn.init.normal_(model.head.weight, std=SPREAD)
    side = network.side
    photos = np.stack([scene(side, side, np.random.default_rng(seed)) for seed in range(PHOTOS)])
    seen = torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 127.5 - 1
    common = model.forward_head(model.forward_features(seen), pre_logits=True).mean(0)
    model.head.bias.copy_(-model.head.weight @ common)  # without it every photo is of one class
    path = folder / f"{network.name}.safetensors"
    save_file(model.state_dict(), path)
    return path


def named(directory: Path, network: Network) -> list[Level]:
    """The levels of an artefact, after those of the network were named in its manifest."""
    described = manifest.load(directory)
    levels = [described.levels[0]]
    for name, explicit in network.levels.items():
        found = plan(explicit, described.trunk)
        levels.append(Level(name=name, explicit=explicit, gmacs=found.gmacs, tokens=found.tokens))
    if list(described.levels) != levels:
        manifest.write(directory, msgspec.structs.replace(described, levels=levels))
    return levels
