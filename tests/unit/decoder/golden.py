"""Images of odd kinds, each with the pixels that the policy of docs/images.md asks for.

References come from the pixels that went in wherever the format is lossless, and from Pillow wherever it is lossy.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tests.unit.decoder.scenes import (
    Pixels,
    anmf,
    chunk,
    exif,
    photo,
    png,
    riff,
    save,
    vp8x,
    with_chunk,
    with_exif,
    with_segment,
)

EXACT, LOSSY = 0, 2


class Golden(NamedTuple):
    """Bytes, the displayed RGB pixels [H, W, 3], and how far from them is right."""

    data: bytes
    expected: Pixels
    tolerance: int


GOLDEN: dict[str, Callable[[], Golden]] = {}

SCENE = photo(121, 83)
RGB = Image.fromarray(SCENE)
GREY = RGB.convert("L")
ALPHA = np.dstack([SCENE, np.tile(np.arange(121, dtype=np.uint8) * 2, (83, 1))])
WORDS: NDArray[np.uint16] = np.random.default_rng(3).integers(0, 65536, (37, 53, 4), np.uint16)
_RANDOM = np.random.default_rng(4)


def pillow(data: bytes) -> Pixels:
    """What Pillow makes of it, upright and as RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _lossy(name: str, make: Callable[[], bytes]) -> None:
    def golden() -> Golden:
        data = make()
        return Golden(data, pillow(data), LOSSY)

    GOLDEN[name] = golden


def _exact(name: str, make: Callable[[], bytes], expected: NDArray[Any]) -> None:
    GOLDEN[name] = lambda: Golden(make(), expected.astype(np.uint8), EXACT)


def _repeat(grey: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(grey.reshape(*grey.shape[:2], 1), 3, axis=2)


def upright(stored: Pixels, orientation: int) -> Pixels:
    """The displayed image of stored pixels, from the definition of the EXIF tag."""
    turned = np.swapaxes(stored, 0, 1) if orientation > 4 else stored
    return {
        1: turned,
        2: np.fliplr(turned),
        3: np.rot90(turned, 2),
        4: np.flipud(turned),
        5: turned,
        6: np.rot90(stored, -1),
        7: np.rot90(turned, 2),
        8: np.rot90(stored, 1),
    }[orientation]


def _jpegs() -> None:
    for name, options in {
        "420": {"quality": 92},
        "422": {"subsampling": 1},
        "444": {"subsampling": 0, "quality": 95},
        "quality-1": {"quality": 1},
        "progressive": {"progressive": True},
        "restarts": {"restart_marker_rows": 1},
        "optimized": {"optimize": True},
        "rgb-coded": {"keep_rgb": True},
        "icc": {"icc_profile": b"not a profile" * 9000},
        "comment": {"comment": b"\xff\xda" * 500},
    }.items():
        _lossy(f"jpeg-{name}", lambda options=options: save(RGB, "JPEG", **options))  # type: ignore[misc]
    _lossy("jpeg-grey", lambda: save(GREY, "JPEG"))
    _lossy("jpeg-grey-progressive", lambda: save(GREY, "JPEG", progressive=True))
    cmyk = save(RGB.convert("CMYK"), "JPEG", quality=95)
    at = cmyk.index(b"Adobe")
    _lossy("jpeg-cmyk-adobe-inverted", lambda: cmyk)
    _lossy("jpeg-cmyk-not-adobe", lambda: cmyk[: at - 4] + cmyk[at + 12 :])
    _lossy("jpeg-ycck", lambda: cmyk[: at + 11] + b"\x02" + cmyk[at + 12 :])
    _lossy("jpeg-cmyk-turned", lambda: with_exif(cmyk, exif(6)))
    for width, height in [(1, 1), (1, 8192), (8192, 1), (7, 5), (17, 33), (16, 16)]:
        _lossy(f"jpeg-{width}x{height}", lambda w=width, h=height: save(photo(w, h), "JPEG"))  # type: ignore[misc]
    plain = save(RGB, "JPEG", quality=90)
    _lossy("jpeg-trailing-bytes", lambda: plain + b"\0" * 999 + b"\xff\xd8\xff trailing")
    _lossy("jpeg-unknown-segments", lambda: with_segment(with_segment(plain, 0xED, b"8BIM" * 99), 0xE5, b"x"))
    _lossy("jpeg-fill-bytes", lambda: plain[:2] + b"\xff" * 100 + plain[2:])
    _lossy("jpeg-multi-picture", lambda: save(RGB, "MPO", save_all=True, append_images=[RGB]))
    for orientation in range(1, 9):
        turned = with_exif(plain, exif(orientation))
        _lossy(f"jpeg-orientation-{orientation}", lambda turned=turned: turned)  # type: ignore[misc]
    stored = pillow(plain)
    for name, tiff in {
        "0": exif(0),
        "9": exif(9),
        "long": exif(6, kind=4),
        "cut": exif(6)[:12],
        "loop": b"II*\0" + b"\xff" * 40,
    }.items():
        data = with_exif(plain, tiff)
        GOLDEN[f"jpeg-bad-exif-{name}"] = lambda data=data: Golden(data, stored, LOSSY)  # type: ignore[misc]
    GOLDEN["jpeg-big-endian-exif"] = lambda: Golden(with_exif(plain, exif(8, ">")), np.rot90(stored), LOSSY)


def _pngs() -> None:
    scene = np.asarray(RGB)
    grey = np.asarray(GREY)
    _exact("png-rgb", lambda: save(RGB, "PNG"), scene)
    _exact("png-rgb-interlaced", lambda: png(scene, 2, interlaced=True), scene)
    _exact("png-rgb-many-chunks", lambda: png(scene, 2, split=7), scene)
    _exact("png-rgba", lambda: png(ALPHA, 6), scene)
    _exact("png-rgba-interlaced", lambda: png(ALPHA, 6, interlaced=True), scene)
    _exact("png-rgb-trns", lambda: with_chunk(save(RGB, "PNG"), b"tRNS", b"\0\1\0\2\0\3"), scene)
    _exact("png-grey", lambda: save(GREY, "PNG"), _repeat(grey))
    _exact("png-grey-trns", lambda: with_chunk(save(GREY, "PNG"), b"tRNS", b"\0\1"), _repeat(grey))
    _exact("png-grey-alpha", lambda: png(ALPHA[..., [0, 3]], 4), _repeat(ALPHA[..., 0]))
    for depth in (1, 2, 4):
        values = _RANDOM.integers(0, 2**depth, (31, 45, 1))
        full = _repeat(values * 255 // (2**depth - 1))
        _exact(f"png-grey-{depth}-bit", lambda v=values, d=depth: png(v, 0, d), full)  # type: ignore[misc]
    for depth in (1, 2, 4, 8):
        values = _RANDOM.integers(0, 2**depth, (31, 45, 1))
        colours = _RANDOM.integers(0, 256, (2**depth, 3)).astype(np.uint8)
        data = with_chunk(png(values, 3, depth), b"PLTE", colours.tobytes())
        _exact(f"png-palette-{depth}-bit", lambda data=data: data, colours[values[..., 0]])  # type: ignore[misc]
    # Chunks are put in front, so PLTE, the last one put, comes first.
    clear = with_chunk(with_chunk(png(values, 3, 8), b"tRNS", b"\0\x80" * 60), b"PLTE", colours.tobytes())
    _exact("png-palette-trns", lambda: clear, colours[values[..., 0]])
    high = (WORDS >> 8).astype(np.uint8)
    _exact("png-grey-16-bit", lambda: png(WORDS[..., :1], 0, 16), _repeat(high[..., 0]))
    _exact("png-grey-alpha-16-bit", lambda: png(WORDS[..., :2], 4, 16), _repeat(high[..., 0]))
    _exact("png-rgb-16-bit", lambda: png(WORDS[..., :3], 2, 16), high[..., :3])
    _exact("png-rgba-16-bit", lambda: png(WORDS, 6, 16), high[..., :3])
    _exact("png-rgb-16-bit-interlaced", lambda: png(WORDS[..., :3], 2, 16, interlaced=True), high[..., :3])
    for orientation in (2, 5, 6, 8):
        turned = with_chunk(save(RGB, "PNG"), b"eXIf", exif(orientation, ">"))
        shown = upright(scene, orientation)
        _exact(f"png-orientation-{orientation}", lambda turned=turned: turned, shown)  # type: ignore[misc]
    _exact("png-icc-and-gamma", lambda: with_chunk(save(RGB, "PNG", icc_profile=b"x"), b"gAMA", b"\0\0\1\0"), scene)
    _exact("png-animated", lambda: save(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180)]), scene)
    _exact("png-trailing-bytes", lambda: save(RGB, "PNG") + chunk(b"IDAT", b"x"), scene)
    for width, height in [(1, 1), (1, 8192), (8192, 1)]:
        pixels = photo(width, height)
        _exact(f"png-{width}x{height}", lambda pixels=pixels: save(pixels, "PNG"), pixels)  # type: ignore[misc]


