"""Small vision transformers as ONNX graphs with seeded random weights, for tests that need a model but not a good one.

They follow the graph contract: `images` uint8 [B, H, W, 3] in, the task's outputs out, the batch dynamic; those with
levels also take `merge` and `hidden`, int64 [depth] each, and answer `tokens`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.graph.nodes import DOMAIN, expand
from models.levels import Trunk

OPSET = 18


@dataclass(frozen=True)
class Shape:
    """The size of a tiny transformer; patches are 16 x 16 pixels."""

    side: int = 64
    width: int = 32
    depth: int = 2
    heads: int = 2
    classes: int = 5
    kept: int = 6
    levels: bool = False

    @property
    def grid(self) -> int:
        """Patches per side."""
        return self.side // 16

    @property
    def trunk(self) -> Trunk | None:
        """What its levels depend on."""
        if not self.levels:
            return None
        return Trunk(
            blocks=self.depth,
            width=self.width,
            hidden=4 * self.width,
            patches=self.grid**2,
            prefix=0,
            fixed=1000,
            merge=True,
            shares=("1/2",),
        )


class _Graph:
    """Collects nodes and weights; every method returns the name of a value."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        return self.nodes_out(op, 1, *inputs, **attributes)[0]

    def nodes_out(self, op: str, outputs: int, *inputs: str, **attributes: object) -> list[str]:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def const(self, value: NDArray[np.generic]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def random(self, *shape: int, scale: float) -> str:
        return self.const(self._rng.normal(0, scale, shape).astype(np.float32))

    def linear(self, x: str, rows: int, columns: int, scale: float = 1.0) -> str:
        weight = self.random(rows, columns, scale=scale / rows**0.5)
        return self.node("Add", self.node("MatMul", x, weight), self.random(columns, scale=0.02))

    def norm(self, x: str, width: int) -> str:
        ones, zeros = self.const(np.ones(width, np.float32)), self.const(np.zeros(width, np.float32))
        return self.node("LayerNormalization", x, ones, zeros, axis=-1, epsilon=1e-6)

    def ours(self, op: str, outputs: int, *inputs: str, **attributes: int) -> list[str]:
        """A node that `models.graph.nodes` expands."""
        names = self.nodes_out(op, outputs, *inputs, **attributes)
        self.nodes[-1].domain = DOMAIN
        return names

    def attend(self, x: str, s: Shape, bias: str = "") -> tuple[str, str]:
        """Tokens after attention, and its keys [B, t, width]; `bias` is added per key."""
        size = s.width // s.heads
        y = self.norm(x, s.width)
        written = [self.linear(y, s.width, s.width) for _ in range(3)]
        parts = []
        for value, order in zip(written, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True):
            part = self.node("Reshape", value, self.ints(0, -1, s.heads, size))
            parts.append(self.node("Transpose", part, perm=order))
        scale = self.const(np.array(size**-0.5, np.float32))
        scores = self.node("Mul", self.node("MatMul", parts[0], parts[1]), scale)
        if bias:
            scores = self.node("Add", scores, bias)
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), parts[2])
        joined = self.node("Reshape", self.node("Transpose", mixed, perm=[0, 2, 1, 3]), self.ints(0, -1, s.width))
        return self.node("Add", x, self.linear(joined, s.width, s.width)), written[1]

    def feed(self, x: str, s: Shape) -> str:
        hidden = self.linear(self.norm(x, s.width), s.width, 4 * s.width)
        return self.node("Add", x, self.linear(self._gelu(hidden), 4 * s.width, s.width))

    def nested(self, x: str, s: Shape, units: str) -> str:
        """An MLP whose second half runs where it is wanted."""
        normed = self.norm(x, s.width)
        half = 2 * s.width
        x = self.node("Add", x, self.linear(self._gelu(self.linear(normed, s.width, half)), half, s.width))
        inner, bias = self.random(half, s.width, scale=s.width**-0.5), self.random(half, scale=0.02)
        return self.ours(
            "Widen", 1, x, normed, inner, bias, self.random(s.width, half, scale=half**-0.5), units, least=half
        )[0]

    def levelled(self, x: str, s: Shape) -> str:
        """The blocks of a network with levels; one token per patch again at the end, weighed by what it stands for."""
        batch = self.node("Shape", x, start=0, end=1)
        one = numpy_helper.from_array(np.ones(1, np.float32))
        size = self.node("ConstantOfShape", self.node("Concat", batch, self.ints(s.grid**2, 1), axis=0), value=one)
        numbers = self.const(np.arange(s.grid**2))
        group = self.node("Expand", numbers, self.node("Concat", batch, self.ints(s.grid**2), axis=0))
        for block in range(s.depth):
            bias = self.node("Unsqueeze", self.node("Transpose", self.node("Log", size), perm=[0, 2, 1]), self.ints(1))
            x, keys = self.attend(x, s, bias)
            count, units = (
                self.node("Slice", name, self.ints(block), self.ints(block + 1), self.ints(0))
                for name in ("merge", "hidden")
            )
            given = {"prefix": 0, "heads": s.heads, "start": 0, "width": s.width}
            x, size, group = self.ours("Merge", 3, x, size, group, keys, count, **given)
            x = self.nested(x, s, units)
        self.nodes.append(helper.make_node("Cast", [group], ["tokens"], to=TensorProto.INT32))
        return self.ours("Restore", 1, x, group)[0]

    def _gelu(self, x: str) -> str:
        erf = self.node("Erf", self.node("Mul", x, self.const(np.array(0.5**0.5, np.float32))))
        half = self.node("Mul", x, self.const(np.array(0.5, np.float32)))
        return self.node("Mul", half, self.node("Add", erf, self.const(np.array(1.0, np.float32))))

    def trunk(self, s: Shape) -> str:
        """Tokens [B, grid * grid, width]; the mean is not subtracted, which a random network does not mind."""
        x = self.node("Transpose", self.node("Cast", "images", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
        patch = self.random(s.width, 3, 16, 16, scale=2.0 / 255 / 768**0.5)
        x = self.node("Conv", x, patch, self.random(s.width, scale=0.1), strides=[16, 16])
        x = self.node("Transpose", self.node("Reshape", x, self.ints(0, s.width, s.grid**2)), perm=[0, 2, 1])
        x = self.node("Add", x, self.random(1, s.grid**2, s.width, scale=0.5))
        if s.levels:
            return self.norm(self.levelled(x, s), s.width)
        for _ in range(s.depth):
            x = self.feed(self.attend(x, s)[0], s)
        return self.norm(x, s.width)


def _classify(g: _Graph, s: Shape, x: str) -> dict[str, tuple[str, int, list[object]]]:
    mean = g.node("ReduceMean", x, g.ints(1), keepdims=0)
    logits = g.linear(mean, s.width, s.classes, scale=4.0)
    return {
        "logits": (logits, TensorProto.FLOAT, ["B", s.classes]),
        "embedding": (mean, TensorProto.FLOAT, ["B", s.width]),
    }


def _detect(g: _Graph, s: Shape, x: str) -> dict[str, tuple[str, int, list[object]]]:
    chances = g.node("Sigmoid", g.linear(x, s.width, s.classes, scale=2.0))
    best = g.node("ReduceMax", chances, g.ints(2), keepdims=0)
    labels = g.node("ArgMax", chances, axis=2, keepdims=0)
    scores, order = g.nodes_out("TopK", 2, best, g.ints(s.kept), axis=1)
    labels = g.node("GatherElements", labels, order, axis=1)
    halves = g.node("Sigmoid", g.linear(x, s.width, 4))
    steps = (np.arange(s.grid, dtype=np.float32) + 0.5) / s.grid
    centres = np.stack(np.meshgrid(steps, steps), -1).reshape(1, -1, 2)
    signs = np.array([-0.3, -0.3, 0.3, 0.3], np.float32)
    offsets = g.node("Mul", halves, g.const(signs))
    boxes = g.node("Add", offsets, g.const(np.concatenate([centres, centres], -1)))
    index = g.node("Expand", g.node("Unsqueeze", order, g.ints(2)), g.ints(1, 1, 4))
    boxes = g.node("GatherElements", boxes, index, axis=1)
    return {
        "boxes": (boxes, TensorProto.FLOAT, ["B", s.kept, 4]),
        "scores": (scores, TensorProto.FLOAT, ["B", s.kept]),
        "labels": (labels, TensorProto.INT64, ["B", s.kept]),
    }


def _segment(g: _Graph, s: Shape, x: str) -> dict[str, tuple[str, int, list[object]]]:
    best = g.node("ArgMax", g.linear(x, s.width, s.classes, scale=4.0), axis=2, keepdims=0)
    mask = g.node("Cast", g.node("Reshape", best, g.ints(0, s.grid, s.grid)), to=TensorProto.UINT8)
    return {"mask": (mask, TensorProto.UINT8, ["B", s.grid, s.grid])}


def graph(task: Literal["classify", "detect", "segment"], shape: Shape | None = None, seed: int = 7) -> bytes:
    """A whole model as bytes."""
    shape = shape or Shape()
    g = _Graph(seed)
    tokens = g.trunk(shape)
    heads = {"classify": _classify, "detect": _detect, "segment": _segment}
    outputs = []
    for name, (value, kind, dims) in heads[task](g, shape, tokens).items():
        g.nodes.append(helper.make_node("Identity", [value], [name]))
        outputs.append(helper.make_tensor_value_info(name, kind, dims))
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", shape.side, shape.side, 3])]
    if shape.levels:
        inputs += [
            helper.make_tensor_value_info(name, TensorProto.INT64, [shape.depth]) for name in ("merge", "hidden")
        ]
        outputs.append(helper.make_tensor_value_info("tokens", TensorProto.INT32, ["B", shape.grid**2]))
    body = helper.make_graph(g.nodes, "tiny", inputs, outputs, g.weights)
    domains = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(body, opset_imports=domains, ir_version=9)
    expand(model)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
