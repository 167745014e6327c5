"""Trained weights to a model directory: ONNX graph, reference answers, manifest."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from models import manifest
from models.backbones.vit import VitConfig
from models.checkpoint import read_metadata
from models.graph.nodes import expand
from models.graph.translations import TRANSLATIONS
from models.graph.weights import HALF, name_weights
from models.levels import FULL, plan
from models.network import TASKS, Network
from models.reference import KEPT, kept_answers, standard_levels
from models.served import Levelled, Served
from models.sources.artefact import Source, fill, staged
from models.toyscape import CLASSES, render, split
from models.validate import centre_square

OPSET = 20
REFERENCE_SCENES = 8
FITS: dict[str, manifest.Fit] = {"classify": "crop", "detect": "stretch", "segment": "stretch"}


def load_network(weights: Path | None, task: str) -> tuple[Network, dict[str, Any]]:
    """The network with one head, and the training record; without a file the weights are fresh (and useless)."""
    if weights is None:
        torch.manual_seed(0)
        return Network(VitConfig(), len(CLASSES), (task,)), {"note": "untrained"}
    metadata = read_metadata(weights)
    network = Network(VitConfig.recorded(json.loads(metadata["config"])), len(CLASSES), (task,))
    wanted = network.state_dict()
    network.load_state_dict({name: value for name, value in load_file(weights).items() if name in wanted})
    record: dict[str, Any] = json.loads(metadata["record"])
    return network, record


def serving_image(jpeg: bytes, fit: manifest.Fit, side: int) -> NDArray[np.uint8]:
    """A JPEG as the network gets it [side, side, 3]: the Pillow reference of the service's decoder."""
    picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
    if fit == "crop":
        return np.asarray(centre_square(picture, side))
    if fit == "stretch":
        return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))
    raise ValueError(f"fit {fit!r} is not used here; accepted: crop, stretch")


def reference_images(fit: manifest.Fit, side: int) -> Tensor:
    """The first validation scenes, uint8 [8, side, side, 3]."""
    scenes = [render(split("val", number)) for number in range(REFERENCE_SCENES)]
    return torch.from_numpy(np.stack([serving_image(scene.jpeg(), fit, side) for scene in scenes]))


def to_onnx(model: nn.Module, images: Tensor) -> onnx.ModelProto:
    """The graph with a dynamic batch and the names of the graph contract.

    `model` names its `outputs`. If its level is an input, it has `examples` of what its forward takes besides images.
    """
    level: dict[str, Tensor] = getattr(model, "examples", {})
    program = torch.onnx.export(
        model,
        (images[:2],),
        kwargs=level,
        dynamo=True,
        opset_version=OPSET,
        input_names=["images", *level],
        output_names=list(model.outputs),
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}, **dict.fromkeys(level)},
        custom_translation_table=TRANSLATIONS,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    graph = program.model_proto
    if not graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise RuntimeError("the exporter took the batch size for a constant")
    expand(graph)
    return graph


def store_half(graph: onnx.ModelProto) -> None:
    """Keep large weights as fp16 with a Cast back to fp32, in place; refuses weights that fp16 would change."""
    casts = []
    for tensor in graph.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < 256 or values.ndim < 2:
            continue
        half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            raise ValueError(f"weight {tensor.name!r} is not rounded to fp16")
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, name + HALF))
        casts.append(helper.make_node("Cast", [name + HALF], [name], to=TensorProto.FLOAT, name=name + ".cast"))
    # Casts first: ONNX nodes stand in topological order.
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def strip(graph: onnx.ModelProto) -> None:
    """Remove the exporter's notes (source lines, machine paths), in place."""
    graph.graph.name = "squint"
    graph.doc_string = ""
    del graph.metadata_props[:]
    for item in (
        *graph.graph.node,
        *graph.graph.value_info,
        *graph.graph.input,
        *graph.graph.output,
        *graph.graph.initializer,
    ):
        item.doc_string = ""
        del item.metadata_props[:]
    del graph.graph.metadata_props[:]


def narrowed(record: dict[str, Any]) -> bool:
    """Whether a training record tells of steps with half of the MLPs' hidden units."""
    stages: list[dict[str, Any]] = record.get("recipe", [])
    return any(stage.get("narrow") for stage in stages) or ("start" in record and narrowed(record["start"]))


def export(task: manifest.Task, weights: Path | None, zoo: Path, name: str = "", version: str = "1") -> Path:
    """Write `zoo/NAME/VERSION/` (by default toyscape-TASK), whole or not at all; returns it."""
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; accepted: {', '.join(TASKS)}")
    network, record = load_network(weights, task)
    served = Served(network, task, ("1/2",) if narrowed(record) else ())
    images = reference_images(FITS[task], network.config.side)
    trunk = served.levels(images)
    levelled = Levelled(served)
    graph = to_onnx(levelled, images)
    strip(graph)
    name_weights(graph, levelled)
    store_half(graph)
    onnx.checker.check_model(graph)
    full = plan(FULL, trunk)
    source = Source(
        task=task,
        labels=["background", *CLASSES] if task == "segment" else list(CLASSES),
        licence="Apache-2.0",
        transform=manifest.Transform(fit=FITS[task], height=network.config.side, width=network.config.side),
        graph=graph.SerializeToString(),
        gmacs=full.gmacs,
        tokens=full.tokens,
        trunk=trunk,
        training={**record, "network": asdict(network.config)},
    )
    answers = {"images": images.numpy(), **numpy_outputs(served.at(images, full))}
    answers.pop("tokens", None)
    for level in standard_levels(trunk):
        answers |= kept_answers(level, numpy_outputs(served.at(images[:KEPT], plan(level, trunk))))
    name = name or f"toyscape-{task}"
    with staged(zoo, name, version) as partial:
        fill(partial, source, name, answers, version)
    return zoo / name / version


def numpy_outputs(outputs: dict[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Outputs by name as arrays."""
    return {name: value.numpy() for name, value in outputs.items()}
