"""Our operators in the exporter: one node each, of our own domain, with the operator's inputs and attributes."""

from __future__ import annotations

import torch
from onnxscript import FLOAT, INT64, opset18, script
from onnxscript.values import Opset

from models.graph import operators  # noqa: F401 - registers what is translated here
from models.graph.nodes import DOMAIN

squint = Opset(DOMAIN, 1)


@script(default_opset=opset18)
def _merge(
    x: FLOAT, size: FLOAT, group: INT64, keys: FLOAT, count: INT64, prefix: int, heads: int, start: int, width: int
) -> tuple[FLOAT, FLOAT, INT64]:
    a, b, c = squint.Merge(x, size, group, keys, count, prefix=prefix, heads=heads, start=start, width=width)
    return a, b, c


@script(default_opset=opset18)
def _restore(patches: FLOAT, group: INT64) -> FLOAT:
    return squint.Restore(patches, group)


@script(default_opset=opset18)
def _widen(x: FLOAT, normed: FLOAT, inner: FLOAT, bias: FLOAT, outer: FLOAT, units: INT64, least: int) -> FLOAT:
    return squint.Widen(x, normed, inner, bias, outer, units, least=least)


@script(default_opset=opset18)
def _resampling(side: INT64, source: int) -> FLOAT:
    return squint.Resampling(side, source=source)


TRANSLATIONS = {
    torch.ops.squint.merge.default: _merge,
    torch.ops.squint.restore.default: _restore,
    torch.ops.squint.widen.default: _widen,
    torch.ops.squint.resampling.default: _resampling,
}
"""For `torch.onnx.export(custom_translation_table=...)`; `models.graph.nodes.expand` has to follow."""
