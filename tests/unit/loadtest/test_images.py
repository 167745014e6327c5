from __future__ import annotations

import io

import pytest
from PIL import Image

from loadtest import images


@pytest.mark.parametrize("kind", ["thumbnail", "500x375", "1mp", "640x480"])
def test_images_are_jpegs_of_their_size_all_different_and_from_the_seed(kind: str) -> None:
    made = images.generate(kind, 3, seed=4)
    assert len(set(made)) == 3
    assert images.generate(kind, 3, seed=4) == made
    assert images.generate(kind, 1, seed=5)[0] not in made
    for data in made:
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "JPEG"
            assert image.size == images.size_of(kind)


def test_the_usual_photo_has_the_usual_bytes() -> None:
    sizes = [len(data) for data in images.generate("500x375", 8)]
    assert 60_000 < sum(sizes) / len(sizes) < 74_000


@pytest.mark.parametrize("kind", ["", "huge", "0x5", "99999x99999", "5x"])
def test_an_unknown_kind_is_an_error(kind: str) -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        images.size_of(kind)