def _webps() -> None:
    scene = np.asarray(RGB)
    lossless = save(RGB, "WEBP", lossless=True)
    _lossy("webp", lambda: save(RGB, "WEBP", quality=90))
    _lossy("webp-sharp", lambda: save(RGB, "WEBP", use_sharp_yuv=True))
    _lossy("webp-alpha", lambda: save(ALPHA, "WEBP", quality=90))
    _exact("webp-lossless", lambda: lossless, scene)
    _exact("webp-lossless-alpha", lambda: save(ALPHA, "WEBP", lossless=True, exact=True), scene)
    _exact("webp-icc", lambda: save(RGB, "WEBP", lossless=True, icc_profile=b"nonsense"), scene)
    _exact("webp-trailing-bytes", lambda: lossless + b"trailing", scene)
    others = [RGB.rotate(180), RGB.rotate(90)]
    _exact("webp-animated", lambda: save(RGB, "WEBP", lossless=True, save_all=True, append_images=others), scene)
    _lossy("webp-animated-lossy", lambda: save(RGB, "WEBP", save_all=True, append_images=others))
    black = np.zeros((90, 140, 3), np.uint8)
    black[4:87, 10:131] = scene
    frame = anmf(10, 4, 121, 83, lossless)
    loop = (b"ANIM", b"\xff\xff\xff\xff\0\0")
    _exact("webp-animated-offset", lambda: riff(vp8x(140, 90, 2), loop, frame, frame), black)
    for orientation in (3, 6, 7):
        tiff = exif(orientation)
        shown = upright(scene, orientation)
        _exact(
            f"webp-orientation-{orientation}",
            lambda tiff=tiff: save(RGB, "WEBP", lossless=True, exif=tiff),  # type: ignore[misc]
            shown,
        )
    for width, height in [(1, 1), (1, 8192)]:
        pixels = photo(width, height)
        _exact(f"webp-{width}x{height}", lambda p=pixels: save(p, "WEBP", lossless=True), pixels)  # type: ignore[misc]


_jpegs()
_pngs()
_webps()
