"""Bytes of a JPEG, PNG or WebP to uint8 RGB pixels. The one file of the service that imports image readers.

headers.py has judged format and size before anything here runs, and names the byte ranges to decode; metadata never
reaches a library. Four readers: our own for what is needed of ordinary JPEGs (baseline.py), simplejpeg (libjpeg-turbo)
for JPEGs that it leaves, the libwebp that comes with Pillow for WebP, Pillow for PNG and for whatever the fast ones
refuse. Policies are in docs/images.md.
"""

from __future__ import annotations

import ctypes
import io
import math
from typing import Literal, cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin, _webp

from service.config import Limits
from service.decoder import baseline, cost, headers
from service.decoder.fitting import Box, Placing, place
from service.decoder.headers import Header
from service.decoder.resample import reach, resample
from service.errors import Refusal
from service.wire.messages.decoder import Fitting, Geometry

Pixels = NDArray[np.uint8]

EXACT_PIXELS = 2_000_000
"""JPEGs up to this size are decoded at full size. Larger ones are shrunk while decoding, as far as SPARE lets them."""
SPARE = 2
"""A JPEG is shrunk while decoding only so far that each side keeps this many pixels per pixel of the target."""
LARGE_PIXELS = 12_600_000
"""Beyond this size (a 12-megapixel photo is below) memory counts: a JPEG is decoded at 1/2 at least, images of other
formats are averaged down before they become arrays."""
_GAP = 6.0
"""Those are averaged down to at least this many pixels per pixel of the target."""

_JPEG_MAGIC = b"\xff\xd8"
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    data: memoryview | bytes,
    out: memoryview,
    fitting: Fitting,
    limits: Limits,
    most: float = math.inf,
    pace: float = 1.0,
) -> Geometry:
    """Decode `data` and write it, fitted, into the first height * width * 3 bytes of `out` as uint8 RGB [H, W, 3].

    Raises Refusal: `bad_request` (no bytes), `unsupported_media_type`, `image_too_large`, `undecodable_image`; and
    TooHeavy, before anything is decoded, if that is expected to take more than `most` seconds on a machine that takes
    `pace` times as long as cost.py has it.
    """
    raw = bytes(data)
    header, placing, shrink = judged(raw, fitting, limits, most, pace)
    target = np.frombuffer(out, np.uint8, fitting.height * fitting.width * 3)
    canvas = target.reshape(fitting.height, fitting.width, 3)
    try:
        _fill(canvas, raw, header, placing, shrink, fitting)
    except Refusal:
        raise
    except Exception:
        # MemoryError and RecursionError too: whatever a library says of hostile bytes, the client hears one sentence.
        raise headers.corrupt() from None
    return placing.geometry


def judged(raw: bytes, fitting: Fitting, limits: Limits, most: float, pace: float) -> tuple[Header, Placing, int]:
    """What is known of an image before it is decoded: its header, its place, and the denominator to decode it at.
    Raises as decode does before anything is decoded."""
    header = headers.read(raw, limits)
    placing = place(*header.displayed, fitting)
    shrink = shrink_of(header, placing)
    if most < math.inf and (seconds := pace * cost.estimate(header, placing, shrink, own(header) is not None)) > most:
        raise cost.TooHeavy(seconds)
    return header, placing, shrink


def pixels(data: memoryview | bytes, limits: Limits) -> Pixels:
    """The whole image as displayed, uint8 RGB [H, W, 3]. Raises Refusal like decode."""
    raw = bytes(data)
    header = headers.read(raw, limits)
    try:
        image = read(raw, header, 1)
        if isinstance(image, np.ndarray):
            return np.ascontiguousarray(_oriented(image, header))
        return np.ascontiguousarray(_array(_transposed(image, header.orientation)))
    except Exception:
        raise headers.corrupt() from None


def sample_jpeg(colour: Literal["RGB", "GRAY", "CMYK"]) -> bytes:
    """A small black JPEG, to warm up with."""
    channels = {"RGB": 3, "GRAY": 1, "CMYK": 4}[colour]
    return bytes(simplejpeg.encode_jpeg(np.zeros((16, 16, channels), np.uint8), colorspace=colour))


