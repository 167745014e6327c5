"""Levels: how an operating point of a model is spelled, what it feeds the graph, and what it costs.

A *named* level (`full`, `balanced`) stands in a manifest for an explicit one. An explicit level is one or more parts
joined with `+` (a space does as well: that is what an unescaped `+` in a query becomes):

    tome:13          merge 13 tokens away in every block
    tome:16,-1       a schedule that falls linearly from 32 to 0 (inflect -1: the first block's count is 16 * (1 + 1))
    tome:64/40/16    a count per block, 0 in the blocks not named
    width:1/2        the first half of every MLP's hidden units
    lookup:5x7       a compressed grid of 5 rows and 7 columns

Costs are multiply-accumulates, counted as the papers of the field do: convolutions, linear layers, and the two
products of attention; no norms, softmax, merging or resampling.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import msgspec

FULL = "full"


class LevelError(ValueError):
    """A level that a model cannot be served at; the message is one line and says what it takes."""


class Trunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a backbone's levels depend on.

    `blocks` of `width` channels and `hidden` MLP units over `patches` patches after `prefix` tokens that are never
    merged. `fixed` counts the MACs that no level changes: stem and head. `merge` says that the graph takes counts to
    merge, `shares` which shares of the hidden units it can be cut to besides 1, `grid` the least and largest side of
    a compressed grid; a lookup trunk has `grid`, and no other axis.
    """

    kind: Literal["vit", "lookup"] = "vit"
    blocks: int
    width: int
    hidden: int
    patches: int
    prefix: int
    fixed: int
    merge: bool = False
    shares: tuple[str, ...] = ()
    grid: tuple[int, int] | None = None


class Plan(msgspec.Struct, frozen=True):
    """A level worked out for one model: its one spelling, the graph's integer inputs, and its cost.

    `inputs` maps `merge` to tokens to remove per block, `hidden` to MLP units per block, `grid` to (rows, columns).
    `tokens` is how many are left after the last block (of a lookup trunk: the compressed ones).
    """

    level: str
    inputs: dict[str, tuple[int, ...]]
    tokens: int
    gmacs: float


def constant(count: int, blocks: int) -> tuple[int, ...]:
    """The same count in every block."""
    return (count,) * blocks


def sloped(count: int, inflect: float, blocks: int) -> tuple[int, ...]:
    """Counts on a line through (mean) `count`: falling for a negative `inflect`, rising for a positive one."""
    low = int(count * (1 + inflect)) if inflect > 0 else int(count * (1 - inflect))
    first, last = (2 * count - low, low) if inflect > 0 else (low, 2 * count - low)
    step = (last - first) / (blocks - 1) if blocks > 1 else 0.0
    return tuple(int(first + step * number) for number in range(blocks))


