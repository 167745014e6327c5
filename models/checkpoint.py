"""Training state on disk: tensors as safetensors, the rest as JSON; each file replaced whole, never half-written."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from models.network import Network


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any] | None = None) -> None:
    """Write tensors to `path` in one step."""
    partial = path.with_name(path.name + ".partial")
    strings = {key: json.dumps(value) for key, value in (metadata or {}).items()}
    save_file({name: value.detach().contiguous().clone() for name, value in tensors.items()}, partial, metadata=strings)
    os.replace(partial, path)


def _optimiser_tensors(number: int, optimiser: Optimizer) -> dict[str, Tensor]:
    state = optimiser.state_dict()["state"]
    return {
        f"optimiser.{number}.{index}.{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, entry in state.items()
        for key, value in entry.items()
        if value is not None
    }


def save_state(
    folder: Path, model: nn.Module, average: dict[str, Tensor], optimisers: list[Optimizer], progress: dict[str, Any]
) -> None:
    """Everything needed to go on later, in one file."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for number, optimiser in enumerate(optimisers):
        tensors |= _optimiser_tensors(number, optimiser)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / "state.safetensors", tensors, {"progress": progress})


def load_state(
    folder: Path, model: nn.Module, average: dict[str, Tensor], optimisers: list[Optimizer]
) -> dict[str, Any]:
    """Fill model, average and optimisers from `save_state`'s file; returns the progress record."""
    path = folder / "state.safetensors"
    tensors = load_file(path)
    model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    for name, value in average.items():
        value.copy_(tensors[f"average.{name}"])
    for number, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, Tensor]] = {}
        prefix = f"optimiser.{number}."
        for name, value in tensors.items():
            if name.startswith(prefix):
                index, key = name[len(prefix) :].split(".", 1)
                state.setdefault(int(index), {})[key] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    progress: dict[str, Any] = json.loads(read_metadata(path)["progress"])
    return progress


def deepened(state: dict[str, Tensor], depth: int, wanted: int) -> dict[str, Tensor]:
    """The state of a network with `wanted` blocks that answers as the one with `depth` blocks does.

    Old blocks are spread over the new depth; a block that repeats another starts as its copy with silent outputs
    (Gong et al. 2019, "Efficient training of BERT by progressively stacking"; silent as in Chen et al. 2016, Net2Net).
    """
    if wanted < depth:
        raise ValueError(f"weights of {depth} blocks cannot start a network of {wanted}")
    sources = [number * depth // wanted for number in range(wanted)]
    grown = {name: value for name, value in state.items() if ".blocks." not in name}
    for number, source in enumerate(sources):
        silent = source in sources[:number]
        for name, value in state.items():
            match = re.fullmatch(rf"(.*\.blocks\.){source}(\..*)", name)
            if match:
                mute = silent and match[2].startswith((".attn.proj", ".fc2"))
                grown[f"{match[1]}{number}{match[2]}"] = torch.zeros_like(value) if mute else value.clone()
    return grown


def load_start(path: Path, network: Network) -> dict[str, Any]:
    """Fill a network from the weights in `path`, deepened if they have fewer blocks, other heads left out; returns
    their training record."""
    metadata = read_metadata(path)
    depth = json.loads(metadata["config"])["depth"]
    wanted = network.state_dict()
    stored = {name: value for name, value in load_file(path).items() if ".blocks." in name or name in wanted}
    network.load_state_dict(deepened(stored, depth, network.config.depth))
    record: dict[str, Any] = json.loads(metadata["record"])
    return record


def read_metadata(path: Path) -> dict[str, str]:
    """The string table in a safetensors file's header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
    found: dict[str, str] = header.get("__metadata__", {})
    return found
