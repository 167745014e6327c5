"""From the outputs of an ONNX graph to those of a task: nodes behind the graph, as a transform file says."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from models.manifest import Task, Transform
from models.sources.artefact import SourceError
from models.sources.nodes import Nodes
from models.sources.preparation import Detect, Preparation

LEAST_PROBABILITY = 1e-12
LEAST_SCORE = 0.001
"""Boxes below it do not take part when overlapping ones are sorted out."""
Values = dict[str, tuple[int, list[Any]]]
"""Output name -> element type and lengths after the batch; None where one is not known."""


@dataclass(frozen=True)
class Out:
    """An output of the graph: its name and lengths, None where one is not known; no lengths: nothing is known."""

    name: str
    dims: tuple[int | None, ...]

    @classmethod
    def of(cls, value: onnx.ValueInfoProto) -> Out:
        """As the graph declares it."""
        return cls(value.name, tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim))

    def renamed(self, name: str) -> Out:
        """The same under another name."""
        return replace(self, name=name)


def connect(
    nodes: Nodes, outs: dict[str, Out], task: Task, preparation: Preparation, fitting: Transform, labels: list[str]
) -> Values:
    """Nodes from the graph's outputs to the task's. Raises SourceError."""
    given = {name: getattr(preparation.outputs, name) for name in preparation.outputs.__struct_fields__}
    named = {name: text for name, text in given.items() if text is not None}
    if not named and len(outs) == 1:
        named = {{"classify": "logits", "detect": "boxes", "segment": "class_scores"}[task]: next(iter(outs))}
    found = {name: _column(nodes, outs, text, preparation.detect) for name, text in named.items()}
    build = {"classify": _classify, "detect": _detect, "segment": _segment}[task]
    return build(nodes, found, preparation, fitting, labels)


def _column(nodes: Nodes, outs: dict[str, Out], text: str, detect: Detect) -> Out:
    """The output that `name` or `name[4:84]` means, in fp32 if it is a part."""
    match = re.fullmatch(r"(.+)\[(\d{1,9}):(\d{1,9})\]", text)
    name = match[1] if match else text
    if name not in outs:
        raise SourceError(f"the graph has no output {name!r}; it has {', '.join(outs)}")
    out = outs[name]
    if match is None:
        return out
    first, last = int(match[2]), int(match[3])
    if len(out.dims) not in (0, 3):
        raise SourceError(f"output {name} has {len(out.dims)} dimensions; columns are of outputs with 3")
    axis = 1 if detect.columns == "middle" else 2
    most = out.dims[axis] if out.dims else None
    if first >= last or (most is not None and last > most):
        raise SourceError(f"{text}: no such columns; output {name} has {most or 'an unknown number'}")
    dims = list(out.dims or (None, None, None))
    dims[axis] = last - first
    return Out(nodes.slice(out.name, axis, first, last), tuple(dims))


def _only(found: dict[str, Out], task: str, *choices: tuple[str, ...]) -> tuple[str, ...]:
    """Which of the choices of outputs the file names, whole and alone. Raises SourceError."""
    optional = {"embedding", "objectness"}
    for choice in choices:
        if found.keys() - optional == set(choice):
            return choice
    words = ", or ".join(" and ".join(choice) for choice in choices)
    raise SourceError(f"[outputs] names {', '.join(found) or 'nothing'}; a model that does {task} has {words}")


def _rank(out: Out, name: str, *ranks: int) -> int:
    """How many dimensions it has; the first of `ranks` where that is not known. Raises SourceError."""
    rank = len(out.dims) or ranks[0]
    if rank not in ranks:
        raise SourceError(f"{name} has {rank} dimensions, expected {' or '.join(map(str, ranks))}")
    return rank


def _float(nodes: Nodes, out: Out) -> str:
    return nodes.cast(out.name, TensorProto.FLOAT)


def _classify(
    nodes: Nodes, found: dict[str, Out], preparation: Preparation, fitting: Transform, labels: list[str]
) -> Values:
    (kind,) = _only(found, "classify", ("logits",), ("probabilities",))
    out = found[kind]
    _rank(out, kind, 2, 4)
    if out.dims and out.dims[1] not in (None, len(labels)):
        raise SourceError(f"--labels holds {len(labels)} names, the graph answers {out.dims[1]} classes")
    value = nodes.add("Flatten", _float(nodes, out), axis=1)
    if kind == "probabilities":
        value = nodes.add("Log", nodes.add("Max", value, nodes.constant(np.array(LEAST_PROBABILITY, np.float32))))
    nodes.name(value, "logits")
    values: Values = {"logits": (TensorProto.FLOAT, [len(labels)])}
    if "embedding" in found:
        nodes.name(nodes.add("Flatten", _float(nodes, found["embedding"]), axis=1), "embedding")
        values["embedding"] = (TensorProto.FLOAT, [None])
    return values


def _segment(
    nodes: Nodes, found: dict[str, Out], preparation: Preparation, fitting: Transform, labels: list[str]
) -> Values:
    (kind,) = _only(found, "segment", ("mask",), ("class_scores",))
    out = found[kind]
    element = TensorProto.UINT8 if len(labels) <= 256 else TensorProto.UINT16
    value = out.name
    if kind == "mask":
        if _rank(out, kind, 3, 4) == 4:
            value = nodes.add("Squeeze", value, nodes.ints(1))
    else:
        _rank(out, kind, 4)
        dims = out.dims or (None,) * 4
        axis = next((axis for axis in (1, 3) if dims[axis] in (1, len(labels))), 1)
        if dims[axis] not in (None, 1, len(labels)):
            raise SourceError(f"class_scores is {list(dims)}, no length of which is that of {len(labels)} labels")
        if dims[axis] == 1:
            if len(labels) != 2:
                raise SourceError(f"class_scores has one channel, so 2 labels are needed, not {len(labels)}")
            threshold = nodes.constant(np.array(preparation.threshold, np.float32))
            value = nodes.add("Squeeze", nodes.add("Greater", _float(nodes, out), threshold), nodes.ints(axis))
        else:
            value = nodes.add("ArgMax", value, axis=axis, keepdims=0)
    nodes.name(nodes.cast(value, element), "mask")
    return {"mask": (element, [None, None])}


def _detect(
    nodes: Nodes, found: dict[str, Out], preparation: Preparation, fitting: Transform, labels: list[str]
) -> Values:
    detect = preparation.detect
    kinds = _only(found, "detect", ("boxes", "scores", "labels"), ("boxes", "class_scores"))
    for kind in kinds:
        _rank(found[kind], kind, *((3,) if kind in ("boxes", "class_scores") else (2, 3)))
    boxes = _corners(nodes, _rows(nodes, found["boxes"], detect), detect, fitting)
    if "labels" in kinds:
        scores, chosen = (
            nodes.add("Reshape", value, nodes.ints(0, -1))
            for value in (_float(nodes, found["scores"]), nodes.cast(found["labels"].name, TensorProto.INT64))
        )
    else:
        scores, chosen = _best(nodes, found, detect, len(labels))
    if detect.overlap is not None:
        scores = _without_overlaps(nodes, boxes, scores, chosen, detect)
    for name, value in zip(("boxes", "scores", "labels"), _top(nodes, boxes, scores, chosen, detect), strict=True):
        nodes.name(value, name)
    return {
        "boxes": (TensorProto.FLOAT, [None, 4]),
        "scores": (TensorProto.FLOAT, [None]),
        "labels": (TensorProto.INT64, [None]),
    }


def _rows(nodes: Nodes, out: Out, detect: Detect) -> str:
    """An output [B, N, columns] in fp32, whichever way round it is."""
    value = _float(nodes, out)
    return nodes.add("Transpose", value, perm=[0, 2, 1]) if detect.columns == "middle" else value


def _corners(nodes: Nodes, boxes: str, detect: Detect, fitting: Transform) -> str:
    """Boxes of any form as xyxy in 0..1 of the input."""
    if detect.form == "yxyx":
        boxes = nodes.add("Gather", boxes, nodes.ints(1, 0, 3, 2), axis=2)
    elif detect.form != "xyxy":
        place, size = nodes.slice(boxes, 2, 0, 2), nodes.slice(boxes, 2, 2, 4)
        if detect.form == "cxcywh":
            place = nodes.add("Sub", place, nodes.add("Mul", size, nodes.floats(0.5)))
        boxes = nodes.add("Concat", place, nodes.add("Add", place, size), axis=2)
    if detect.unit == "pixels":
        across, down = 1 / fitting.width, 1 / fitting.height
        boxes = nodes.add("Mul", boxes, nodes.floats(across, down, across, down))
    return boxes


def _best(nodes: Nodes, found: dict[str, Out], detect: Detect, classes: int) -> tuple[str, str]:
    """Each box's best class and its score, [B, N] both."""
    out = found["class_scores"]
    own = out.dims[1 if detect.columns == "middle" else 2] if out.dims else None
    wanted = classes + (detect.background != "none")
    if own is not None and own != wanted:
        raise SourceError(f"class_scores has {own} columns, expected {wanted} for {classes} labels")
    value = _rows(nodes, out, detect)
    if detect.activation == "softmax":
        value = nodes.add("Softmax", value, axis=2)
    elif detect.activation == "sigmoid":
        value = nodes.add("Sigmoid", value)
    if detect.background != "none":
        first = 1 if detect.background == "first" else 0
        value = nodes.slice(value, 2, first, first + classes)
    if "objectness" in found:
        chance = _rows(nodes, found["objectness"], detect)
        value = nodes.add("Mul", value, nodes.add("Sigmoid", chance) if detect.activation == "sigmoid" else chance)
    place = nodes.add("ArgMax", value, axis=2, keepdims=1)
    scores = nodes.add("GatherElements", value, place, axis=2)
    return nodes.add("Squeeze", scores, nodes.ints(2)), nodes.add("Squeeze", place, nodes.ints(2))