def clamp(tokens: int, count: int, prefix: int) -> int:
    """How many of `count` tokens can be merged away at once: at most half of the patches."""
    return max(0, min(count, (tokens - prefix) // 2))


def trace(tokens: int, counts: tuple[int, ...], prefix: int = 1) -> tuple[int, ...]:
    """How many of `tokens` (prefix included) are left after each block."""
    left = []
    for count in counts:
        tokens -= clamp(tokens, count, prefix)
        left.append(tokens)
    return tuple(left)


def block_macs(attending: int, feeding: int, width: int, hidden: int) -> int:
    """MACs of one transformer block with `attending` tokens in its attention and `feeding` in its MLP."""
    return 4 * attending * width**2 + 2 * attending**2 * width + 2 * feeding * width * hidden


def lookup_block_macs(patches: int, compressed: int, width: int) -> int:
    """MACs of one LookupViT block (arXiv 2407.12753) whose lookup tokens' MLP is half as wide as the trunk."""
    products = (3 * patches * compressed + 2 * compressed**2) * width
    return products + (4 * patches + 15 * compressed) * width**2


def vit_macs(trunk: Trunk, merge: tuple[int, ...], hidden: tuple[int, ...]) -> int:
    """MACs of a ViT: what is fixed, and its blocks; merging sits between a block's attention and its MLP."""
    total, tokens = trunk.fixed, trunk.prefix + trunk.patches
    for left, units in zip(trace(tokens, merge, trunk.prefix), hidden, strict=True):
        total += block_macs(tokens, left, trunk.width, units)
        tokens = left
    return total


def plan(level: str, trunk: Trunk | None) -> Plan:
    """Work out an explicit level, or `full`, for a model with this trunk (None: one without levels).

    Raises LevelError.
    """
    if trunk is None:
        raise LevelError(f"this model has no levels but {FULL}")
    merge, units, grid = constant(0, trunk.blocks), constant(trunk.hidden, trunk.blocks), (0, 0)
    parts: dict[str, str] = {}
    for part in [] if level == FULL else re.split(r"[+ ]", level):
        axis, _, value = part.partition(":")
        if axis in parts:
            raise LevelError(f"{axis!r} stands twice in {level!r}")
        if axis == "tome" and trunk.merge:
            parts[axis], merge = _merge(value, trunk)
        elif axis == "width" and trunk.shares:
            parts[axis], units = _width(value, trunk)
        elif axis == "lookup" and trunk.grid:
            parts[axis], grid = _grid(value, trunk.grid)
        else:
            raise LevelError(f"unknown level {level!r}; {grammar(trunk)}")
    if trunk.grid:
        return _lookup_plan(trunk, parts, grid)
    left = (trunk.prefix + trunk.patches, *trace(trunk.prefix + trunk.patches, merge, trunk.prefix))
    inputs: dict[str, tuple[int, ...]] = {}
    if trunk.merge:
        inputs["merge"] = tuple(before - after for before, after in pairwise(left))  # never more than there is
    if trunk.shares:
        inputs["hidden"] = units
    return Plan(_spell(parts), inputs, left[-1], vit_macs(trunk, merge, units) / 1e9)


def _spell(parts: dict[str, str]) -> str:
    kept = [f"{axis}:{parts[axis]}" for axis in ("tome", "width", "lookup") if parts.get(axis)]
    return "+".join(kept) or FULL


def _lookup_plan(trunk: Trunk, parts: dict[str, str], grid: tuple[int, int]) -> Plan:
    """`full` is the largest grid."""
    rows, columns = grid if parts else (trunk.grid or (0, 0))[1:] * 2
    compressed = rows * columns
    macs = trunk.fixed + trunk.blocks * lookup_block_macs(trunk.patches, compressed, trunk.width)
    return Plan(_spell(parts), {"grid": (rows, columns)}, compressed, macs / 1e9)


def _merge(value: str, trunk: Trunk) -> tuple[str, tuple[int, ...]]:
    """Counts per block of what stands after `tome:`; a schedule that merges nothing is spelled as no part at all."""
    if match := re.fullmatch(r"(\d{1,4})(?:,(-?\d(?:\.\d{1,2})?))?", value):
        count, inflect = int(match[1]), float(match[2] or 0)
        if abs(inflect) > 1:
            raise LevelError(f"the slope in 'tome:{value}' is not between -1 and 1")
        counts = sloped(count, inflect, trunk.blocks)
        spelled = f"{count},{inflect:g}" if inflect and count else f"{count}"
    elif re.fullmatch(r"\d{1,4}(/\d{1,4})+", value):
        given = tuple(int(part) for part in value.split("/"))
        if len(given) > trunk.blocks:
            raise LevelError(f"'tome:{value}' names {len(given)} blocks, the model has {trunk.blocks}")
        counts = given + constant(0, trunk.blocks - len(given))
        spelled = "/".join(str(count) for count in given)
    else:
        raise LevelError(f"cannot read 'tome:{value}'; {grammar(trunk)}")
    if max(counts) > trunk.patches:
        raise LevelError(f"'tome:{value}' merges more than the {trunk.patches} patches there are")
    return (spelled if any(counts) else ""), counts


def _width(value: str, trunk: Trunk) -> tuple[str, tuple[int, ...]]:
    if value in ("1", "1/1"):
        return "", constant(trunk.hidden, trunk.blocks)
    if value not in trunk.shares:
        raise LevelError(f"'width:{value}' is not offered; {grammar(trunk)}")
    return value, constant(int(trunk.hidden * Fraction(value)), trunk.blocks)


def _grid(value: str, sides: tuple[int, int]) -> tuple[str, tuple[int, int]]:
    match = re.fullmatch(r"(\d{1,2})x(\d{1,2})", value)
    rows, columns = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (sides[0] <= rows <= sides[1] and sides[0] <= columns <= sides[1]):
        raise LevelError(f"'lookup:{value}' is not ROWSxCOLUMNS with each from {sides[0]} to {sides[1]}")
    return f"{rows}x{columns}", (rows, columns)


def grammar(trunk: Trunk | None) -> str:
    """The explicit levels a model takes, in one line."""
    if trunk is None:
        return f"it has no levels but {FULL}"
    forms = []
    if trunk.merge:
        forms.append("tome:R, tome:R,SLOPE or tome:R/R/..")
    if trunk.shares:
        forms.append(" or ".join(f"width:{share}" for share in trunk.shares))
    if trunk.grid:
        forms.append(f"lookup:ROWSxCOLUMNS ({trunk.grid[0]} to {trunk.grid[1]})")
    joined = " (joined with +)" if len(forms) > 1 else ""
    return f"explicit levels are {', '.join(forms)}{joined}" if forms else f"it has no levels but {FULL}"
