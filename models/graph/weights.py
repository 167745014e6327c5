"""The weights in an exported graph under their PyTorch names, so that a model's directory is all it takes to ask
PyTorch. The exporter keeps the names of vectors and kernels, but not those of the matrices that it transposes; of small
weights that are alike it keeps one, and of a bias of zeros none. What names cannot say is noted in the metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

TRANSPOSED, RESHAPED = ".T", ".flat"
HALF, FOLDED = ".half", ".folded"
ALIKE, UNIFORM = "squint.alike:", "squint.uniform:"
"""Keys of notes, before a parameter's name: the tensor that has its values too; the number that each value is."""


def name_weights(graph: onnx.ModelProto, model: nn.Module) -> None:
    """Give weights that are `model`'s the parameter's name, in place: with `.T` what is a matrix transposed, with
    `.flat` what has another shape. Parameters that have no tensor of their own are noted, those that can be."""
    missing = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    named: set[str] = set()
    names: dict[str, str] = {}
    for tensor in graph.graph.initializer:
        if (wanted := missing.get(tensor.name)) is None:
            continue
        if np.array_equal(numpy_helper.to_array(tensor), wanted):
            del missing[tensor.name]
        else:  # such as a kernel that took in the batch norm after it
            names[tensor.name] = tensor.name = tensor.name + FOLDED
        named.add(tensor.name)
    forms = _forms(missing)
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        digest = _digest(values)
        for name, form in (*forms.get((values.shape, digest), ()), *forms.get((values.size, digest), ())):
            if missing.pop(name, None) is None:
                continue
            if tensor.name in named:
                graph.metadata_props.add(key=ALIKE + form, value=tensor.name)
            else:
                names[tensor.name] = tensor.name = form
                named.add(form)
    for name, values in missing.items():
        if values.size and (values == values.flat[0]).all():
            graph.metadata_props.add(key=UNIFORM + name, value=repr(float(values.flat[0])))
    for node in _nodes(graph.graph):
        node.input[:] = [names.get(value, value) for value in node.input]


def _forms(parameters: Mapping[str, NDArray[Any]]) -> dict[tuple[Any, bytes], list[tuple[str, str]]]:
    """By shape (or size, where another shape will do) and digest: the parameters' names, alone and with the suffix."""
    forms: dict[tuple[Any, bytes], list[tuple[str, str]]] = {}
    for name, values in parameters.items():
        digest = _digest(values)
        forms.setdefault((values.shape, digest), []).append((name, name))
        if values.ndim == 2:
            forms.setdefault((values.T.shape, _digest(values.T)), []).append((name, name + TRANSPOSED))
        forms.setdefault((values.size, digest), []).append((name, name + RESHAPED))
    return forms


def _digest(values: NDArray[Any]) -> bytes:
    """Of the type and the values, row by row."""
    digest = hashlib.sha256(values.dtype.str.encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.digest()


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


def fill(model: nn.Module, graph: onnx.ModelProto) -> set[str]:
    """Set the parameters of `model` that the graph has, in place; returns their names.

    Raises ValueError if a shape differs, or a note is no number.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    filled = set()
    for form, stored in _stored(graph):
        name, values = _named(form, stored)
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
    for note in graph.metadata_props:
        name = note.key.removeprefix(UNIFORM)
        if note.key.startswith(UNIFORM) and name in parameters:
            with torch.no_grad():
                parameters[name].fill_(float(note.value))
            filled.add(name)
    return filled


def _stored(graph: onnx.ModelProto) -> Iterator[tuple[str, NDArray[Any]]]:
    """The tensors by their names, and again by the names that notes give them."""
    tensors = {tensor.name.removesuffix(HALF): tensor for tensor in graph.graph.initializer}
    for name, tensor in tensors.items():
        yield name, numpy_helper.to_array(tensor)
    for note in graph.metadata_props:
        if note.key.startswith(ALIKE) and note.value in tensors:
            yield note.key.removeprefix(ALIKE), numpy_helper.to_array(tensors[note.value])


def _named(form: str, values: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    return (form.removesuffix(TRANSPOSED), values.T) if form.endswith(TRANSPOSED) else (form, values)


def idle(model: nn.Module, images: torch.Tensor) -> set[str]:
    """The parameters that the first output does not depend on, which the exporter leaves out."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    with torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad_(True)
        found = torch.autograd.grad(model(images)[0].sum(), parameters, allow_unused=True)
    model.requires_grad_(False)
    return {name for name, gradient in zip(names, found, strict=True) if gradient is None}
