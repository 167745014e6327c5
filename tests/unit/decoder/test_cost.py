"""What the decoder tells of an image's cost before decoding it."""

from __future__ import annotations

import math

import pytest
from PIL import Image

from service.config import Limits
from service.decoder import cost, headers, image, warmup
from service.decoder.fitting import place
from service.wire.messages.decoder import Fitting
from tests.unit.decoder.golden import GOLDEN
from tests.unit.decoder.own import jpeg_decoder as jpeg_decoder
from tests.unit.decoder.scenes import jpeg_header, jpeg_scan, photo, save

pytestmark = pytest.mark.usefixtures("jpeg_decoder")

LIMITS = Limits()
FITTING = Fitting(fit="crop", height=224, width=224, fill=(0, 0, 0))
ROOM = FITTING.height * FITTING.width * 3


def expected(data: bytes, fitting: Fitting = FITTING) -> float:
    header = headers.read(data, LIMITS)
    placing = place(*header.displayed, fitting)
    return cost.estimate(header, placing, image.shrink_of(header, placing), image.own(header) is not None)


@pytest.mark.parametrize("name", GOLDEN)
def test_every_kind_has_a_cost(name: str) -> None:
    assert 1e-4 < expected(GOLDEN[name]().data) < 0.1


def test_more_pixels_and_more_bytes_cost_more() -> None:
    for kind, options in {"JPEG": {}, "PNG": {}, "WEBP": {}, "WebP": {"lossless": True}}.items():
        costs = [expected(save(photo(side, side), kind.upper(), **options)) for side in (60, 250, 1000)]
        assert costs[0] < costs[1] < costs[2] / 3
    assert expected(save(photo(300, 300), "JPEG", quality=50)) < expected(save(photo(300, 300), "JPEG", quality=98))


def test_scans_cost() -> None:
    scene = photo(400, 300)
    once, often = (save(scene, "JPEG", progressive=progressive) for progressive in (False, True))
    assert expected(often) > 1.5 * expected(once)
    assert headers.read(often, LIMITS).scans == 10
    assert headers.read(once, LIMITS).scans == 1


def test_a_shrunk_jpeg_costs_less() -> None:
    data = save(photo(2400, 1800), "JPEG")
    header = headers.read(data, LIMITS)
    placing = place(*header.displayed, FITTING)
    assert image.shrink_of(header, placing) == 4
    own = image.own(header) is not None
    assert cost.estimate(header, placing, 4, own) < cost.estimate(header, placing, 1, own) / 2


def test_what_a_header_says_costs_even_with_no_data_behind_it() -> None:
    """An image of 25 megapixels is heavy however few its bytes."""
    assert expected(save(Image.new("RGB", (5000, 5000)), "PNG")) > 0.3
    assert expected(save(Image.new("RGB", (4900, 5000)), "WEBP", lossless=True, quality=0)) > 0.1
    assert expected(jpeg_header(5000, 5000, sof=0xC2) + jpeg_scan()) > 0.02


def test_a_heavy_image_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    data = save(photo(500, 375), "JPEG")
    monkeypatch.setattr(image, "read", fail)
    out = memoryview(bytearray(ROOM))
    with pytest.raises(cost.TooHeavy) as caught:
        image.decode(data, out, FITTING, LIMITS, expected(data) * 1.9, pace=2.0)
    assert caught.value.seconds == pytest.approx(2 * expected(data))
    assert not any(out)


def test_a_light_one_is() -> None:
    data = save(photo(500, 375), "JPEG")
    for most, pace in ((expected(data) * 2.1, 2.0), (math.inf, 1e9)):
        out = memoryview(bytearray(ROOM))
        image.decode(data, out, FITTING, LIMITS, most, pace)
        assert any(out)


def test_pace_is_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that takes three times as long it is three times as much."""
    ticks = iter(range(1000))
    header = headers.read(image.sample_photo(), LIMITS)
    assert header.displayed == (500, 375)
    for seconds in (0.001, 0.003):
        monkeypatch.setattr("time.process_time", lambda step=seconds: next(ticks) * step)
        assert warmup.pace(2) == pytest.approx(seconds / expected(image.sample_photo()))
