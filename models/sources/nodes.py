"""A few ONNX nodes at a time, to put before or behind a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

LEAST_OPSET = 13
"""The nodes here are of this operator set; later ones read them the same way."""


class Nodes:
    """Collects nodes and constants; every method returns the name of a value."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output."""
        return self.several(op, 1, *inputs, **attributes)[0]

    def several(self, op: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """One node with several outputs."""
        names = [f"{self._prefix}/{op}{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def name(self, value: str, name: str) -> None:
        """Call a value `name`."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))

    def constant(self, values: NDArray[Any]) -> str:
        """A constant tensor."""
        name = f"{self._prefix}/constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def ints(self, *values: int) -> str:
        """A constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def floats(self, *values: float) -> str:
        """A constant float32 vector."""
        return self.constant(np.array(values, np.float32))

    def cast(self, value: str, kind: int) -> str:
        """Another element type."""
        return self.add("Cast", value, to=kind)

    def slice(self, value: str, axis: int, first: int, last: int) -> str:
        """Positions `first` to before `last` of an axis."""
        return self.add("Slice", value, self.ints(first), self.ints(last), self.ints(axis))


FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
