"""The data channel between whoever dispatches and a decoder: encoded images in, pixels out."""

from __future__ import annotations

from typing import Literal

from service.wire.messages import Message


class Fitting(Message, frozen=True):
    """How an image becomes the network's input; the manifest's transform on the wire."""

    fit: Literal["crop", "stretch", "letterbox"]
    height: int
    width: int
    fill: tuple[int, int, int]
    keep: float = 1.0
    filter: Literal["bicubic", "bilinear"] = "bicubic"


class Geometry(Message, frozen=True):
    """Where the network's input lies in the image as displayed (EXIF orientation applied).

    `width` and `height` are the displayed image's pixels. `box` (x0, y0, x1, y1, in those pixels) is the part of the
    image plane that the input covers; with letterbox it reaches beyond the image. A point (u, v) in 0..1 of the input
    lies at x = x0 + u * (x1 - x0), y = y0 + v * (y1 - y0).
    """

    width: int
    height: int
    box: tuple[float, float, float, float]


Kind = Literal["uint8", "float32"]


class Shape(Message, frozen=True):
    """Of an image that comes as numbers instead of a file: height x width x 3 of this kind, RGB, row by row; float32
    from 0 to 1, little-endian."""

    kind: Kind
    height: int
    width: int


class Decode(Message, frozen=True):
    """Turn the `body_bytes` bytes in a body slot into uint8 RGB pixels in a pixel slot, unless that is expected to take
    longer than `limit` seconds (0: however long). They are an encoded file, or numbers as `shape` says."""

    id: int
    body_slot: int
    body_bytes: int
    pixel_slot: int
    fitting: Fitting
    limit: float = 0.0
    shape: Shape | None = None


class Coded(Message, frozen=True):
    """What becomes of a JPEG that lies in a pixel slot instead of pixels, for the device to decode.

    It takes `size` bytes, and has `width` x `height` stored pixels, of which `part` is needed (x0, y0, x1, y1). The
    displayed image is the stored one with its sides exchanged where `turned`, then with its columns (`mirrored`) or
    rows (`flipped`) in reverse. Of that `source` (x0, y0, x1, y1, inside it) is resampled onto `target` (whole pixels
    of the network's input), across first or, with `down_first`, down; what lies outside `target` is filled.
    """

    size: int
    width: int
    height: int
    part: tuple[int, int, int, int]
    turned: bool
    mirrored: bool
    flipped: bool
    source: tuple[float, float, float, float]
    target: tuple[int, int, int, int]
    down_first: bool

    @property
    def displayed(self) -> tuple[int, int]:
        """Width and height as displayed."""
        return (self.height, self.width) if self.turned else (self.width, self.height)

    @property
    def window(self) -> tuple[int, int, int, int]:
        """`part` in pixels of the displayed image."""
        x0, y0, x1, y1 = self.part
        width, height = self.displayed
        if self.turned:
            x0, y0, x1, y1 = y0, x0, y1, x1
        if self.mirrored:
            x0, x1 = width - x1, width - x0
        if self.flipped:
            y0, y1 = height - y1, height - y0
        return x0, y0, x1, y1


class Decoded(Message, frozen=True):
    """The pixels are in the slot, or what the device makes them of. `seconds` is the decoder's own time for this
    image."""

    id: int
    geometry: Geometry
    seconds: float
    coded: Coded | None = None


class Undecoded(Message, frozen=True):
    """The image was refused; `code` is a key of service.errors.STATUS."""

    id: int
    code: str
    message: str
    seconds: float


class Heavy(Message, frozen=True):
    """The image was not decoded: it is expected to take `seconds`, more than the limit."""

    id: int
    seconds: float


FromDecoder = Decoded | Undecoded | Heavy
ToDecoder = Decode
