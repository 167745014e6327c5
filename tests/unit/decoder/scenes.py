"""Pixels and bytes to decode: photo-like scenes, and images put together byte by byte."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def photo(width: int, height: int, seed: int = 0) -> Pixels:
    """A scene [height, width, 3] with gradients, hard-edged discs and sensor noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    scene = np.empty((height, width, 3), np.float32)
    for channel in range(3):
        scene[..., channel] = 128 + 60 * np.sin(x / width * 13 + channel) + 50 * np.cos(y / height * 17 + 2 * channel)
    for _ in range(60):
        cx, cy, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(1, 2 + width / 8)
        rows = slice(max(int(cy - radius), 0), int(cy + radius) + 1)
        columns = slice(max(int(cx - radius), 0), int(cx + radius) + 1)
        inside = (x[rows, columns] - cx) ** 2 + (y[rows, columns] - cy) ** 2 < radius * radius
        scene[rows, columns][inside] = rng.uniform(0, 255, 3)
    scene += rng.standard_normal(scene.shape, dtype=np.float32) * 6
    return np.clip(scene, 0, 255).astype(np.uint8)


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> Pixels:
    """Independent random bytes: the hardest pixels to resample."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def save(image: Pixels | Image.Image, kind: str, **options: Any) -> bytes:
    """Encode with Pillow."""
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """A TIFF structure with one entry, as EXIF has it: without the `Exif` prefix."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    value = struct.pack(order + "HHIHH", 0x0112, kind, 1, orientation, 0)
    return head + struct.pack(order + "H", 1) + value + struct.pack(order + "I", 0)


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with one more segment in front."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + jpeg[2:]


def with_exif(jpeg: bytes, tiff: bytes) -> bytes:
    """A JPEG with EXIF."""
    return with_segment(jpeg, 0xE1, b"Exif\0\0" + tiff)


def chunk(name: bytes, body: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk after its header."""
    return png[:33] + chunk(name, body) + png[33:]


def png_header(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """Magic and IHDR."""
    body = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", body)


def _rows(samples: NDArray[np.uint16], depth: int) -> bytes:
    """Unfiltered PNG rows of samples [h, w, channels]."""
    height = samples.shape[0]
    flat = samples.reshape(height, -1)
    if depth == 16:
        packed = flat.astype(">u2").view(np.uint8)
    elif depth == 8:
        packed = flat.astype(np.uint8)
    else:
        bits = (flat[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
        packed = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in packed)


_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(samples: NDArray[Any], colour: int, depth: int = 8, *, interlaced: bool = False, split: int = 0) -> bytes:
    """A PNG of samples [h, w, channels] as its header's colour type and depth say; in IDATs of `split` bytes."""
    samples = samples.astype(np.uint16)
    height, width = samples.shape[:2]
    if interlaced:
        passes = [samples[y::dy, x::dx] for x, y, dx, dy in _ADAM7]
        raw = b"".join(_rows(part, depth) for part in passes if part.size)
    else:
        raw = _rows(samples, depth)
    packed = zlib.compress(raw)
    step = split or len(packed)
    data = b"".join(chunk(b"IDAT", packed[at : at + step]) for at in range(0, len(packed), step))
    return png_header(width, height, depth, colour, int(interlaced)) + data + chunk(b"IEND", b"")


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP container."""
    body = b"WEBP" + riff_chunks(*chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """Chunks of a RIFF container, padded."""
    return b"".join(name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1) for name, body in chunks)


def vp8x(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    """The extended header of a WebP; flag 2 is animation."""
    return b"VP8X", struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def anmf(x: int, y: int, width: int, height: int, still: bytes) -> tuple[bytes, bytes]:
    """An animation frame holding the bitstream of a plain still WebP; x and y are even."""
    sizes = (x // 2, y // 2, width - 1, height - 1, 100)
    return b"ANMF", b"".join(size.to_bytes(3, "little") for size in sizes) + b"\0" + still[12:]


def jpeg_header(width: int, height: int, components: int = 3, sof: int = 0xC0, precision: int = 8) -> bytes:
    """SOI and a frame header."""
    body = struct.pack(">BHHB", precision, height, width, components)
    body += b"".join(bytes((index + 1, 0x11, 0)) for index in range(components))
    return b"\xff\xd8" + struct.pack(">BBH", 0xFF, sof, len(body) + 2) + body


def jpeg_scan(components: int = 3, start: int = 0, end: int = 63) -> bytes:
    """A scan header without a scan."""
    body = bytes([components]) + b"".join(bytes((index + 1, 0)) for index in range(components))
    body += bytes((start, end, 0))
    return b"\xff\xda" + struct.pack(">H", len(body) + 2) + body
