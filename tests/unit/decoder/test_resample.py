"""The resampler against Pillow, on the pixels that show every difference: black and white noise."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image

from service.decoder import bands
from service.decoder import resample as choice
from service.decoder.resample import resample
from tests.unit.decoder.scenes import Pixels, noise, photo


@pytest.fixture(autouse=True, params=["rust", "numpy"])
def resampler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test with each of the two."""
    if request.param == "numpy":
        monkeypatch.setattr(choice, "by_rust", bands.resample)
    elif importlib.util.find_spec("cykooz_resizer") is None:
        pytest.skip("no wheel of cykooz-resizer for this processor")


def both(
    image: Pixels, box: tuple[float, float, float, float], size: tuple[int, int], filter: str = "bicubic"
) -> tuple[Pixels, Pixels]:
    out = np.empty((size[1], size[0], 3), np.uint8)
    resample(image, box, out, filter)
    return out, np.asarray(Image.fromarray(image).resize(size, Image.Resampling[filter.upper()], box))


@pytest.mark.parametrize("filter", ["bicubic", "bilinear"])
@pytest.mark.parametrize("seed", range(8))
def test_equals_pillow_to_one_step(seed: int, filter: str) -> None:
    """Any sizes, any box, either order of the passes."""
    rng = np.random.default_rng(seed)
    for _ in range(25):
        width, height, columns, rows = (int(side) for side in rng.integers(1, 300, 4))
        image = np.repeat((noise(width, height, 1, seed) // 128) * 255, 3, axis=2)
        x0, y0 = rng.uniform(0, width * 0.6), rng.uniform(0, height * 0.6)
        box = (x0, y0, rng.uniform(x0 + width * 0.1, width), rng.uniform(y0 + height * 0.1, height))
        for part in (box, (0.0, 0.0, float(width), float(height))):
            got, expected = both(image, part, (columns, rows), filter)
            # A box goes through a float32 in Pillow, which moves sharp edges a little.
            assert np.abs(got.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2), (16384, 2), (2, 16384)])
def test_extreme_sizes(size: tuple[int, int]) -> None:
    image = photo(*size)
    for target in [(224, 224), (1, 1), (1, 300), (300, 1)]:
        got, expected = both(image, (0.0, 0.0, float(size[0]), float(size[1])), target)
        assert np.abs(got.astype(int) - expected).max() <= 2


def test_views_in_and_out() -> None:
    image = photo(90, 70)
    expected = np.empty((32, 40, 3), np.uint8)
    resample(np.ascontiguousarray(image[::-1, ::-1]), (5.0, 3.0, 80.0, 66.0), expected)
    canvas = np.zeros((50, 60, 3), np.uint8)
    resample(image[::-1, ::-1], (5.0, 3.0, 80.0, 66.0), canvas[4:36, 7:47])
    assert np.array_equal(canvas[4:36, 7:47], expected)
    canvas[4:36, 7:47] = 0
    assert not canvas.any()
