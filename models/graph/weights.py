"""The weights in an exported graph under their PyTorch names, so that a model's directory is all it takes to ask
PyTorch: the exporter keeps the names of vectors and kernels, but not those of the matrices that it transposes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

TRANSPOSED = ".T"
HALF = ".half"


def name_matrices(graph: onnx.ModelProto, model: nn.Module) -> None:
    """Give matrices that are `model`'s, or theirs transposed, the parameter's name (and `.T`), in place."""
    known: dict[tuple[tuple[int, ...], bytes], str] = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            values = parameter.detach().numpy()
            known[values.T.shape, values.T.tobytes()] = name + TRANSPOSED
            known[values.shape, values.tobytes()] = name
    taken = {tensor.name for tensor in graph.graph.initializer}
    names: dict[str, str] = {}
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        name = known.get((values.shape, values.tobytes()), tensor.name)
        if name not in taken:
            names[tensor.name] = tensor.name = name
    for node in _nodes(graph.graph):
        node.input[:] = [names.get(value, value) for value in node.input]


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


def fill(model: nn.Module, graph: onnx.ModelProto) -> set[str]:
    """Set the parameters of `model` that the graph has, in place; returns their names.

    Raises ValueError if a shape differs.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    filled = set()
    for tensor in graph.graph.initializer:
        name, values = _named(tensor)
        if name not in parameters:
            continue
        if values.shape != parameters[name].shape:
            raise ValueError(f"weight {name!r} is {values.shape} in the graph, not {tuple(parameters[name].shape)}")
        with torch.no_grad():
            parameters[name].copy_(torch.from_numpy(values.astype(np.float32)))
        filled.add(name)
    return filled


def _named(tensor: onnx.TensorProto) -> tuple[str, NDArray[Any]]:
    name, values = tensor.name.removesuffix(HALF), numpy_helper.to_array(tensor)
    return (name.removesuffix(TRANSPOSED), values.T) if name.endswith(TRANSPOSED) else (name, values)
