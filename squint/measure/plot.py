"""A profile as a picture: how accurate each level is against the time it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean

from PIL import Image, ImageDraw, ImageFont

from squint.measure.profile import Point, Profile, front

WIDTH, HEIGHT = 1120, 720
LEFT, RIGHT, TOP, BOTTOM = 110, 40, 70, 90
INK, FAINT, DOT, LINE = (30, 30, 30), (225, 225, 225), (150, 165, 185), (200, 80, 40)
STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Axis:
    """Values on a line of pixels; `at` is where a value lies."""

    low: float
    high: float
    first: int
    last: int

    def at(self, value: float) -> float:
        return self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first)

    def ticks(self) -> list[float]:
        """About six round values."""
        rough = (self.high - self.low) / 6
        power = 1e6
        while power > rough:
            power /= 10
        step = next((power * factor for factor in STEPS if power * factor >= rough), power * 10)
        first = int(self.low / step) + (self.low > 0)
        return [round(number * step, 10) for number in range(first, int(self.high / step) + 1)]


def _axis(values: Sequence[float], first: int, last: int) -> Axis:
    margin = max((max(values) - min(values)) * 0.08, 1e-3)
    return Axis(min(values) - margin, max(values) + margin, first, last)


def draw(profile: Profile, task: str, chosen: Mapping[str, Point], path: Path) -> None:
    """Write a PNG: every level a dot, the best of them on a line, those with a name labelled."""
    score = {point.level: 100 * point.score(task) for point in profile.points}
    milliseconds = {point.level: _milliseconds(point) for point in profile.points}
    x = _axis([0.0, *milliseconds.values()], LEFT, WIDTH - RIGHT)
    y = _axis(list(score.values()), HEIGHT - BOTTOM, TOP)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    small, large = ImageFont.load_default(18), ImageFont.load_default(24)
    for value in x.ticks():
        pen.line([(x.at(value), TOP), (x.at(value), HEIGHT - BOTTOM)], FAINT)
        pen.text((x.at(value), HEIGHT - BOTTOM + 10), f"{value:g}", INK, small, anchor="mt")
    for value in y.ticks():
        pen.line([(LEFT, y.at(value)), (WIDTH - RIGHT, y.at(value))], FAINT)
        pen.text((LEFT - 10, y.at(value)), f"{value:g}", INK, small, anchor="rm")
    places = {point.level: (x.at(milliseconds[point.level]), y.at(score[point.level])) for point in profile.points}
    best = [places[point.level] for point in front(profile.points, task)]
    if len(best) > 1:
        pen.line(best, LINE, 2)
    for level, (across, down) in places.items():
        colour = LINE if (across, down) in best else DOT
        pen.ellipse([across - 5, down - 5, across + 5, down + 5], colour)
        named = next((name for name, point in chosen.items() if point.level == level), "")
        if named:
            pen.ellipse([across - 9, down - 9, across + 9, down + 9], outline=INK, width=2)
            pen.text((across + 12, down + 6), f"{named} ({level})" if named != level else named, INK, small)
    pen.text((LEFT, 22), f"{profile.model} on {profile.variant}, {profile.scenes} scenes", INK, large)
    pen.text(
        ((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 30),
        "milliseconds per image, mean over batch sizes",
        INK,
        small,
        anchor="mm",
    )
    pen.text((14, TOP - 30), f"{_what(profile, task)}, %", INK, small)
    image.save(path, format="PNG")


def _milliseconds(point: Point) -> float:
    """Per image, the geometric mean over the batch sizes, by which levels are compared."""
    return 1000 * geometric_mean(seconds / size for size, seconds in point.seconds.items())


def _what(profile: Profile, task: str) -> str:
    if "agreement" in profile.points[0].scores:
        return "agreement with full"
    return {"classify": "top-1", "detect": "mAP@0.5", "segment": "mIoU"}[task]
