"""Where the nodes of a graph run: none may have fallen back to the CPU.

A runtime that finds no kernel on the device runs a node on the CPU and copies its inputs and outputs, in the middle of
every block. That is slow and says nothing, so it is looked for whenever a level is loaded. Arithmetic on shapes is
forgiven: a model from outside may have some that is not known beforehand, its numbers are few, and kernels read them on
the CPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

CPU = "CPUExecutionProvider"

SHAPES = frozenset(
    (
        *("Shape", "Size", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Cast", "Identity", "ConstantOfShape"),
        *("Add", "Sub", "Mul", "Div", "Min", "Max", "ReduceProd", "Equal", "Where", "Range"),
    )
)
"""Kinds of nodes that compute shapes. Every one of them has a kernel on the device for what is no shape."""
_NAMED = 5
"""Kinds that a line names."""


class Node(NamedTuple):
    """One node of the graph that runs: the provider it was given to, what it does, and its name."""

    provider: str
    kind: str
    name: str


def fallen_back(nodes: Iterable[Node]) -> str:
    """Which nodes run on the CPU without computing shapes, in a few words; empty when none does."""
    strays = Counter(node.kind for node in nodes if node.provider == CPU and node.kind not in SHAPES)
    if not strays:
        return ""
    kinds = ", ".join(f"{count} x {kind}" for kind, count in strays.most_common(_NAMED))
    more = f" and {len(strays) - _NAMED} kinds more" if len(strays) > _NAMED else ""
    return f"{sum(strays.values())} nodes run on the CPU: {kinds}{more}"


def summary(nodes: Iterable[Node]) -> dict[str, int]:
    """How many nodes each provider runs."""
    return dict(Counter(node.provider for node in nodes))
