"""What an ONNX graph costs, by the shapes that can be inferred."""

from __future__ import annotations

import math

import onnx
from onnx import shape_inference


def count_macs(model: onnx.ModelProto, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of convolutions and matrix products for a first input of `shape`.

    Nodes whose shapes do not follow from it count nothing.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for dim, length in zip(fixed.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = length
    inferred = inferred_shapes(fixed)
    if inferred is None:
        return 0
    graph = inferred.graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return sum(_node_macs(node, shapes) for node in graph.node)


def inferred_shapes(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model, changed in place, with the shapes that follow from its inputs'; None if they cannot be worked out."""
    for value in model.graph.output:
        if value.type.tensor_type.HasField("shape"):
            for dim in value.type.tensor_type.shape.dim:
                dim.ClearField("dim_param")
    try:
        return shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # of a graph that runs, too
        return None


def _node_macs(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    first, second = (shapes.get(name, []) for name in node.input[:2])
    output = shapes.get(node.output[0], [])
    if not first or not second or not output:
        return 0
    if node.op_type == "Conv":
        return math.prod(output) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    if node.op_type == "Gemm":
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return math.prod(output) * first[0 if transposed else -1]
    return math.prod(output) * first[-1]
