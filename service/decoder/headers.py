"""What an image says of itself, read by us from its first bytes, before any image library sees it.

Everything that a library could be made to waste time or memory on is judged here: the format by content, the sides
and pixels, the number of scans, segments and chunks. The parsers below only skip along declared lengths, so they are
linear in the number of segments, which is capped.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from service.config import Limits
from service.errors import Refusal

MAX_SEGMENTS = 25_000
"""JPEG segments, PNG or WebP chunks. A PNG of 20 MB in chunks of 1 kB has 20,000."""
MAX_SCANS = 100
"""JPEG scans. A progressive photo has about 10; each scan costs a pass over the whole image, however few its bytes."""
MAX_SCANNED_PIXELS = 500_000_000
"""Scans times pixels, for the same reason."""

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_NOT_FILL = re.compile(rb"[^\xff]", re.DOTALL)
_EXIF = b"Exif\x00\x00"
_ORIENTATION = 0x0112
_LUMA = (0x11, 0x21, 0x12, 0x22, 0x41)
"""Sampling factors of brightness, across and down, where those of chroma are 1: 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1."""
_HALVED = (0x11, 0x21, 0x22)
"""Of these the ones whose chroma is whole or halved, and not down alone."""
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Header:
    """Sizes in stored pixels, before the orientation (EXIF, 1-8) is applied.

    `parts` are the byte ranges that a decoder needs. JPEG: the segments before the first scan, without those that
    describe (EXIF, ICC, comments), then the scans. PNG: the critical chunks. WebP: the first frame's bitstream chunk.
    """

    kind: Literal["jpeg", "png", "webp"]
    width: int
    height: int
    orientation: int
    parts: tuple[Span, ...]
    plain: bool = True
    """JPEG: 8 bits, Huffman-coded, grey or three components. False means the exact library has to look at it."""
    usual: bool = False
    """JPEG: baseline in one scan or progressive, grey or YCbCr, its chroma stored as cameras do: what every library
    reads alike."""
    ordinary: bool = False
    """JPEG: baseline in one scan, YCbCr, its chroma whole, halved across, or halved both ways: what our own decoder is
    for."""
    buffered: bool = False
    """JPEG: several scans, so that all coefficients are in memory at once."""
    scans: int = 1
    """JPEG: how many there are, where there can be several."""
    unpacked: int = 0
    """PNG: bytes of its rows."""
    lossless: bool = False
    """WebP: its bitstream is of the lossless kind."""
    frame: tuple[int, int, int, int] | None = None
    """WebP animation: x, y, width and height of the first frame on the canvas."""

    @property
    def turned(self) -> bool:
        """The sides are exchanged to display it."""
        return self.orientation > 4

    @property
    def mirrored(self) -> bool:
        """The columns are reversed after that."""
        return self.orientation in (2, 3, 6, 7)

    @property
    def flipped(self) -> bool:
        """The rows are."""
        return self.orientation in (3, 4, 7, 8)

    @property
    def displayed(self) -> tuple[int, int]:
        """Width and height with the orientation applied."""
        return (self.height, self.width) if self.turned else (self.width, self.height)


def read(data: bytes, limits: Limits) -> Header:
    """Read the header and hold it against the limits. Raises Refusal (415, 413, 422; 400 for no bytes at all)."""
    if not data:
        raise Refusal("bad_request", "empty body")
    try:
        if data[:3] == b"\xff\xd8\xff":
            header = _jpeg(data)
        elif data[:8] == PNG_MAGIC:
            header = _png(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            header = _webp(data)
        else:
            raise Refusal("unsupported_media_type", "the image must be JPEG, PNG or WebP")
    except (IndexError, ValueError) as error:
        raise corrupt() from error
    _judge(header, limits)
    return header


def corrupt() -> Refusal:
    """The one answer to bytes that are not a whole image."""
    return Refusal("undecodable_image", "the image is corrupt or incomplete")


def _judge(header: Header, limits: Limits) -> None:
    width, height = header.width, header.height
    if width < 1 or height < 1:
        raise corrupt()
    if max(width, height) > limits.side:
        raise Refusal("image_too_large", f"the image is {width}x{height}; a side may have {limits.side} pixels")
    most = limits.jpeg_pixels if header.kind == "jpeg" else limits.pixels
    if header.buffered:
        most = min(most, limits.pixels)
    if width * height > most:
        what = "a progressive JPEG" if header.buffered else "this format"
        raise Refusal("image_too_large", f"the image is {width}x{height}; {what} may have {most} pixels")


def _number(data: bytes, at: int, size: int, order: Literal["big", "little"] = "big") -> int:
    if at < 0 or at + size > len(data):
        raise IndexError(at)
    return int.from_bytes(data[at : at + size], order)


# --- JPEG ------------------------------------------------------------------------------------------------------


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment up to and including the first SOS."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        start = data.find(b"\xff", at)
        found = _NOT_FILL.search(data, start) if start >= 0 else None
        if found is None:
            break
        at, marker = found.start() - 1, data[found.start()]
        if marker <= 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        end = at + 2 + _number(data, at + 2, 2)
        if marker == 0xD9 or end < at + 4 or end > len(data):
            break
        yield marker, at, end
        if marker == 0xDA:
            return
        at = end
    raise corrupt()


def _jpeg(data: bytes) -> Header:
    width = height = components = 0
    orientation = 1
    plain = buffered = baseline = usual = halved = False
    converted = True
    parts: list[Span] = []
    for marker, start, end in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if components:
                raise corrupt()
            height, width = _number(data, start + 5, 2), _number(data, start + 7, 2)
            components = data[start + 9]
            plain = marker in (0xC0, 0xC1, 0xC2) and data[start + 4] == 8 and components in (1, 3)
            buffered = marker in (0xC2, 0xC6, 0xCA, 0xCE)
            baseline = marker == 0xC0
            usual = plain and marker != 0xC1 and _usual_components(data[start + 10 : end])
            halved = components == 3 and data[start + 11] in _HALVED
        elif marker == 0xEE and data[start + 4 : start + 9] == b"Adobe":
            converted = data[start + 15] == 1
        elif marker == 0xE1 and data[start + 4 : start + 10] == _EXIF and orientation == 1:
            orientation = _exif_orientation(data[start + 10 : end])
        elif marker == 0xDA:
            buffered = buffered or data[start + 4] < components
            parts.append((start, len(data)))
        # Only JFIF and Adobe markers change what the pixels are.
        if marker != 0xDA and (not 0xE0 <= marker <= 0xEF or marker in (0xE0, 0xEE)) and marker != 0xFE:
            parts.append((start, end))
    # Inside coded data 0xFF is always followed by 0 or a restart marker, so this counts scans, never coefficients. A
    # decoder never enters a second scan of a JPEG whose first holds all, so there it need not be looked for.
    scans = data.count(b"\xff\xda", parts[-1][0]) if buffered else 1
    if scans > MAX_SCANS or scans * width * height > MAX_SCANNED_PIXELS:
        raise Refusal("undecodable_image", "the JPEG has too many scans")
    usual = usual and (components == 1 or converted) and not (baseline and buffered)
    ordinary = usual and baseline and halved
    return Header("jpeg", width, height, orientation, _joined(parts), plain, usual, ordinary, buffered, scans)


def _usual_components(table: bytes) -> bool:
    """Whether the components of a frame (an id, sampling factors and a table each) are grey, or brightness and two that
    are stored in whole, halves or quarters of its sides and are not called R, G and B."""
    if len(table) == 3:
        return table[1] == 0x11
    return table[1] in _LUMA and table[4] == table[7] == 0x11 and table[::3] != b"RGB"


def _joined(parts: list[Span]) -> tuple[Span, ...]:
    """Ranges that touch made one, so that they need no copying together."""
    joined = parts[:1]
    for start, end in parts[1:]:
        if start == joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return tuple(joined)


# --- PNG -------------------------------------------------------------------------------------------------------


def _png(data: bytes) -> Header:
    """All chunks are walked, so that a cut file is known before it is decoded; only critical ones are kept."""
    at, orientation = 8, 1
    view = memoryview(data)
    parts: list[Span] = []
    for _ in range(MAX_SEGMENTS):
        length, name = _number(data, at, 4), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data) or (not parts and name != b"IHDR"):
            raise corrupt()
        if name in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            if zlib.crc32(view[at + 4 : end - 4]) != _number(data, end - 4, 4):
                raise corrupt()
            parts.append((at, end))
        elif name == b"eXIf" and orientation == 1:
            orientation = _exif_orientation(data[at + 8 : end - 4])
        at = end
        if name == b"IEND":
            break
    else:
        raise corrupt()
    width, height, depth, colour = _number(data, 16, 4), _number(data, 20, 4), data[24], data[25]
    if _number(data, 8, 4) != 13 or depth not in _PNG_DEPTHS.get(colour, ()):
        raise corrupt()
    unpacked = height * -(-width * _PNG_CHANNELS[colour] * depth // 8)
    return Header("png", width, height, orientation, _joined(parts), unpacked=unpacked)


# --- WebP ------------------------------------------------------------------------------------------------------


def _riff_chunks(data: bytes, at: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of each chunk; `start` is where the chunk's eight-byte head stands."""
    for _ in range(MAX_SEGMENTS):
        if at + 8 > stop:
            return
        end = at + 8 + _number(data, at + 4, 4, "little")
        if end > stop:
            raise corrupt()
        yield data[at : at + 4], at, end
        at = end + (end & 1)
    raise corrupt()


