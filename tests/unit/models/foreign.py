"""Small ONNX graphs such as other people's exporters write them, for tests of bringing them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Node = tuple[str, list[str], list[str], dict[str, Any]]
Dims = Sequence[Any]


def model(
    nodes: Sequence[Node],
    inputs: Mapping[str, tuple[int, Dims]],
    outputs: Mapping[str, tuple[int, Dims]],
    weights: dict[str, NDArray[Any]],
    opset: int = 17,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model of these nodes; each is (operator, inputs, outputs, attributes), a dot in the operator its domain."""
    made = []
    for op, taken, given, attributes in nodes:
        domain, _, kind = op.rpartition(".")
        made.append(helper.make_node(kind, taken, given, domain=domain, **attributes))
    graph = helper.make_graph(
        made,
        "foreign",
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="foreign")


def classifier(
    *,
    classes: int = 3,
    layout: str = "nchw",
    batch: int | str = "N",
    side: int | str = 8,
    kind: int = TensorProto.FLOAT,
    ending: str = "",
    opset: int = 17,
) -> onnx.ModelProto:
    """Mean colour times a matrix, flattened by a Reshape; `ending` is an operator on the logits, such as Softmax."""
    dims: Dims = [batch, 3, side, side] if layout == "nchw" else [batch, side, side, 3]
    element = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    first: list[Node] = [("Cast", ["pixels"], ["x"], {"to": TensorProto.FLOAT})] if kind == TensorProto.UINT8 else []
    x = "x" if first else "pixels"
    axes = [2, 3] if layout == "nchw" else [1, 2]
    rows = batch if isinstance(batch, int) else -1
    nodes: list[Node] = [
        *first,
        ("ReduceMean", [x], ["mean"], {"axes": axes, "keepdims": 1}),
        ("Reshape", ["mean", "flat"], ["rows"], {}),
        ("MatMul", ["rows", "weight"], ["scores"], {}),
        (ending or "Identity", ["scores"], ["out"], {"axis": 1} if ending == "Softmax" else {}),
    ]
    weights = {
        "flat": np.array([rows, 3], np.int64),
        "weight": np.random.default_rng(5).normal(0, 1, (3, classes)).astype(element),
    }
    result = TensorProto.FLOAT if kind == TensorProto.UINT8 else kind
    return model(nodes, {"pixels": (kind, dims)}, {"out": (result, [batch, classes])}, weights, opset)


def passing(outputs: Mapping[str, tuple[int, Dims]], values: dict[str, NDArray[Any]], side: int = 8) -> onnx.ModelProto:
    """A model that answers constants [1, ...] for every image, whatever it shows: detectors with known boxes."""
    nodes: list[Node] = [
        ("Shape", ["image"], ["shape"], {}),
        ("Gather", ["shape", "zero"], ["count"], {"axis": 0}),
    ]
    weights: dict[str, NDArray[Any]] = {"zero": np.array([0], np.int64)}
    for name, value in values.items():
        weights |= {f"{name}_value": value, f"{name}_tail": np.ones(value.ndim - 1, np.int64)}
        nodes += [
            ("Concat", ["count", f"{name}_tail"], [f"{name}_shape"], {"axis": 0}),
            ("Expand", [f"{name}_value", f"{name}_shape"], [name], {}),
        ]
    return model(nodes, {"image": (TensorProto.FLOAT, ["N", 3, side, side])}, outputs, weights)


def written(folder: Path, made: onnx.ModelProto, transform: str, labels: Sequence[str]) -> tuple[Path, Path, Path]:
    """The files of a model, its labels and its transform, in a folder."""
    paths = folder / "model.onnx", folder / "labels.txt", folder / "transform.toml"
    onnx.save(made, paths[0])
    paths[1].write_text("\n".join(labels) + "\n")
    paths[2].write_text(transform)
    return paths
