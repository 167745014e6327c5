"""Images of which only a part becomes pixels, beside the same images decoded whole by the library."""

from __future__ import annotations

import numpy as np
import pytest

from service.config import Limits
from service.decoder import baseline, image
from service.wire.messages.decoder import Fitting
from tests.unit.decoder.golden import GOLDEN
from tests.unit.decoder.own import needs_own
from tests.unit.decoder.scenes import Pixels, exif, photo, save, with_exif

FITTINGS = [
    Fitting(fit="crop", height=224, width=224, fill=(1, 2, 3), keep=0.875),
    Fitting(fit="crop", height=40, width=96, fill=(1, 2, 3), keep=0.5, filter="bilinear"),
    Fitting(fit="stretch", height=96, width=64, fill=(1, 2, 3)),
    Fitting(fit="letterbox", height=96, width=128, fill=(1, 2, 3)),
]


def decoded(data: bytes, fitting: Fitting) -> Pixels:
    out = memoryview(bytearray(fitting.height * fitting.width * 3))
    image.decode(data, out, fitting, Limits())
    return np.frombuffer(out, np.uint8)


def assert_same(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every fit, to the last bit."""
    for fitting in FITTINGS:
        own = decoded(data, fitting)
        with monkeypatch.context() as patch:
            patch.setattr(baseline, "found", lambda: None)
            assert np.array_equal(own, decoded(data, fitting)), fitting


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(333, 251), (250, 341), (2049, 1025)])
def test_turned_photos(size: tuple[int, int], orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest is decoded at a half."""
    needs_own()
    data = with_exif(save(photo(*size), "JPEG", quality=85), exif(orientation))
    assert_same(data, monkeypatch)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(2100, 1000), (3000, 4000), (4400, 3300)])
def test_large_photos(size: tuple[int, int], subsampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are decoded at a half, a quarter and an eighth."""
    needs_own()
    tile = photo(size[0] // 8 + 1, size[1] // 8 + 1)
    assert_same(save(np.tile(tile, (8, 8, 1))[: size[1], : size[0]], "JPEG", subsampling=subsampling), monkeypatch)


def test_parts_are_decoded_by_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else looks at an ordinary photo."""
    needs_own()

    def never(*arguments: object) -> None:
        raise AssertionError("decoded by a library")

    monkeypatch.setattr(image, "read", never)
    decoded(save(photo(500, 375), "JPEG"), FITTINGS[0])


def test_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_own()
    monkeypatch.setattr(baseline, "_left_out", False)
    baseline.leave_out()
    assert baseline.found() is None


@pytest.mark.parametrize("name", sorted(name for name in GOLDEN if name.startswith("jpeg")))
def test_golden_images(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_own()
    assert_same(GOLDEN[name]().data, monkeypatch)
