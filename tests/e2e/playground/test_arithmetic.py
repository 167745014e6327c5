"""The pure functions of the page, against the service's own and COCO's."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from service.decoder.fitting import place
from service.wire.messages.decoder import Fitting
from tests.e2e.playground.browser import Visit

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
Open = Callable[..., Visit]


def test_run_lengths_are_read_as_coco_tools_read_them(visit: Open) -> None:
    page = visit().page
    draw = random.Random(5)
    script = """async ([counts, height, width, tall, wide]) => {
        const masks = await import("/playground/masks.js");
        return [masks.area(masks.runs(counts)), [...masks.classMap([{ index: 7, counts }], height, width, tall, wide)]];
    }"""
    for _ in range(12):
        height, width = draw.randint(1, 60), draw.randint(1, 60)
        share = draw.choice((0.0, 0.1, 0.5, 1.0))
        mask = (np.random.default_rng(draw.randrange(1 << 30)).random((height, width)) < share).astype(np.uint8)
        counts = coco.encode(np.asfortranarray(mask))["counts"].decode()
        tall, wide = draw.choice(((height, width), (max(1, height // 2), max(1, width // 3)), (height * 2, width * 3)))
        area, seen = page.evaluate(script, [counts, height, width, tall, wide])
        rows = ((np.arange(tall) + 0.5) * height / tall).astype(int)
        columns = ((np.arange(wide) + 0.5) * width / wide).astype(int)
        assert area == int(mask.sum())
        assert np.array_equal(np.array(seen).reshape(tall, wide), mask[rows][:, columns] * 7)


@pytest.mark.parametrize("fit", ["crop", "stretch", "letterbox"])
def test_the_map_lies_where_the_model_looked(visit: Open, fit: Any) -> None:
    page = visit().page
    script = "async ([w, h, input]) => (await import('/playground/tokens.js')).placed(w, h, input)"
    for width, height, keep in ((640, 480, 1.0), (480, 640, 0.875), (100, 3000, 1.0), (224, 224, 0.9)):
        fitting = {"fit": fit, "width": 224, "height": 192, "keep": keep}
        box = place(width, height, Fitting(**fitting, fill=(0, 0, 0), filter="bicubic")).geometry.box
        assert page.evaluate(script, [width, height, fitting]) == pytest.approx(box, abs=1e-6)


def test_quantiles_are_those_of_the_histogram(visit: Open) -> None:
    page = visit().page
    text = "\n".join([
        'squint_request_seconds_bucket{task="classify",outcome="ok",le="0.01"} 50.0',
        'squint_request_seconds_bucket{task="classify",outcome="ok",le="0.1"} 90.0',
        'squint_request_seconds_bucket{task="classify",outcome="ok",le="+Inf"} 100.0',
        'squint_request_seconds_bucket{task="classify",outcome="overloaded",le="+Inf"} 7.0',
        'squint_request_seconds_count{task="classify",outcome="ok"} 100.0',
        'squint_request_seconds_count{task="classify",outcome="overloaded"} 7.0',
        'squint_request_seconds_count{task="classify",outcome="client_closed_request"} 99.0',
        'squint_level_served_total{model="a\\"}b",level="fast",asked="auto"} 100.0',
    ])  # fmt: skip
    script = """async (text) => {
        const metrics = await import("/playground/metrics.js");
        const now = metrics.between(metrics.reading("", 0), metrics.reading(text, 10000));
        return [now.p50, metrics.quantile(0.25, new Map([["0.01", 50], ["+Inf", 100]])), now.p99,
            now.answered, now.refused, now.levels.get("fast"),
            metrics.between(metrics.reading(text, 0), metrics.reading(text, 10)).p50];
    }"""
    p50, p25, p99, answered, refused, fast, none = page.evaluate(script, text)
    assert (p50, p25) == (pytest.approx(10.0), pytest.approx(0.005))
    # Slower than the last bound: the bound is all that is known.
    assert p99 == pytest.approx(100.0)
    assert (answered, refused, fast, none) == (pytest.approx(10.0), pytest.approx(0.7), 100, None)
