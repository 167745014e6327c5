"""Plots as SVG text: lines with points, and stacked areas over time. Nothing is loaded from outside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 48, 84
COLOURS = ("#1f6fb4", "#d1601f", "#2e8b57", "#8b4db0", "#b8336a", "#7a6a1c", "#4d7c8a", "#555555")


@dataclass(frozen=True)
class Series:
    """A named line or layer. `spans`, where given, are low and high of an interval drawn at each point."""

    name: str
    points: Sequence[tuple[float, float | None]]
    """x and y; a y of None leaves a gap."""
    colour: str = ""
    dashed: bool = False
    spans: Sequence[tuple[float, float] | None] = field(default=())


@dataclass(frozen=True)
class Scale:
    """From values to pixels."""

    low: float
    high: float
    first: float
    last: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies; beyond the ends it is held at them."""
        low, high, value = (self._of(each) for each in (self.low, self.high, value))
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return self.first + share * (self.last - self.first)

    def _of(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.log else value

    def ticks(self) -> list[float]:
        """Round values: powers of ten with 2 and 5 between, or about six equal steps."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            kept: list[float] = []
            for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
                every = [10.0**power * step for power in powers for step in steps]
                kept = [value for value in every if self.low <= value <= self.high * 1.0001]
                if len(kept) >= 4:
                    break
            return kept
        rough = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def lines(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    *,
    log_y: bool = False,
    marks: Sequence[tuple[float, str]] = (),
    limit: tuple[float, str] | None = None,
) -> str:
    """A line for each series. `marks` are upright lines at an x, `limit` one level line at a y, both with a word."""
    kept = [(x, y) for one in series for x, y in one.points if y is not None and (y > 0 or not log_y)]
    if not kept:
        return _empty(title)
    ys = [y for _, y in kept] + ([limit[0]] if limit else [])
    ys += [end for one in series for span in one.spans if span for end in span if end > 0 or not log_y]
    x, y = _x_scale([x for x, _ in kept]), _y_scale(ys, log_y)
    parts = _frame(title, x_label, y_label, x, y) + _marks(marks, x)
    if limit:
        height = y.at(limit[0])
        parts.append(_stroke(LEFT, height, WIDTH - RIGHT, height, "#b00020", "4 3"))
        parts.append(_text(WIDTH - RIGHT - 4, height - 5, limit[1], "end", colour="#b00020"))
    for number, one in enumerate(series):
        parts += _line(one, _colour(one, number), x, y, log_y)
    return _whole(parts + _legend(series))


def _line(one: Series, colour: str, x: Scale, y: Scale, log_y: bool) -> list[str]:
    parts, piece = [], list[str]()
    few = len(one.points) <= 40
    for number, (across, up) in enumerate(one.points):
        if up is None or (log_y and up <= 0):
            parts.append(_path(piece, colour, one.dashed))
            piece = []
            continue
        left, top = x.at(across), y.at(up)
        piece.append(f"{left:.1f},{top:.1f}")
        if few:
            parts.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3.2" fill="{colour}"/>')
        span = one.spans[number] if number < len(one.spans) else None
        if span:
            parts.append(_stroke(left, y.at(span[0]), left, y.at(span[1]), colour))
    return [*parts, _path(piece, colour, one.dashed)]


def _path(piece: list[str], colour: str, dashed: bool) -> str:
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return (
        f'<polyline points="{" ".join(piece)}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>' if piece else ""
    )


def stacks(
    title: str,
    x_label: str,
    y_label: str,
    edges: Sequence[float],
    series: Sequence[tuple[str, Sequence[float], str]],
    *,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """Layers on top of one another over time. `edges` are the n + 1 ends of n intervals; a series is a name, n values
    and a colour ("" for the next one)."""
    number = len(edges) - 1
    tops = [sum(values[at] for _, values, _ in series) for at in range(number)]
    if not series or number < 1 or max(tops) <= 0:
        return _empty(title)
    x, y = Scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT), _y_scale([0.0, max(tops)], False)
    parts = _frame(title, x_label, y_label, x, y)
    below = [0.0] * number
    legend = []
    for order, (name, values, colour) in enumerate(series):
        colour = colour or COLOURS[order % len(COLOURS)]
        above = [low + value for low, value in zip(below, values, strict=True)]
        if any(values):
            parts.append(f'<polygon points="{_area(edges, below, above, x, y)}" fill="{colour}" fill-opacity="0.85"/>')
            legend.append(Series(name, (), colour))
        below = above
    return _whole(parts + _marks(marks, x) + _legend(legend))


def _area(edges: Sequence[float], below: list[float], above: list[float], x: Scale, y: Scale) -> str:
    """The outline of a layer: its steps forward on top, and back at the bottom."""

    def steps(heights: list[float]) -> list[str]:
        return [
            f"{x.at(edge):.1f},{y.at(height):.1f}"
            for at, height in enumerate(heights)
            for edge in (edges[at], edges[at + 1])
        ]

    return " ".join(steps(above) + steps(below)[::-1])


# --- parts of a picture ----------------------------------------------------------------------------------------------


def _x_scale(values: Sequence[float]) -> Scale:
    low, high = min([0.0, *values]), max(values)
    return Scale(low, high * 1.02 if high > low else low + 1, LEFT, WIDTH - RIGHT)


def _y_scale(values: Sequence[float], log: bool) -> Scale:
    if log:
        low, high = min(value for value in values if value > 0), max(values)
        return Scale(low / 1.3, high * 1.3, HEIGHT - BOTTOM, TOP, log=True)
    high = max(values)
    return Scale(0.0, high * 1.08 if high > 0 else 1.0, HEIGHT - BOTTOM, TOP)


def _frame(title: str, x_label: str, y_label: str, x: Scale, y: Scale) -> list[str]:
    parts = [_text(LEFT, 24, title, "start", 16, weight="600")]
    for value in x.ticks():
        parts.append(_stroke(x.at(value), TOP, x.at(value), HEIGHT - BOTTOM, "#e6e6e6"))
        parts.append(_text(x.at(value), HEIGHT - BOTTOM + 17, f"{value:g}", "middle"))
    for value in y.ticks():
        parts.append(_stroke(LEFT, y.at(value), WIDTH - RIGHT, y.at(value), "#e6e6e6"))
        parts.append(_text(LEFT - 8, y.at(value) + 4, f"{value:g}", "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 37, x_label, "middle"))
    parts.append(_text(LEFT - 56, TOP - 8, y_label, "start"))
    return parts


def _marks(marks: Sequence[tuple[float, str]], x: Scale) -> list[str]:
    parts = []
    for number, (value, word) in enumerate(marks):
        if x.low <= value <= x.high:
            parts.append(_stroke(x.at(value), TOP, x.at(value), HEIGHT - BOTTOM, "#777777", "2 3"))
            parts.append(_text(x.at(value) + 3, TOP + 12 + 13 * (number % 2), word, "start", 11))
    return parts


def _legend(series: Sequence[Series]) -> list[str]:
    parts, left, top = [], float(LEFT), HEIGHT - 26.0
    for number, one in enumerate(series):
        width = 34 + 7.2 * len(one.name)
        if left + width > WIDTH - RIGHT and left > LEFT:
            left, top = float(LEFT), top + 17
        parts.append(_stroke(left, top - 4, left + 18, top - 4, _colour(one, number), "6 4" if one.dashed else "", 4))
        parts.append(_text(left + 24, top, one.name, "start"))
        left += width
    return parts


def _colour(one: Series, number: int) -> str:
    return one.colour or COLOURS[number % len(COLOURS)]


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, dash: str = "", width: float = 1.2) -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width:g}"{dashes}/>'


def _text(
    x: float, y: float, words: str, anchor: str, size: int = 12, weight: str = "400", colour: str = "#222222"
) -> str:
    style = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def _empty(title: str) -> str:
    middle = _text(WIDTH / 2, HEIGHT / 2, "nothing was measured", "middle")
    return _whole([_text(LEFT, 24, title, "start", 16, weight="600"), middle])


def _whole(parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui, sans-serif" role="img">'
    )
    return f'{head}<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>'