def _without_overlaps(nodes: Nodes, boxes: str, scores: str, chosen: str, detect: Detect) -> str:
    """Scores [B, N], those of boxes that a better one of their class overlaps set to 0.

    Classes are kept apart by moving the boxes of each to a place of their own.
    """
    apart = nodes.add("Mul", nodes.cast(chosen, TensorProto.FLOAT), nodes.floats(4.0))
    moved = nodes.add("Add", boxes, nodes.add("Unsqueeze", apart, nodes.ints(2)))
    selected = nodes.add(
        "NonMaxSuppression",
        moved,
        nodes.add("Unsqueeze", scores, nodes.ints(1)),
        nodes.ints(detect.most),
        nodes.floats(float(detect.overlap or 1)),
        nodes.floats(LEAST_SCORE),
    )
    places = nodes.add("Gather", selected, nodes.ints(0, 2), axis=1)
    count = nodes.slice(nodes.add("Shape", places), 0, 0, 1)
    kept = nodes.add(
        "ScatterND",
        nodes.add("Mul", scores, nodes.floats(0.0)),
        places,
        nodes.add("Expand", nodes.floats(1.0), count),
    )
    return nodes.add("Mul", scores, kept)


def _top(nodes: Nodes, boxes: str, scores: str, chosen: str, detect: Detect) -> tuple[str, str, str]:
    """The best of the boxes [B, N, 4], scores and labels [B, N]."""
    count = nodes.slice(nodes.add("Shape", scores), 0, 1, 2)
    most = nodes.add("Min", count, nodes.ints(detect.most))
    best, order = nodes.several("TopK", 2, scores, most, axis=1)
    index = nodes.add("Expand", nodes.add("Unsqueeze", order, nodes.ints(2)), nodes.ints(1, 1, 4))
    return (
        nodes.add("GatherElements", boxes, index, axis=1),
        best,
        nodes.add("GatherElements", chosen, order, axis=1),
    )
