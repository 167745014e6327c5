"""Classifiers of the timm library: weights, input, labels and licence as timm describes them."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Any, cast

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_data_config
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor, nn

from models.manifest import Fit, Transform
from models.sources.artefact import SourceError
from models.sources.preparation import Preparation

RANDOM, PRETRAINED = "random", "pretrained"
SEED = 0
CLASSES = 1000
"""Of a backbone without a classifier, when its weights are random and no labels say how many there are."""
FITS: dict[str, Fit] = {"center": "crop", "squash": "stretch", "border": "letterbox"}
HUB_FILE = "model.safetensors"
HUB_SECONDS = 10.0
SHOWN = 3
Colour = tuple[float, float, float]


def described(name: str) -> PretrainedCfg:
    """How timm describes the network `name`, with or without a tag. Raises SourceError."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(name):
        near = difflib.get_close_matches(architecture, timm.list_models(), SHOWN)
        similar = f"; it has {', '.join(near)}" if near else ""
        raise SourceError(f"timm/{name}: timm {timm.__version__} has no such model{similar}")
    try:
        return get_pretrained_cfg(name) or PretrainedCfg()
    except RuntimeError:
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
        raise SourceError(f"timm/{name}: no weights are called {tag!r}; there are {', '.join(tags)}") from None


def create(name: str, weights: str, labels: int | None, preparation: Preparation) -> nn.Module:
    """The network `name` in evaluation mode.

    `weights` is `random` (always the same ones), `pretrained` (from the hub) or a safetensors file; `labels` is how
    many labels were given. Raises SourceError.
    """
    config = described(name)
    options: dict[str, Any] = {}
    if preparation.height or preparation.width:
        if not (config.fixed_input_size and preparation.height and preparation.width):
            raise SourceError(f"timm/{name}: give both height and width, of a model of fixed input size, or neither")
        options["img_size"] = (preparation.height, preparation.width)
    torch.manual_seed(SEED)
    if weights == RANDOM:
        model = _built(name, num_classes=labels or config.num_classes or CLASSES, **options)
    elif weights == PRETRAINED:
        if not config.num_classes:
            raise SourceError(f"timm/{name}: its pretrained weights have no classifier; a file with one is needed")
        file = str(download(name, config))
        model = _built(name, pretrained=True, pretrained_cfg_overlay={"file": file}, **options)
    else:
        state = _read(Path(weights))
        classes = _classes_in(state, config) or labels or config.num_classes
        model = _built(name, num_classes=classes or CLASSES, **options)
        take(model, state, weights)
    return model.eval().requires_grad_(False)


def _built(name: str, **options: Any) -> nn.Module:
    try:
        return cast(nn.Module, timm.create_model(name, exportable=True, **options))
    except (RuntimeError, ValueError, TypeError, AssertionError, KeyError) as error:
        raise SourceError(f"timm/{name}: {_line(error)}") from error


def download(name: str, config: PretrainedCfg) -> Path:
    """The pretrained weights' file, from the hub or its cache; one short question first, as the hub's own client
    retries for minutes. Raises SourceError."""
    repository = config.hf_hub_id
    if not repository:
        raise SourceError(f"timm/{name}: timm names no place on the hub for its weights")
    cached = try_to_load_from_cache(repository, HUB_FILE)
    if isinstance(cached, str):
        return Path(cached)
    try:
        get_hf_file_metadata(hf_hub_url(repository, HUB_FILE), timeout=HUB_SECONDS)
        return Path(hf_hub_download(repository, HUB_FILE, etag_timeout=HUB_SECONDS))
    except Exception as error:  # of several HTTP libraries and the hub's own
        raise SourceError(
            f"timm/{name}: {HUB_FILE} of {repository} cannot be fetched from the hub ({_line(error)}); is there a "
            "network? otherwise give --weights a file"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise SourceError(f"--weights {path}: expected random, pretrained, or a file that ends in .safetensors")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path}: {_line(error)}") from None


def _classes_in(state: dict[str, Tensor], config: PretrainedCfg) -> int | None:
    """How many classes the weights are for; None if they do not say."""
    names = [config.classifier] if isinstance(config.classifier, str) else [*(config.classifier or ())]
    found = [state[f"{name}.weight"] for name in names if f"{name}.weight" in state]
    return len(found[0]) if found else None


def take(model: nn.Module, state: dict[str, Tensor], file: str) -> None:
    """Fill a network with the weights of a file, which must have its names and shapes. Raises SourceError."""
    wanted = model.state_dict()
    missing, surplus = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shapes = {name: (tuple(state[name].shape), tuple(value.shape)) for name, value in wanted.items() if name in state}
    differing = [f"{name} {own} instead of {right}" for name, (own, right) in shapes.items() if own != right]
    parts = (("without", missing), ("with, unknown here,", surplus), ("with other shapes:", differing))
    problems = [f"{words} {_first(names)}" for words, names in parts if names]
    if problems:
        raise SourceError(f"{file}: not the weights of this model: {'; '.join(problems)}")
    model.load_state_dict(state)


def _first(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def input_of(model: nn.Module, preparation: Preparation) -> tuple[Transform, Colour, Colour]:
    """How images are fitted, and the mean and standard deviation of pixel / 255 by channel, as the network was
    evaluated by its authors, but for what the preparation says otherwise. Raises SourceError.

    A margin around the image (`crop_pct` above 1, which three networks want) is left away.
    """
    data = resolve_data_config({}, model=model)
    channels, height, width = data["input_size"]
    if channels != 3:
        raise SourceError(f"the network takes {channels} channels, expected 3")
    fit = FITS[data["crop_mode"]]
    keep = height / math.floor(height / data["crop_pct"]) if fit != "letterbox" else 1.0
    mean, std = preparation.mean or tuple(data["mean"]), preparation.std or tuple(data["std"])
    factor = preparation.divisor / 255
    transform = Transform(
        fit=fit,
        height=height,
        width=width,
        keep=min(keep, 1.0),
        fill=cast("tuple[int, int, int]", tuple(round(255 * value) for value in data["mean"])),
        filter="bilinear" if data["interpolation"] == "bilinear" else "bicubic",
    )
    own = tuple(value * factor for value in mean), tuple(value * factor for value in std)
    return preparation.applied(transform), cast(Colour, own[0]), cast(Colour, own[1])


def labels_of(model: nn.Module) -> list[str]:
    """The names of an ImageNet's classes, when there are as many as one of them has; otherwise numbers."""
    subset = infer_imagenet_subset(model)
    if subset is None:
        return [f"class {number}" for number in range(model.num_classes)]
    return cast("list[str]", ImageNetInfo(subset).label_descriptions())


def licence_of(model: nn.Module, weights: str) -> str:
    """The licence of the weights, as far as timm knows it."""
    if weights == RANDOM:
        return "none (random weights)"
    known = model.pretrained_cfg.get("license") if weights == PRETRAINED else None
    return str(known or "unknown")
