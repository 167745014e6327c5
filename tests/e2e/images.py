"""Images the tests send. A lossless image of one colour reaches the fake backend unchanged, and commands it."""

from __future__ import annotations

import struct
import zlib

Colour = tuple[int, int, int]

FAIL_ITEM: Colour = (254, 1, 1)
FAIL_BATCH: Colour = (254, 1, 2)
NO_MEMORY: Colour = (254, 1, 3)
HANG_C: Colour = (254, 1, 5)
SEGFAULT: Colour = (254, 1, 7)
BREAK: Colour = (254, 1, 11)
QUIT: Colour = (254, 1, 12)


def lose_device(number: int) -> Colour:
    """The device of this number fails, and stays so; the others answer."""
    return (254, 3, number)


def sleep(hundredths: int) -> Colour:
    """The fake sleeps this many hundredths of a second."""
    return (254, 2, hundredths)


def png(colour: Colour, width: int = 32, height: int = 32) -> bytes:
    """A PNG of one colour."""
    rows = (b"\0" + bytes(colour) * width) * height
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def number(value: int) -> Colour:
    """A colour of its own for each number below 2^16, none of them a command."""
    return (1 + value % 3, value >> 8 & 0xFF, value & 0xFF)


def expected_index(colour: Colour, classes: int, side: int = 224) -> int:
    """The class that the fake answers for an image of this colour: the checksum of what it saw."""
    return zlib.crc32(bytes(colour) * (side * side)) % classes
