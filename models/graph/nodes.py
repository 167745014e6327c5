"""What our operators become in an ONNX graph: standard nodes, the same for every runtime.

The exporter writes each as one node of our own domain (`models.graph.translations`); `expand` replaces these.

A step that a level may leave out is an `If` whose other branch hands its input on; that costs what copying it costs.
Measured against the alternatives (shorter slices in place of branches, ranks by comparison and one-hot products in
place of sorting and gathering) on ONNX Runtime and OpenVINO: the same time, or worse. Two things matter to OpenVINO:
keys are read from what the linear layer wrote, as a second reader of the split ones undoes fusions that every run
needs; and constants stand inside the branch, as each that comes from outside is copied at every run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

DOMAIN = "squint"
END = np.iinfo(np.int64).max


class Nodes:
    """Collects nodes; every call adds one and returns the name of its output. Names begin with `name`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.all: list[onnx.NodeProto] = []
        self._constants: dict[tuple[object, ...], str] = {}

    def __call__(self, kind: str, *inputs: str, **attributes: object) -> str:
        return self.several(kind, 1, *inputs, **attributes)[0]

    def several(self, kind: str, outputs: int, *inputs: str, **attributes: object) -> list[str]:
        """A node with more than one output."""
        names = [f"{self.name}.{kind}.{len(self.all)}.{number}" for number in range(outputs)]
        self.all.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def constant(self, value: NDArray[np.generic]) -> str:
        """A constant, once."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            name = self._constants[key] = f"{self.name}.constant.{len(self._constants)}"
            tensor = numpy_helper.from_array(value, name)
            self.all.insert(0, helper.make_node("Constant", [], [name], value=tensor))
        return self._constants[key]

    def integers(self, *values: int) -> str:
        """A vector of integers."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        """A float."""
        return self.constant(np.array(value, np.float32))

    def count_to(self, end: str) -> str:
        """0, 1, .. below `end`, a vector of one integer."""
        zero, one = self.constant(np.array(0, np.int64)), self.constant(np.array(1, np.int64))
        return self("Range", zero, self("Squeeze", end), one)

    def named(self, **outputs: str) -> None:
        """Let values have these names instead of their own."""
        names = {value: name for name, value in outputs.items()}
        for node in self.all:
            for values in (node.input, node.output):
                values[:] = [names.get(value, value) for value in values]


Attributes = dict[str, int]


def _merge_nodes(new: Nodes, inputs: list[str], given: Attributes) -> list[str]:
    """One step of token merging, when there is any; see `models.reduction.tome` for what it computes."""
    x, size, group, keys, count = inputs
    prefix, one, two, last = given["prefix"], new.integers(1), new.integers(2), new.integers(-1)
    patches = new("Sub", new("Shape", x, start=1, end=2), new.integers(prefix))
    sources = new("Div", patches, two)
    merging = new("Min", count, sources)
    staying = new("Sub", sources, merging)

    def half(values: str, first: int) -> str:
        return new("Slice", values, new.integers(prefix + first), new.integers(END), one, two)

    def rows(values: str, index: str) -> str:
        return new("GatherND", values, new("Unsqueeze", index, last), batch_dims=1)

    start, heads, width = given["start"], given["heads"], given["width"]
    apart = new("Slice", keys, new.integers(start), new.integers(start + width), two)
    metric = new("ReduceMean", new("Reshape", apart, new.integers(0, 0, heads, width // heads)), two, keepdims=0)
    # No shorter than F.normalize lets them be.
    metric = new("Div", metric, new("Max", new("ReduceL2", metric, last), new.number(1e-12)))
    likeness = new("MatMul", half(metric, 1), new("Transpose", half(metric, 0), perm=[0, 2, 1]))
    best = new("ReduceMax", likeness, last, keepdims=0)
    _, order = new.several("TopK", 2, best, sources, axis=-1)
    merged = new("Slice", order, new.integers(0), merging, one)
    kept, _ = new.several("TopK", 2, new("Slice", order, merging, sources, one), staying, axis=-1, largest=0)
    into = new("ArgMax", rows(likeness, merged), axis=-1, keepdims=0)

    # What only stays is not weighed, which saves memory; its own size would cancel out.
    source, source_size = half(x, 1), half(size, 1)
    receiver_size = half(size, 0)
    gone_size = rows(source_size, merged)
    gone = new("Mul", rows(source, merged), gone_size)
    target = new("Unsqueeze", into, last)
    grown = new("ScatterElements", receiver_size, target, gone_size, axis=1, reduction="add")
    everywhere = new("Expand", target, new("Shape", gone))
    weighed = new("Mul", half(x, 0), receiver_size)
    summed = new("ScatterElements", weighed, everywhere, gone, axis=1, reduction="add")

    def joined(values: str, staying_values: str, receiving: str) -> str:
        first = new("Slice", values, new.integers(0), new.integers(prefix), one)
        return new("Concat", first, staying_values, receiving, axis=1)

    sizes = joined(size, rows(source_size, kept), grown)
    means = joined(x, rows(source, kept), new("Div", summed, grown))

    places = new("Expand", new.count_to(staying), new("Shape", kept))
    place = new(
        "ScatterElements",
        new("Sub", order, order),
        new("Concat", kept, merged, axis=1),
        new("Concat", places, new("Add", into, staying), axis=1),
        axis=1,
    )
    halved = new("Div", group, two)
    was_source = new("Cast", new("Mod", group, two), to=TensorProto.BOOL)
    moved = new("GatherElements", place, new("Min", halved, new("Sub", sources, one)), axis=1)
    return [means, sizes, new("Where", was_source, moved, new("Add", halved, staying))]


def _restore_nodes(new: Nodes, inputs: list[str], given: Attributes) -> list[str]:
    patches, group = inputs
    return [new("GatherND", patches, new("Unsqueeze", group, new.integers(-1)), batch_dims=1)]


def _widen_nodes(new: Nodes, inputs: list[str], given: Attributes) -> list[str]:
    x, normed, inner, bias, outer, _ = inputs
    hidden = new("Add", new("MatMul", normed, new("Transpose", inner, perm=[1, 0])), bias)
    bell = new("Add", new("Erf", new("Mul", hidden, new.number(0.5**0.5))), new.number(1.0))
    active = new("Mul", new("Mul", hidden, new.number(0.5)), bell)
    return [new("Add", x, new("MatMul", active, new("Transpose", outer, perm=[1, 0])))]


def _resampling_nodes(new: Nodes, inputs: list[str], given: Attributes) -> list[str]:
    (side,) = inputs
    source = given["source"]
    scale = new("Div", new.number(source), new("Cast", side, to=TensorProto.FLOAT))
    targets = new("Cast", new.count_to(side), to=TensorProto.FLOAT)
    centres = new("Sub", new("Mul", new("Add", targets, new.number(0.5)), scale), new.number(0.5))
    away = new(
        "Abs", new("Sub", new.constant(np.arange(source, dtype=np.float32)), new("Unsqueeze", centres, new.integers(1)))
    )
    weights = new("Relu", new("Sub", new.number(1.0), new("Div", away, new("Max", scale, new.number(1.0)))))
    return [new("Div", weights, new("ReduceSum", weights, new.integers(1)))]


Build = Callable[[Nodes, list[str], Attributes], list[str]]
BUILDERS: dict[str, Build] = {
    "Merge": _merge_nodes,
    "Restore": _restore_nodes,
    "Widen": _widen_nodes,
    "Resampling": _resampling_nodes,
}
PASSED_ON = {"Merge": (0, 1, 2), "Restore": (0,), "Widen": (0,)}
"""Of an operator that may be left out: the inputs that are its outputs then."""


def _condition(kind: str, inputs: list[str], given: Attributes, new: Nodes) -> str:
    """Whether an operator has anything to do, as a vector of one."""
    if kind == "Merge":
        # Nothing but the count, so that it can be fixed before. A plan asks for no more than there is.
        return new("Greater", inputs[4], new.integers(0))
    if kind == "Widen":
        return new("Greater", inputs[5], new.integers(given["least"]))
    tokens, patches = new("Shape", inputs[0], start=1, end=2), new("Shape", inputs[1], start=1, end=2)
    return new("Less", tokens, patches)


def _branch(nodes: list[onnx.NodeProto], outputs: list[str], kinds: list[int]) -> onnx.GraphProto:
    infos = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(outputs, kinds, strict=True)]
    return helper.make_graph(nodes, outputs[0], [], infos)


def _expanded(node: onnx.NodeProto, number: int) -> list[onnx.NodeProto]:
    kind, inputs, outputs = node.op_type, list(node.input), list(node.output)
    given = {attribute.name: attribute.i for attribute in node.attribute}
    name = f"{kind.lower()}.{number}"
    new = Nodes(name)
    found = BUILDERS[kind](new, inputs, given)
    if kind not in PASSED_ON:
        new.named(**dict(zip(outputs, found, strict=True)))
        return new.all
    kinds = [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64][: len(found)]
    ends = [f"{name}.then.{place}" for place in range(len(found))]
    new.named(**dict(zip(ends, found, strict=True)))
    kept = Nodes(f"{name}.else")
    unchanged = [kept("Identity", inputs[place]) for place in PASSED_ON[kind]]
    outer = Nodes(f"{name}.if")
    condition = outer("Squeeze", _condition(kind, inputs, given, outer))
    branches = {"then_branch": _branch(new.all, ends, kinds), "else_branch": _branch(kept.all, unchanged, kinds)}
    return [*outer.all, helper.make_node("If", [condition], outputs, name, **branches)]


def expand(graph: onnx.ModelProto) -> None:
    """Replace the nodes of our own domain by standard ones, in place."""
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(graph.graph.node):
        nodes += _expanded(node, number) if node.domain == DOMAIN else [node]
    fresh = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.graph.node[:]
    graph.graph.node.extend(fresh)
    domains = [item for item in graph.opset_import if item.domain != DOMAIN]
    del graph.opset_import[:]
    graph.opset_import.extend(domains)
    del graph.graph.value_info[:]
