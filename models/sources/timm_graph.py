"""A timm network as an ONNX graph that obeys the graph contract, with its reference answers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.backbones.timm_vit import TimmVit, is_plain, trunk_of
from models.export import numpy_outputs, strip, to_onnx
from models.graph import operators
from models.graph.weights import fill, idle, name_weights
from models.levels import FULL, Plan, plan
from models.reduction.tokens import Tokens
from models.reference import KEPT, kept_answers, standard_levels
from models.served import Written
from models.sources.artefact import Source, SourceError
from models.sources.labels import check_count, read_labels
from models.sources.pictures import reference_images
from models.sources.pixels import Normalise, fold
from models.sources.preparation import Preparation, read_preparation
from models.sources.timm import RANDOM, create, input_of, labels_of, licence_of

Answers = dict[str, NDArray[Any]]


class Whole(nn.Module):
    """A network whose every answer costs the same."""

    outputs: tuple[str, ...] = ("logits",)
    precise: tuple[str, ...] = ()

    def __init__(self, model: nn.Module, normalise: Normalise) -> None:
        super().__init__()
        self.model, self.normalise = model, normalise
        self.eval()

    def forward(self, images: Tensor, merge_counts: Any = None) -> tuple[Tensor, ...]:
        """uint8 images [B, H, W, 3] to the outputs."""
        return (self.model(self.normalise(images)),)

    def at(self, images: Tensor, level: Plan) -> dict[str, Tensor]:
        """The outputs for images at a level, by name: what every other way of running it is compared with."""
        with torch.no_grad():
            return dict(zip(self.outputs, self(images, **self.arguments(level)), strict=True))

    def arguments(self, level: Plan) -> dict[str, tuple[int, ...]]:
        """A level as arguments of `forward`."""
        return {"merge_counts": level.inputs["merge"]} if "merge" in level.inputs else {}


class Merging(Whole):
    """A plain vision transformer; `tokens` [B, N] int32 is the group of each patch."""

    outputs = ("logits", "embedding", "tokens")
    precise = ("model.source.patch_embed", "model.source.head")

    def forward(self, images: Tensor, merge_counts: Any = None) -> tuple[Tensor, ...]:
        """uint8 images [B, H, W, 3] to the outputs, with `merge_counts` tokens merged away in each block."""
        answer = self.model(self.normalise(images), merge_counts)
        return answer.logits, answer.embedding, answer.group.to(torch.int32)


class Levelled(nn.Module):
    """A plain vision transformer as it is exported: how much is merged is an input."""

    outputs = Merging.outputs

    def __init__(self, served: Merging) -> None:
        super().__init__()
        self.served = served
        self.examples = {"merge": torch.full((len(served.model.blocks),), 2)}
        self.eval()

    def forward(self, images: Tensor, merge: Tensor) -> tuple[Tensor, ...]:
        """uint8 images [B, H, W, 3] and counts [blocks] int64 to the outputs."""
        model: TimmVit = self.served.model
        heard = [Written(block.attn.qkv) for block in model.blocks]

        def step(number: int, tokens: Tokens, keys: Tensor) -> Tokens:
            attention = model.blocks[number].attn
            written, width = heard[number].taken(), tokens.x.shape[2]
            count = merge[number : number + 1]
            prefix, heads = model.prefix, attention.heads
            if isinstance(attention.k_norm, nn.Identity):
                return operators.merge(tokens, written, count, prefix=prefix, heads=heads, start=width, width=width)
            return operators.merge(tokens, keys.transpose(1, 2).flatten(2), count, prefix=prefix, heads=heads)

        answer = model.run(self.served.normalise(images), step)
        return answer.logits, answer.embedding, answer.group.to(torch.int32)


def macs(model: nn.Module, images: Tensor) -> int:
    """Multiply-accumulates of convolutions and matrix products, those of attention among them, for one image."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(images[:1])
    return counter.get_total_flops() // 2


def bring_in(
    name: str, weights: str, labels: Path | None = None, transform: Path | None = None
) -> tuple[Source, Answers]:
    """The timm classifier `name` and its answers to the reference images. Raises SourceError.

    `weights` is `random`, `pretrained` or a safetensors file; `labels` and `transform` are files.
    """
    given = read_labels(labels) if labels else None
    preparation = read_preparation(transform) if transform else Preparation()
    model = create(name, weights, len(given) if given else None, preparation)
    names = check_count(given, model.num_classes) if given else labels_of(model)
    fitting, mean, std = input_of(model, preparation)
    images = torch.from_numpy(reference_images(fitting))
    licence = licence_of(model, weights)
    normalise = fold(model, model.pretrained_cfg.get("first_conv"), mean, std, images)
    served = serve(model, normalise)
    cost = macs(served, images)
    trunk = trunk_of(served.model, cost) if isinstance(served, Merging) else None
    full = plan(FULL, trunk) if trunk else Plan(FULL, {}, 0, cost / 1e9)
    source = Source(
        task="classify",
        labels=names,
        licence=licence,
        transform=fitting,
        graph=graph_of(served, images),
        gmacs=full.gmacs,
        tokens=full.tokens,
        trunk=trunk,
        training={
            "source": f"timm/{name}",
            "weights": Path(weights).name,
            "timm": timm.__version__,
            "built": {
                "classes": model.num_classes,
                "sides": (preparation.height, preparation.width),
                "mean": mean,
                "std": std,
                "folded": not normalise.scale,
            },
        },
    )
    answers = {"images": images.numpy(), **numpy_outputs(served.at(images, full))}
    if not np.isfinite(answers["logits"]).all():
        raise SourceError(f"timm/{name}: with these weights it answers what is no number")
    answers.pop("tokens", None)
    for level in standard_levels(trunk) if trunk else ():
        answers |= kept_answers(level, numpy_outputs(served.at(images[:KEPT], plan(level, trunk))))
    return source, answers


def serve(model: nn.Module, normalise: Normalise) -> Whole:
    """The network as it is served; takes it over."""
    return Merging(TimmVit(model), normalise) if is_plain(model) else Whole(model, normalise)


def graph_of(served: Whole, images: Tensor) -> bytes:
    """Its ONNX graph, whose weights have PyTorch's names."""
    levelled = Levelled(served) if isinstance(served, Merging) else served
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the exporter, about itself
        graph = to_onnx(levelled, images)
    strip(graph)
    name_weights(graph, levelled)
    return graph.SerializeToString()


def rebuilt(name: str, built: Mapping[str, Any], graph: bytes, images: Tensor) -> Whole:
    """The network of a graph that `bring_in` made of the timm model `name`, with the weights in it; `built` is what it
    wrote down, `images` are any that fit. Raises SourceError, and ValueError for a weight of another shape."""
    height, width = built["sides"]
    model = create(name, RANDOM, built["classes"], Preparation(height=height, width=width))
    normalise = Normalise(built["mean"], built["std"])
    if built["folded"]:
        normalise.fold_into(dict(model.named_modules())[model.pretrained_cfg["first_conv"]])
    served = serve(model, normalise)
    levelled = Levelled(served) if isinstance(served, Merging) else served
    filled = fill(levelled, onnx.load_from_string(graph))
    missing = {parameter for parameter, _ in levelled.named_parameters()} - filled
    if missing:
        prefix = "served." if levelled is not served else ""
        missing -= {f"{prefix}{parameter}" for parameter in idle(served, images)}
    if missing:
        raise SourceError(f"its graph has no weight {min(missing)!r}")
    return served