def _webp(data: bytes) -> Header:
    stop = 8 + _number(data, 4, 4, "little")
    if stop > len(data):
        raise corrupt()
    canvas: tuple[int, int] | None = None
    frame: tuple[int, int] | None = None
    bitstream: tuple[bytes, int, int] | None = None
    orientation = 1
    for name, start, end in _riff_chunks(data, 12, stop):
        if name == b"VP8X" and canvas is None:
            canvas = 1 + _number(data, start + 12, 3, "little"), 1 + _number(data, start + 15, 3, "little")
        elif name == b"ANMF" and bitstream is None:
            frame = 2 * _number(data, start + 8, 3, "little"), 2 * _number(data, start + 11, 3, "little")
            inside = _riff_chunks(data, start + 24, end)
            bitstream = next((chunk for chunk in inside if chunk[0] in (b"VP8 ", b"VP8L")), None)
        elif name in (b"VP8 ", b"VP8L") and bitstream is None:
            bitstream = name, start, end
        elif name == b"EXIF" and orientation == 1:
            orientation = _exif_orientation(data[start + 8 : end].removeprefix(_EXIF))
    if bitstream is None:
        raise corrupt()
    width, height = _webp_size(data, *bitstream)
    part = (bitstream[1:],)
    lossless = bitstream[0] == b"VP8L"
    if frame is None or canvas is None:
        if frame is not None or (canvas is not None and canvas != (width, height)):
            raise corrupt()
        return Header("webp", width, height, orientation, part, lossless=lossless)
    if frame[0] + width > canvas[0] or frame[1] + height > canvas[1]:
        raise corrupt()
    return Header("webp", *canvas, orientation, part, lossless=lossless, frame=(*frame, width, height))