def sample_photo() -> bytes:
    """A grey JPEG of 500x375, always the same, to measure with. It is one for the library, as our own decoder takes
    less time for an image that it has seen a moment ago."""
    at = np.arange(375 * 500, dtype=np.uint32).reshape(375, 500)
    # A multiplicative hash is noise enough.
    grain = (at * np.uint32(2654435761) >> np.uint32(27)).astype(np.uint8)
    shade = (at % 500 // 4 + at // 500 // 4).astype(np.uint8)
    return bytes(simplejpeg.encode_jpeg((shade + grain)[:, :, None], quality=75, colorspace="GRAY"))


def _fill(canvas: Pixels, raw: bytes, header: Header, placing: Placing, shrink: int, fitting: Fitting) -> None:
    x0, y0, x1, y1 = placing.target
    source = shrunk_box(placing, header, shrink)
    content = canvas[y0:y1, x0:x1]
    if content.shape != canvas.shape:
        canvas[:] = fitting.fill
    if _fill_from_part(content, raw, header, shrink, source, fitting):
        return
    image = read(raw, header, shrink)
    if isinstance(image, Image.Image) and image.width * image.height <= LARGE_PIXELS:
        image = _array(image)
    if isinstance(image, np.ndarray):
        resample(_oriented(image, header), source, content, fitting.filter)
        return
    # As an array the largest images would take twice their memory. Through a float32 in Pillow the box may end up a
    # hair beyond the image, which it would refuse.
    upright = _transposed(image, header.orientation)
    source = (source[0], source[1], min(source[2], upright.width), min(source[3], upright.height))
    small = upright.resize((x1 - x0, y1 - y0), _FILTERS[fitting.filter], source, reducing_gap=_GAP)
    content[:] = _array(small)


def own(header: Header) -> baseline.Baseline | None:
    """Our own decoder, where this is an image for it."""
    return baseline.found() if header.ordinary else None


def _fill_from_part(content: Pixels, raw: bytes, header: Header, shrink: int, source: Box, fitting: Fitting) -> bool:
    """Have our own decoder make pixels of the part that `source` needs; False where it does not."""
    decoder = own(header)
    if decoder is None:
        return False
    width, height = (-(-side // shrink) for side in header.displayed)
    left, top, *_ = part = reach((height, width), source, content.shape)
    pixels = decoder.decode(
        _stream(_JPEG_MAGIC, raw, header), header.width, header.height, shrink, _stored(part, header, (width, height))
    )
    if pixels is None:
        return False
    box = (source[0] - left, source[1] - top, source[2] - left, source[3] - top)
    resample(_oriented(pixels, header), box, content, fitting.filter, (height, width))
    return True


def _stored(part: baseline.Part, header: Header, displayed: tuple[int, int]) -> baseline.Part:
    """Where a part of the displayed picture, of so many columns and rows, is in the picture as it is stored."""
    x0, y0, x1, y1 = part
    if header.mirrored:
        x0, x1 = displayed[0] - x1, displayed[0] - x0
    if header.flipped:
        y0, y1 = displayed[1] - y1, displayed[1] - y0
    return (y0, x0, y1, x1) if header.turned else (x0, y0, x1, y1)


def shrink_of(header: Header, placing: Placing) -> int:
    """The denominator at which to decode: 1, and for larger JPEGs 2, 4 or 8. (Other eighths cost more than they save:
    libjpeg-turbo has fast code for these alone.)"""
    pixels = header.width * header.height
    if header.kind != "jpeg" or pixels <= EXACT_PIXELS:
        return 1
    (sx0, sy0, sx1, sy1), (tx0, ty0, tx1, ty1) = placing.source, placing.target
    spare = min((sx1 - sx0) / (tx1 - tx0), (sy1 - sy0) / (ty1 - ty0)) / SPARE
    least = 1 if pixels <= LARGE_PIXELS else 2
    return next((factor for factor in (8, 4, 2) if spare >= factor), least)


def shrunk_box(placing: Placing, header: Header, shrink: int) -> Box:
    """The source box in shrunk pixels. The last shrunk pixel of an axis may reach beyond the image; where the
    orientation flips the axis, that surplus comes first."""
    width, height = placing.geometry.width, placing.geometry.height
    x = -width % shrink / shrink if header.mirrored else 0.0
    y = -height % shrink / shrink if header.flipped else 0.0
    x0, y0, x1, y1 = (side / shrink for side in placing.source)
    return (x0 + x, y0 + y, x1 + x, y1 + y)


def read(raw: bytes, header: Header, shrink: int) -> Pixels | Image.Image:
    """Stored pixels: an array [h, w, 3], or a Pillow image of mode RGB or L. Sides are divided by `shrink`, rounded
    up. Raises whatever the library raises."""
    if header.kind == "webp":
        return _read_webp(raw, header)
    if header.kind == "png":
        return _rgb(PngImagePlugin.PngImageFile(io.BytesIO(_stream(headers.PNG_MAGIC, raw, header))))
    size = -(-header.width // shrink), -(-header.height // shrink)
    stream = _stream(_JPEG_MAGIC, raw, header)
    if header.plain:
        try:
            array = simplejpeg.decode_jpeg(stream, min_width=size[0], min_height=size[1])
            if array.shape[1::-1] == size:
                return cast(Pixels, array)
        except ValueError:
            # It treats every warning as an error. Pillow has the last word on what is corrupt.
            pass
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(stream))
    if shrink > 1:
        image.draft(image.mode, (header.width // shrink, header.height // shrink))
    if image.size != size:
        raise ValueError("size differs from the header's")
    return _rgb(image)


def _stream(magic: bytes, raw: bytes, header: Header) -> bytes:
    """The file without what describes; the file itself when that is nothing."""
    if header.parts == ((len(magic), len(raw)),):
        return raw
    view = memoryview(raw)
    return b"".join((magic, *(view[start:end] for start, end in header.parts)))


def _rgb(image: Image.Image) -> Image.Image:
    """Load and convert to RGB, or to L if all channels would be equal. Alpha is dropped, 16 bits give their high 8."""
    image.load()
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("L", "1", "LA"):
        return image.convert("L")
    return image.convert("RGB")


def _array(image: Image.Image) -> Pixels:
    """The pixels [h, w, 3] of an RGB or L image; the latter's channels share their memory."""
    array = np.asarray(image)
    return array if array.ndim == 3 else np.broadcast_to(array[:, :, None], (*array.shape, 3))


def _oriented(image: Pixels, header: Header) -> Pixels:
    """A view of `image` turned as EXIF says."""
    if header.turned:
        image = image.transpose(1, 0, 2)
    return image[:: -1 if header.flipped else 1, :: -1 if header.mirrored else 1]


def _transposed(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TRANSPOSES[orientation]) if orientation in _TRANSPOSES else image


# --- WebP ------------------------------------------------------------------------------------------------------


def _find_webp() -> ctypes._NamedFuncPointer | None:
    """Find WebPDecodeRGBInto of libwebp, through the Pillow module that is linked with it.

    Pillow reads every WebP as an animation, which takes 20 bytes per pixel and a third more time; this takes 3 to 7.
    """
    try:
        function = ctypes.CDLL(_webp.__file__).WebPDecodeRGBInto
    except (AttributeError, OSError):
        return None
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    function.restype = ctypes.c_void_p
    return function


_webp_decode_rgb_into = _find_webp()


def _read_webp(raw: bytes, header: Header) -> Pixels | Image.Image:
    """The first frame on a black canvas. Alpha is a chunk of its own, or dropped by libwebp."""
    if _webp_decode_rgb_into is None:
        return _rgb(WebPImagePlugin.WebPImageFile(io.BytesIO(raw)))
    ((start, end),) = header.parts
    chunk = raw[start:end] + b"\0" * (end & 1)
    stream = b"RIFF" + (len(chunk) + 4).to_bytes(4, "little") + b"WEBP" + chunk
    x, y, width, height = header.frame or (0, 0, header.width, header.height)
    frame = np.empty((height, width, 3), np.uint8)
    if not _webp_decode_rgb_into(stream, len(stream), frame.ctypes.data, frame.nbytes, width * 3):
        raise ValueError("libwebp refused")
    if (width, height) == (header.width, header.height):
        return frame
    canvas = np.zeros((header.height, header.width, 3), np.uint8)
    canvas[y : y + height, x : x + width] = frame
    return canvas
