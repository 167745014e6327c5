"""The images that a model's reference answers are for, fitted as the service's decoder fits them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.manifest import Transform
from models.toyscape import render, split

SCENES = 8
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def fitted(picture: Image.Image, transform: Transform) -> NDArray[np.uint8]:
    """An RGB picture as the network gets it [H, W, 3], by Pillow in one resample."""
    width, height = picture.size
    across, down = float(width), float(height)
    columns, rows = transform.width, transform.height
    if transform.fit == "crop":
        across = min(across, height * columns / rows)
        down = min(down, width * rows / columns)
    if transform.fit == "letterbox":
        scale = min(columns / width, rows / height)
        columns, rows = (
            min(most, max(1, int(side * scale + 0.5))) for side, most in ((width, columns), (height, rows))
        )
    else:
        across, down = across * transform.keep, down * transform.keep
    left, top = (width - across) / 2, (height - down) / 2
    small = picture.resize((columns, rows), _FILTERS[transform.filter], (left, top, left + across, top + down))
    canvas = Image.new("RGB", (transform.width, transform.height), transform.fill)
    canvas.paste(small, ((transform.width - columns) // 2, (transform.height - rows) // 2))
    return np.asarray(canvas)


def reference_images(transform: Transform) -> NDArray[np.uint8]:
    """The first validation scenes of toyscape, uint8 [8, H, W, 3]."""
    scenes = (render(split("val", number)).rgb for number in range(SCENES))
    return np.stack([fitted(Image.fromarray(scene), transform) for scene in scenes])
