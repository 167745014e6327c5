"""JPEGs to hold the decoder of ordinary ones to: encoded by libraries, written symbol by symbol, and damaged.

Those written here hold what no encoder makes: any Huffman tables, any numbers in any places, restart intervals that
divide nothing.
"""

from __future__ import annotations

import random
import struct

import numpy as np
import simplejpeg

from tests.unit.decoder.scenes import Pixels, noise, photo, save

Part = tuple[int, int, int, int]

SAMPLINGS = {"444": (1, 1), "422": (2, 1), "420": (2, 2)}
_JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"
ADOBE = b"Adobe\0\x64\0\0\0\0\1"
_MOST_MEAN = 4000
"""Beyond some 4,087 the mean of a block, after its multiplication, is left to the library."""


def segment(marker: int, body: bytes) -> bytes:
    """A marker with its length and body."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def segments(jpeg: bytes) -> list[tuple[int, int, int]]:
    """Marker, start and end of every segment up to the coded data, which begins where the last one ends."""
    found, at = [], 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        found.append((jpeg[at + 1], at, end))
        at = end
        if found[-1][0] == 0xDA:
            break
    return found


def encoded(rng: random.Random) -> bytes:
    """An ordinary JPEG as a library makes it: any sampling, quality, size from 1x1 to 90x90, tables, restarts; one in
    ten with the segment by which Adobe says what its colours are."""
    jpeg = _encoded(rng)
    return jpeg[:2] + segment(0xEE, ADOBE) + jpeg[2:] if rng.random() < 0.1 else jpeg


def _encoded(rng: random.Random) -> bytes:
    sides = [rng.choice((1, 2, 3, rng.randint(4, 20), rng.randint(8, 90), rng.randint(8, 90))) for _ in range(2)]
    picture = picture_of(rng, *sides)
    quality, sampling = rng.randint(1, 100), rng.choice(list(SAMPLINGS))
    if rng.random() < 0.3:
        return bytes(simplejpeg.encode_jpeg(picture, quality=quality, colorsubsampling=sampling))
    restarts = rng.choice(
        ({}, {}, {"restart_marker_blocks": rng.choice((1, 2, 3, 7, 500))}, {"restart_marker_rows": 1})
    )
    subsampling = list(SAMPLINGS).index(sampling)
    return save(
        picture, "JPEG", quality=quality, subsampling=subsampling, optimize=rng.random() < 0.4, **restarts
    )  # fmt: skip


def of_sampling(sampling: str, width: int, height: int) -> bytes:
    """A scene of that size."""
    return bytes(simplejpeg.encode_jpeg(photo(width, height), quality=85, colorsubsampling=sampling))


def picture_of(rng: random.Random, width: int, height: int) -> Pixels:
    """A scene, noise, noise of two values, or one colour."""
    kind, seed = rng.randrange(4), rng.randrange(1 << 16)
    if kind == 0:
        return photo(width, height, seed)
    if kind == 3:
        return np.full((height, width, 3), rng.choices(range(256), k=3), np.uint8)
    picture = noise(width, height, seed=seed)
    return picture if kind == 1 else np.where(picture > 127, np.uint8(255), np.uint8(0))


# --- symbol by symbol -------------------------------------------------------------------------------------------


class Code:
    """A Huffman code for `symbols`: of random lengths, shortest for the first or for any, none of it all ones."""

    def __init__(self, rng: random.Random, symbols: list[int]) -> None:
        if rng.random() < 0.5:
            symbols = rng.sample(symbols, len(symbols))
        # Each length leaves room for the symbols that are still to come, all ones being none of them.
        counts, free, left = [0] * 16, 1, len(symbols)
        greed = rng.choice((0.02, 0.2, 0.5, 1.0))
        for length in range(1, 17):
            free *= 2
            room = (1 << (16 - length)) if length < 16 else 1
            most = min(left, free - 1, (free * room - 1 - left) // (room - 1) if room > 1 else left)
            counts[length - 1] = left if length == 16 else max(0, int(most * greed * rng.random()))
            if length < 16 and free * room - 1 - left == 0:
                counts[length - 1] = most
            free -= counts[length - 1]
            left -= counts[length - 1]
        self.body = bytes(counts) + bytes(symbols)
        self.codes: dict[int, str] = {}
        code, at = 0, iter(symbols)
        for length, count in enumerate(counts, 1):
            for _ in range(count):
                self.codes[next(at)] = f"{code:0{length}b}"
                code += 1
            code <<= 1


def _number(value: int, size: int) -> str:
    return f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if size else ""


def _size(value: int) -> int:
    return abs(value).bit_length()


def _block(rng: random.Random, dc: Code, ac: Code, mean: int, sizes: list[int], ends: float, beyond: float) -> str:
    """The bits of a block whose difference of means is `mean`; it ends early, or behind its end, as likely as told."""
    bits = dc.codes[_size(mean)] + _number(mean, _size(mean))
    place = 0
    while place < 63:
        if rng.random() < ends:
            return bits + ac.codes[0]
        run = rng.choice((0, 0, 0, 1, 2, 5, 15))
        size = rng.choice(sizes)
        symbol = 0xF0 if run == 15 and rng.random() < 0.5 else run << 4 | size
        if place + run + 1 > 63:
            over = symbol != 0xF0 and rng.random() < beyond
            return bits + (ac.codes[symbol] + "1" * size if over else "") + ac.codes[0]
        place += run + 1
        bits += ac.codes[symbol]
        if symbol != 0xF0:
            bits += f"{rng.getrandbits(size):0{size}b}"
    return bits


def _packed(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def written(rng: random.Random) -> bytes:
    """A JPEG of random tables and numbers, whole and in order."""
    across, down = rng.choice(list(SAMPLINGS.values()))
    width, height = rng.randint(1, 50), rng.randint(1, 50)
    codes = [Code(rng, list(range(12))) for _ in range(2)]
    codes += [
        Code(rng, [0, 0xF0, *(run << 4 | size for size in range(1, 16) for run in range(16))]) for _ in range(2)
    ]  # fmt: skip
    largest = rng.choice((1, 1, 2, 8, 16, 255))
    quantisers = [bytes(rng.randint(1, largest) for _ in range(64)) for _ in range(2)]
    chosen = [(rng.randrange(2), rng.randrange(2), rng.randrange(2)) for _ in range(3)]
    sizes = rng.choice(([1], [1, 2], [1, 2, 3, 5], [3, 6, 8], [1, 9, 10], [1, 2, 3, 12, 15], [2, 15]))
    ends, beyond = rng.choice((0.9, 0.3, 0.1, 0.02)), rng.choice((0, 0, 0, 0.1))
    columns, rows = -(-width // (8 * across)), -(-height // (8 * down))
    interval = rng.choice((0, 0, 1, 2, 3, 7, columns, columns * rows, 1000))
    parts: list[bytes] = []
    bits, before = "", [0, 0, 0]
    for mcu in range(columns * rows):
        if interval and mcu and mcu % interval == 0:
            parts.append(_packed(bits) + bytes((0xFF, 0xD0 + len(parts) % 8)))
            bits, before = "", [0, 0, 0]
        for component, (quantiser, dc, ac) in enumerate(chosen):
            for _ in range(across * down if component == 0 else 1):
                most = min(_MOST_MEAN // quantisers[quantiser][0], 1023)
                mean = rng.choice((before[component], rng.randint(-most, most), -most, most))
                bits += _block(rng, codes[dc], codes[2 + ac], mean - before[component], sizes, ends, beyond)
                before[component] = mean
    parts.append(_packed(bits))
    head = b"\xff\xd8" + segment(0xE0, _JFIF)
    head += b"".join(segment(0xDB, bytes((number,)) + table) for number, table in enumerate(quantisers))
    kinds = (0, 1, 0x10, 0x11)
    head += segment(0xC4, b"".join(bytes((kind,)) + code.body for kind, code in zip(kinds, codes, strict=True)))
    frame = [(1, across << 4 | down), (2, 0x11), (3, 0x11)]
    body = struct.pack(">BHHB", 8, height, width, 3)
    body += b"".join(bytes((*known, chosen[i][0])) for i, known in enumerate(frame))
    head += segment(0xC0, body) + (segment(0xDD, struct.pack(">H", interval)) if interval else b"")
    scan = b"".join(bytes((i + 1, dc << 4 | ac)) for i, (_, dc, ac) in enumerate(chosen))
    return head + segment(0xDA, b"\3" + scan + b"\0\x3f\0") + b"".join(parts) + b"\xff\xd9"


def tiny(counts: tuple[int, ...], coded: bytes, *, width: int = 8, height: int = 8, quantiser: int = 1) -> bytes:
    """A JPEG 4:4:4 whose differences of means have codes of so many lengths, from one bit on, for 0, 11 (or 1, where
    all have one bit); whose blocks end with a single 0."""
    symbols = b"\0\x0b" if len(counts) > 1 else b"\0\1"
    dc, ac = bytes(counts).ljust(16, b"\0") + symbols, b"\1" + bytes(16)
    return _plain(dc, ac, coded, width, height, quantiser)


def _plain(dc: bytes, ac: bytes, coded: bytes, width: int, height: int, quantiser: int) -> bytes:
    """A JPEG 4:4:4 with one table of each kind."""
    head = b"\xff\xd8" + segment(0xE0, _JFIF) + segment(0xDB, b"\0" + bytes((quantiser,)) * 64)
    head += segment(0xC4, b"\0" + dc + b"\x10" + ac)
    head += segment(0xC0, struct.pack(">BHHB", 8, height, width, 3) + b"\1\x11\0\2\x11\0\3\x11\0")
    return head + segment(0xDA, b"\3\1\0\2\0\3\0\0\x3f\0") + coded + b"\xff\xd9"


def steep(sign: int, quantiser: int) -> bytes:
    """A JPEG 4:4:4 of 8x8 whose brightness is 2,400 in its first place and 1,023 times `quantiser` below
    that, and its opposite beside; or all that with other signs."""
    dc, ac = b"\1\1".ljust(16, b"\0") + b"\0\x0a", b"\1\1".ljust(16, b"\0") + b"\0\x0a"
    bits = (
        "10"
        + _number(sign * 600, 10)
        + "10"
        + _number(-sign * 1023, 10)
        + "10"
        + _number(sign * 1023, 10)
        + "0000"
        + "0"
    )
    jpeg = _plain(dc, ac, _packed(bits), 8, 8, quantiser)
    return jpeg.replace(bytes((0, quantiser, quantiser)), bytes((0, 4, quantiser)), 1)


def endless(size: int) -> bytes:
    """A JPEG 4:4:4 of 40x8 with so many zeros as coded data, of which a block takes as much as one can: 16 bits for
    each symbol and 15 for each number."""
    dc, ac = bytes(15) + b"\1\0", bytes(15) + b"\1\x0f"
    return _plain(dc, ac, bytes(size), 40, 8, 1)


def climbing() -> bytes:
    """A JPEG whose brightness goes up by 2,047 with each of a million blocks, all of it multiplied by 0."""
    side = 8 * 1028
    four = int(("10" + "1" * 11 + "0" + "0000") * 4, 2).to_bytes(9, "big").replace(b"\xff", b"\xff\0")
    return tiny((1, 1), four * ((side // 8) ** 2 // 4), width=side, height=side, quantiser=0)


# --- damage -----------------------------------------------------------------------------------------------------


def ending_in_a_segment(jpeg: bytes) -> list[bytes]:
    """The file cut after each byte of each segment's body, which says that it ends there."""
    found = []
    for marker, start, end in segments(jpeg):
        found += [jpeg[:start] + segment(marker, jpeg[start + 4 : at]) for at in range(start + 4, end)]
    return found


