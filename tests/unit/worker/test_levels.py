"""A worker serves the levels it offers and every explicit one, and tells of tokens when it is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import manifest
from models.levels import plan
from service.backends.fake import Fake
from service.tasks.registry import TASKS
from service.wire.messages.decoder import Geometry
from service.wire.messages.results import Options
from service.wire.messages.worker import Done, Ran, Run, Timing, Undone, Work
from service.wire.pulse import Pulse
from service.wire.slots import Arena
from service.worker.batch import Answered, Bench
from service.worker.guard import Guard
from service.worker.load import Model
from service.worker.shelf import Shelf
from tests.contract import models

FULL, FAST = Timing("full", 0.02, 0.01), Timing("fast", 0.01, 0.005)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """Of the levels full, balanced and fast it offers the first and the last."""
    described = manifest.load(models.fake(tmp_path, levels={"balanced": "tome:4", "fast": "tome:8+width:1/2"}))
    return Model(described, Fake(described), TASKS["classify"], {"full": FULL, "fast": FAST}, 0.0)


def answers(model: Model, level: str, *options: Options) -> list[Answered]:
    pixels = Arena.create("pixels", len(options), model.image_bytes)
    for slot, image in enumerate(models.images(len(options), 32)):
        pixels.view(slot)[:] = image.tobytes()
    place = Geometry(32, 32, (0.0, 0.0, 32.0, 32.0))
    works = [Work(slot, slot, 1, place, option) for slot, option in enumerate(options)]
    guard = Guard(Pulse(Arena.create("board", 1, 16), 0))
    ran = Bench(pixels, Shelf({"m": model})).run(Run(1, "m", level, works), guard)
    assert isinstance(ran, Ran)
    return [*ran.items]


@pytest.mark.parametrize(
    ("level", "timing"),
    [("full", FULL), ("fast", FAST), ("tome:3", FULL), ("width:1/2", FULL), ("balanced", None), ("tome:x", None)],
)
def test_an_explicit_level_has_the_time_of_the_highest(model: Model, level: str, timing: Timing | None) -> None:
    assert model.timing(level) == timing


@pytest.mark.parametrize("level", ["full", "fast", "tome:3", "tome:64/0/0/5+width:1/2"])
def test_it_is_served_and_tells_its_tokens(model: Model, level: str) -> None:
    silent, told = answers(model, level, Options(), Options(explain="tokens"))
    assert isinstance(silent, Done) and silent.tokens is None
    assert isinstance(told, Done) and told.tokens is not None
    planned = plan({"fast": "tome:8+width:1/2"}.get(level, level), models.TRUNK)
    assert told.tokens.grid == (8, 8)
    assert len(told.tokens.sizes) + models.TRUNK.prefix == planned.tokens
    assert sum(told.tokens.sizes) == sum(length for _, length in told.tokens.runs) == 64


@pytest.mark.parametrize("level", ["balanced", "tome:x", "tiny"])
def test_what_it_does_not_serve_is_said_of_each_item(model: Model, level: str) -> None:
    found = answers(model, level, Options(), Options())
    assert [one.code for one in found if isinstance(one, Undone)] == ["unknown_level"] * 2


def test_a_graph_that_tells_no_tokens_costs_its_own_item_alone(tmp_path: Path) -> None:
    described = manifest.load(models.fake(tmp_path))
    model = Model(described, Fake(described), TASKS["classify"], {"full": FULL}, 0.0)
    first, second = answers(model, "full", Options(explain="tokens"), Options())
    assert isinstance(first, Undone) and first.code == "internal"
    assert isinstance(second, Done)
