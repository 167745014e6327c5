"""The weights in an exported graph under their PyTorch names, so that a model's directory is all it takes to ask
PyTorch: the exporter keeps the names of vectors and kernels, but not those of the matrices that it transposes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

TRANSPOSED, RESHAPED = ".T", ".flat"
HALF = ".half"


def name_matrices(graph: onnx.ModelProto, model: nn.Module) -> None:
    """Give weights that are `model`'s the parameter's name, in place: with `.T` what is a matrix transposed, with
    `.flat` what has another shape."""
    known: dict[tuple[tuple[int, ...], bytes], str] = {}
    flat: dict[tuple[int, bytes], str] = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        flat.setdefault((values.size, _digest(values)), name + RESHAPED)
        if parameter.ndim == 2:
            known[values.T.shape, _digest(values.T)] = name + TRANSPOSED
            known[values.shape, _digest(values)] = name
    taken = {tensor.name for tensor in graph.graph.initializer}
    flat = {key: name for key, name in flat.items() if name.removesuffix(RESHAPED) not in taken}
    names: dict[str, str] = {}
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        digest = _digest(values)
        name = known.get((values.shape, digest)) or flat.get((values.size, digest), tensor.name)
        if name not in taken:
            taken.add(name)  # of two that are alike, one
            names[tensor.name] = tensor.name = name
    for node in _nodes(graph.graph):
        node.input[:] = [names.get(value, value) for value in node.input]


def _digest(values: NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values).data).digest()


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
        if name.endswith(RESHAPED) and name.removesuffix(RESHAPED) in parameters:
            name = name.removesuffix(RESHAPED)
            if values.size == parameters[name].numel():
                values = values.reshape(parameters[name].shape)
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


def idle(model: nn.Module, images: torch.Tensor) -> set[str]:
    """The parameters that the first output does not depend on, which the exporter leaves out."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    with torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad_(True)
        found = torch.autograd.grad(model(images)[0].sum(), parameters, allow_unused=True)
    model.requires_grad_(False)
    return {name for name, gradient in zip(names, found, strict=True) if gradient is None}
