"""docs/images.md and the golden images speak of the same things."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from service.config import Limits
from service.decoder import headers, image, main, sandbox
from tests.unit.decoder.golden import GOLDEN

TEXT = (Path(__file__).parents[3] / "docs" / "images.md").read_text()


def test_every_golden_image_has_a_policy_and_every_policy_its_images() -> None:
    table = TEXT.split("## Policy")[1].split("\n## ")[0]
    patterns = [pattern for line in table.splitlines() if line.startswith("|") for pattern in _names(line)]
    for pattern in patterns:
        assert fnmatch.filter(GOLDEN, pattern), f"no golden image is called {pattern}"
    left = [name for name in GOLDEN if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    assert not left


def _names(line: str) -> list[str]:
    return re.findall(r"`([^`]+)`", line.split("|")[3])


def test_numbers() -> None:
    limits = Limits()
    stated = [
        f"`jpeg_pixels`, {limits.jpeg_pixels // 10**6} megapixels",
        f"`pixels`, {limits.pixels // 10**6} megapixels",
        f"{limits.side:,} pixels",
        f"{headers.MAX_SCANS}, and scans times pixels at most {headers.MAX_SCANNED_PIXELS // 10**6} million",
        f"{headers.MAX_SEGMENTS:,}",
        f"{main.MEMORY_BYTES >> 20} MiB",
        f"{image.EXACT_PIXELS // 10**6} megapixels",
        f"{image.LARGE_PIXELS / 10**6} megapixels",
        f"at least {image.SPARE} pixels of its result",
        f"{sandbox.DESCRIPTORS} descriptors",
    ]
    for text in stated:
        assert text in TEXT, text