def _webp_size(data: bytes, name: bytes, start: int, end: int) -> tuple[int, int]:
    if name == b"VP8L":
        if end < start + 13 or data[start + 8] != 0x2F:
            raise corrupt()
        bits = _number(data, start + 9, 4, "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if end < start + 18 or data[start + 11 : start + 14] != b"\x9d\x01\x2a":
        raise corrupt()
    return _number(data, start + 14, 2, "little") & 0x3FFF, _number(data, start + 16, 2, "little") & 0x3FFF


# --- EXIF ------------------------------------------------------------------------------------------------------


def _exif_orientation(tiff: bytes) -> int:
    """The orientation in a TIFF structure's first directory; 1 when it has none, or none that makes sense."""
    order: Literal["big", "little"] = "little" if tiff[:2] == b"II" else "big"
    try:
        if tiff[:2] not in (b"II", b"MM") or _number(tiff, 2, 2, order) != 42:
            return 1
        directory = _number(tiff, 4, 4, order)
        for entry in range(_number(tiff, directory, 2, order)):
            at = directory + 2 + 12 * entry
            if _number(tiff, at, 2, order) == _ORIENTATION:
                value = _number(tiff, at + 8, 2, order)
                return value if _number(tiff, at + 2, 2, order) == 3 and 1 <= value <= 8 else 1
    except IndexError:
        pass
    return 1
