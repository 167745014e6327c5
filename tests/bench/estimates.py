"""How well a decoder tells what an image will cost: `python -m tests.bench.estimates`.

Estimated (cost.py, at this machine's pace) against measured CPU milliseconds of the whole way of an image, the least
of a few runs, for every format at several sizes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from PIL import Image

from service.config import Limits
from service.decoder import cost, headers, image, warmup
from service.decoder.fitting import place
from service.decoder.main import return_memory
from service.wire.messages.decoder import Fitting
from tests.unit.decoder.scenes import noise, photo, save

SIZES = [(160, 120), (500, 375), (1280, 960), (2048, 1536), (4000, 3000)]
FITTING = Fitting(fit="crop", height=224, width=224, fill=(0, 0, 0))
ROOM = FITTING.height * FITTING.width * 3


def kinds(width: int, height: int) -> Iterator[tuple[str, bytes]]:
    """A name and a body for each kind of image."""
    scene = Image.fromarray(photo(width, height))
    smooth = Image.fromarray(photo(8, 6)).resize((width, height), Image.Resampling.BICUBIC)
    yield "JPEG", save(scene, "JPEG", quality=88)
    yield "JPEG, smooth", save(smooth, "JPEG", quality=80)
    yield "JPEG, 4:4:4 at 95", save(scene, "JPEG", quality=95, subsampling=0)
    yield "JPEG, progressive", save(scene, "JPEG", quality=88, progressive=True)
    yield "JPEG, grey", save(scene.convert("L"), "JPEG", quality=88)
    yield "JPEG, CMYK", save(scene.convert("CMYK"), "JPEG", quality=88)
    yield "PNG, RGB", save(scene, "PNG", compress_level=3)
    yield "PNG, RGB smooth", save(smooth, "PNG", compress_level=6)
    yield "PNG, RGBA", save(scene.convert("RGBA"), "PNG", compress_level=3)
    yield "PNG, grey", save(scene.convert("L"), "PNG", compress_level=3)
    yield "PNG, palette", save(scene.quantize(64), "PNG", compress_level=3)
    yield "PNG, noise", save(noise(width, height), "PNG", compress_level=1)
    yield "WebP", save(scene, "WEBP", quality=80, method=0)
    yield "WebP, smooth", save(smooth, "WEBP", quality=80, method=0)
    yield "WebP, lossless", save(scene, "WEBP", lossless=True, quality=0, method=0)


def measured(data: bytes, rounds: int) -> float:
    """The least CPU milliseconds."""
    out, limits, best = memoryview(bytearray(ROOM)), Limits(), float("inf")
    for _ in range(rounds):
        started = time.process_time_ns()
        image.decode(data, out, FITTING, limits)
        best = min(best, (time.process_time_ns() - started) / 1e6)
    return best


def main() -> None:
    """Print one table, and the extremes of the ratio."""
    return_memory()
    warmup.run()
    pace = warmup.pace()
    ratios = []
    print(f"pace {pace:.2f}\n")
    print("| estimated / measured, CPU ms | " + " | ".join(f"{width}x{height}" for width, height in SIZES) + " |")
    print("|---" * (len(SIZES) + 1) + "|")
    rows: dict[str, list[str]] = {}
    for width, height in SIZES:
        for name, data in kinds(width, height):
            header = headers.read(data, Limits())
            placing = place(*header.displayed, FITTING)
            estimate = (
                1000
                * pace
                * cost.estimate(header, placing, image.shrink_of(header, placing), image.own(header) is not None)
            )
            found = measured(data, 3 + 2_000_000 // (width * height))
            ratios.append(estimate / found)
            rows.setdefault(name, []).append(f"{estimate:.2f} / {found:.2f}")
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(f"\nestimated over measured: {min(ratios):.2f} to {max(ratios):.2f}, median {np.median(ratios):.2f}")


if __name__ == "__main__":
    main()
