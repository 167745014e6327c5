"""Images as users have them, as the bytes a service takes; and as Pillow's, to draw on."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from uuid import uuid4

if TYPE_CHECKING:
    from typing import BinaryIO

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

ImageLike: TypeAlias = (
    "bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO | Image.Image | NDArray[np.uint8]"
)
"""An encoded file (its bytes, its path, or a file open for reading) or pixels: a Pillow image, or a numpy array of
uint8 [H, W, 3] (RGB) or [H, W] (grey)."""

Encoding = Literal["png", "jpeg"]
MAX_BYTES = 1_000_000_000
"""No service can be set to take more."""
JPEG_QUALITY = 95
PART_NAME = "image"


def encoded(image: ImageLike, encoding: Encoding = "png") -> bytes:
    """The image as an encoded file; files stay as they are, pixels become a PNG (or a JPEG of quality 95).

    Raises TypeError for what is no image, ValueError for one that is too large or an array of another shape, OSError
    for a file that cannot be read.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return _bounded(bytes(image))
    if isinstance(image, str | os.PathLike):
        with Path(image).open("rb") as file:
            return _bounded(file.read(MAX_BYTES + 1))
    if _is(image, "PIL.Image", "Image") or _is(image, "numpy", "ndarray"):
        buffer = io.BytesIO()
        if encoding == "jpeg":
            picture(image).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        else:
            picture(image).save(buffer, "PNG", compress_level=1)
        return _bounded(buffer.getvalue())
    read = getattr(image, "read", None)
    data = read(MAX_BYTES + 1) if callable(read) else None
    if not isinstance(data, bytes):
        raise TypeError(f"{type(image).__name__} is no image: expected bytes, a path, a file, Pillow or numpy pixels")
    return _bounded(data)


def picture(image: ImageLike) -> Image.Image:
    """The image as Pillow's, RGB and as displayed (EXIF orientation applied): the pixels that answers speak of.

    Raises what `encoded` raises; the caller's image is never changed.
    """
    from PIL import Image, ImageOps

    if _is(image, "numpy", "ndarray"):
        shown = Image.fromarray(_pixels(image))
    elif isinstance(image, Image.Image):
        shown = image
    else:
        shown = Image.open(io.BytesIO(encoded(image)))
    # A copy even where nothing changes: what is drawn on is not the caller's.
    return ImageOps.exif_transpose(shown).convert("RGB").copy()


def form(images: Iterable[bytes]) -> tuple[bytes, str]:
    """Several images as the body of one request, and its content type."""
    boundary = uuid4().hex
    parts = []
    for position, image in enumerate(images):
        head = f'Content-Disposition: form-data; name="{PART_NAME}"; filename="{position}"'
        parts += [f"--{boundary}\r\n{head}\r\n\r\n".encode("ascii"), image, b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode("ascii")]), f"multipart/form-data; boundary={boundary}"


def _pixels(array: Any) -> Any:
    if array.dtype.name != "uint8" or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        shape = ", ".join(str(side) for side in array.shape)
        raise ValueError(f"pixels are uint8 of [H, W, 3] (RGB) or [H, W] (grey), not {array.dtype} [{shape}]")
    return array


def _is(value: object, module: str, name: str) -> bool:
    """Whether it is of a library's class; a library that nobody has imported has no objects."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(value, kind)


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise ValueError(f"an image of more than {MAX_BYTES} bytes, which no service takes")
    return data
