"""Trained weights to a model directory: ONNX graph, reference answers, manifest."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from models import manifest
from models.backbones.vit import VitConfig
from models.checkpoint import read_metadata
from models.cost import count_macs
from models.network import TASKS, Network
from models.served import Served
from models.toyscape import CLASSES, render, split
from models.validate import centre_square

OPSET = 20
GRAPH, REFERENCE = "model.onnx", "reference.safetensors"
REFERENCE_SCENES = 8
FITS: dict[str, manifest.Fit] = {"classify": "crop", "detect": "stretch", "segment": "stretch"}
TOLERANCES = {  # see `models.manifest.Tolerance`; bf16 answers must stay within these
    "classify": manifest.Tolerance(agreement=0.99, score=0.05),
    "detect": manifest.Tolerance(agreement=0.95, score=0.05),
    "segment": manifest.Tolerance(agreement=0.99, score=0.05),
}


def load_network(weights: Path | None, task: str) -> tuple[Network, dict[str, Any]]:
    """The network with one head, and the training record; without a file the weights are fresh (and useless)."""
    if weights is None:
        torch.manual_seed(0)
        return Network(VitConfig(), len(CLASSES), (task,)), {"note": "untrained"}
    metadata = read_metadata(weights)
    config = json.loads(metadata["config"])
    network = Network(VitConfig(**{**config, "stem": tuple(config["stem"])}), len(CLASSES), (task,))
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


def to_onnx(model: Served, images: Tensor) -> onnx.ModelProto:
    """The graph with a dynamic batch and the names of the graph contract."""
    program = torch.onnx.export(
        model,
        (images[:2],),
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=list(model.outputs),
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        verbose=False,
    )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    return program.model_proto


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
        tensor.CopyFrom(numpy_helper.from_array(half, name + ".half"))
        casts.append(helper.make_node("Cast", [name + ".half"], [name], to=TensorProto.FLOAT, name=name + ".cast"))
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


def export(task: manifest.Task, weights: Path | None, zoo: Path, version: str = "1") -> Path:
    """Write `zoo/toyscape-TASK/VERSION/`, whole or not at all; returns it."""
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; accepted: {', '.join(TASKS)}")
    network, record = load_network(weights, task)
    model = Served(network, task)
    images = reference_images(FITS[task], network.config.side)
    with torch.no_grad():
        answers = dict(zip(model.outputs, model(images), strict=True))
    graph = to_onnx(model, images)
    strip(graph)
    store_half(graph)
    onnx.checker.check_model(graph)
    final = zoo / f"toyscape-{task}" / version
    partial = final.with_name(f".{version}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    onnx.save(graph, partial / GRAPH)
    tensors = {"images": images, **{name: value.contiguous() for name, value in answers.items()}}
    save_file(tensors, partial / REFERENCE)
    for file in partial.iterdir():
        file.chmod(0o644)  # safetensors writes 0600; a container may serve as another user
    gmacs = sum(count_macs(model, images).values()) / 1e9
    manifest.write(partial, _describe(partial, task, version, network.config, gmacs, record))
    _swap_in(partial, final)
    manifest.load(final)
    return final


def _describe(
    directory: Path, task: manifest.Task, version: str, config: VitConfig, gmacs: float, record: dict[str, Any]
) -> manifest.Manifest:
    """The manifest of a directory that holds graph and reference."""
    return manifest.Manifest(
        format=manifest.FORMAT,
        name=f"toyscape-{task}",
        version=version,
        task=task,
        labels=["background", *CLASSES] if task == "segment" else list(CLASSES),
        licence="Apache-2.0",
        transform=manifest.Transform(fit=FITS[task], height=config.side, width=config.side),
        graph=GRAPH,
        reference=REFERENCE,
        files={file: manifest.describe_file(directory / file) for file in (GRAPH, REFERENCE)},
        levels=[manifest.Level(name="full", gmacs=round(gmacs, 4), tokens=1 + config.grid**2)],
        tolerance=TOLERANCES[task],
        training=record,
    )


def _swap_in(partial: Path, final: Path) -> None:
    """Put a finished directory in the place of an older one."""
    replaced = final.with_name(f".{final.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        os.replace(final, replaced)
    os.replace(partial, final)
    shutil.rmtree(replaced, ignore_errors=True)


def record_evaluation(directory: Path, evaluation: dict[str, Any], accuracy: float) -> None:
    """Write how good a model was found to be into its manifest; `accuracy` is that of the level `full`."""
    described = manifest.load(directory)
    levels = [
        msgspec.structs.replace(level, accuracy=accuracy) if level.name == "full" else level
        for level in described.levels
    ]
    manifest.write(directory, msgspec.structs.replace(described, evaluation=evaluation, levels=levels))