def damaged(jpeg: bytes, other: bytes, rng: random.Random) -> bytes:
    """`jpeg` with one to three damages, some of them by parts of `other`."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        if len(jpeg) < 8:
            break
        jpeg = rng.choice(_DAMAGES)(jpeg, other, rng)
    return jpeg


def _any(jpeg: bytes, other: bytes, rng: random.Random) -> bytes:
    """Bits, bytes, cuts, insertions, anywhere."""
    body, at = bytearray(jpeg), rng.randrange(len(jpeg))
    kind = rng.randrange(5)
    if kind == 0:
        body[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        body[at] = rng.choice((0, 1, 0x7F, 0x80, 0xC4, 0xD0, 0xD9, 0xFF, rng.randrange(256)))
    elif kind == 2:
        del body[at : at + rng.choice((1, 1, 2, rng.randint(1, 40)))]
    elif kind == 3:
        start = rng.randrange(len(other))
        body[at : at + rng.randrange(30)] = other[start : start + rng.randrange(60)]
    else:
        body[at:at] = bytes(rng.choices((0, 0xFF, 0xD0, 0x55), k=rng.randint(1, 400 if rng.random() < 0.1 else 4)))
    return bytes(body)


def _field(jpeg: bytes, other: bytes, rng: random.Random) -> bytes:
    """One byte of a segment, or its length."""
    found = segments(jpeg)
    if not found:
        return jpeg
    _, start, end = rng.choice(found)
    at = rng.randrange(start, max(min(end, len(jpeg)), start + 1))
    value = rng.choice((0, 1, 2, 3, 0x11, 0x21, 0x22, 0x12, 0x41, 255, jpeg[at] + 1 & 255, jpeg[at] - 1 & 255))
    return jpeg[:at] + bytes((value,)) + jpeg[at + 1 :]


def _table(jpeg: bytes, other: bytes, rng: random.Random) -> bytes:
    """Quantisers and Huffman tables: values exchanged or replaced, a code made longer or shorter."""
    found = [(marker, start, end) for marker, start, end in segments(jpeg) if marker in (0xC4, 0xDB)]
    if not found:
        return jpeg
    body = bytearray(jpeg)
    marker, start, end = rng.choice(found)
    start, end = start + 5, min(end, len(body))
    if end - start < 18:
        return jpeg
    if marker == 0xC4 and rng.random() < 0.3:
        a, b = rng.randrange(start, start + 16), rng.randrange(start, start + 16)
        body[a], body[b] = max(body[a] - 1, 0), min(body[b] + 1, 255)
    elif rng.random() < 0.5:
        at = start + (16 if marker == 0xC4 else 0)
        a, b = rng.randrange(at, end), rng.randrange(at, end)
        body[a], body[b] = body[b], body[a]
    else:
        for _ in range(rng.choice((1, 5, 60))):
            body[rng.randrange(start, end)] = rng.choice((0, 1, 11, 12, 15, 0xF0, 255, rng.randrange(256)))
    return bytes(body)


def _order(jpeg: bytes, other: bytes, rng: random.Random) -> bytes:
    """A segment taken out, put in twice, or replaced by one of another file."""
    found = segments(jpeg)
    if not found:
        return jpeg
    _, start, end = rng.choice(found)
    _, at, _ = rng.choice(found)
    kind = rng.randrange(4)
    if kind == 0:
        return jpeg[:start] + jpeg[end:]
    if kind == 1:
        return jpeg[:at] + jpeg[start:end] + jpeg[at:]
    _, first, last = rng.choice(segments(other) or [(0, 2, 2)])
    return jpeg[: start if kind == 2 else at] + other[first:last] + (jpeg[end:] if kind == 2 else jpeg[at:])


def _coded(jpeg: bytes, other: bytes, rng: random.Random) -> bytes:
    """A bit of the coded data, a restart marker, or all the data exchanged."""
    found = segments(jpeg)
    begin = found[-1][2] if found else 2
    if begin >= len(jpeg):
        return jpeg
    body = bytearray(jpeg)
    kind = rng.randrange(4)
    if kind == 0:
        theirs = segments(other)
        return jpeg[:begin] + other[theirs[-1][2] if theirs else 2 :]
    marks = [at for at in range(begin, len(body) - 1) if body[at] == 0xFF and 0xD0 <= body[at + 1] <= 0xD9]
    if kind == 1 and marks:
        at = rng.choice(marks)
        body[at : at + 2] = rng.choice((b"", bytes(body[at : at + 2]) * 2, bytes((0xFF, 0xD0 + rng.randrange(10)))))
        return bytes(body)
    body[rng.randrange(begin, len(body))] ^= 1 << rng.randrange(8)
    return bytes(body)


_DAMAGES = (_any, _field, _table, _order, _coded)


def part_of(rng: random.Random, width: int, height: int) -> Part:
    """A part of a picture: all of it, one pixel, or anything between, often at an edge."""
    ends = []
    for side in (width, height):
        low = rng.choice((0, 0, rng.randrange(side), side - 1))
        ends.append((low, rng.choice((side, side, low + 1, rng.randint(low + 1, side)))))
    return ends[0][0], ends[1][0], ends[0][1], ends[1][1]


def size_of(jpeg: bytes) -> tuple[int, int]:
    """Width and height that the first baseline frame declares; 1, 1 where there is none."""
    for marker, start, end in segments(jpeg):
        if marker == 0xC0 and end - start >= 9 and end <= len(jpeg):
            height, width = struct.unpack(">HH", jpeg[start + 5 : start + 9])
            return max(width, 1), max(height, 1)
    return 1, 1
