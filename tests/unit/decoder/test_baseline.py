"""baseline.c gives libjpeg-turbo's pixels, bit for bit, or leaves the file to it."""

from __future__ import annotations

import io
import random
import struct
from collections import Counter

import numpy as np
import pytest
import simplejpeg
from PIL import Image, JpegImagePlugin

from service.decoder import baseline
from tests.unit.decoder import jpegs
from tests.unit.decoder.jpegs import Part, of_sampling, segment, segments
from tests.unit.decoder.own import needs_own
from tests.unit.decoder.scenes import Pixels, jpeg_header, jpeg_scan, noise, photo, save, with_segment

_SHORT, _FULL = 2_000, 300_000
_SHRINKS = (1, 2, 4, 8)


@pytest.fixture(scope="module")
def library() -> baseline.Baseline:
    return needs_own()


def shrunk(size: tuple[int, int], shrink: int) -> tuple[int, int]:
    return -(-size[0] // shrink), -(-size[1] // shrink)


def whole(library: baseline.Baseline, jpeg: bytes, shrink: int = 1) -> Pixels | None:
    """All of it, of the size that its frame declares."""
    size = jpegs.size_of(jpeg)
    return library.decode(jpeg, *size, shrink, (0, 0, *shrunk(size, shrink)))


def reference(jpeg: bytes, shrink: int) -> Pixels | None:
    """What simplejpeg makes of it or, where that refuses, Pillow; None where both do."""
    if shrink == 1:
        try:
            return np.asarray(simplejpeg.decode_jpeg(jpeg))
        except ValueError:
            pass
    return by_pillow(jpeg, shrink)


def by_pillow(jpeg: bytes, shrink: int) -> Pixels | None:
    """At exactly that fraction, which a picture of few pixels may not tell from others."""
    try:
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(jpeg))
        width, height = image._size = shrunk(image.size, shrink)
        image.tile = [image.tile[0]._replace(extents=(0, 0, width, height))]
        image.decoderconfig = (shrink, 0)
        image.load()
    except (OSError, SyntaxError, ValueError, IndexError, struct.error):
        return None
    return np.asarray(image.convert("RGB"))


def equal(got: Pixels | None, expected: Pixels | None) -> bool:
    return got is not None and expected is not None and np.array_equal(got, expected)


# --- equal ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [1, 30, 75, 92, 100])
@pytest.mark.parametrize("sampling", jpegs.SAMPLINGS)
def test_whole_pictures(library: baseline.Baseline, sampling: str, quality: int) -> None:
    for picture in (photo(321, 243), noise(130, 77), np.full((33, 65, 3), (250, 3, 128), np.uint8)):
        jpeg = bytes(simplejpeg.encode_jpeg(picture, quality=quality, colorsubsampling=sampling))
        assert equal(whole(library, jpeg), simplejpeg.decode_jpeg(jpeg))


@pytest.mark.parametrize("shrink", _SHRINKS)
@pytest.mark.parametrize("sampling", ["444", "420"])
def test_smaller_sizes(library: baseline.Baseline, sampling: str, shrink: int) -> None:
    for width, height in ((640, 480), (641, 483), (633, 487)):
        jpeg = of_sampling(sampling, width, height)
        columns, rows = shrunk((width, height), shrink)
        expected = simplejpeg.decode_jpeg(jpeg, min_width=columns, min_height=rows)
        assert expected.shape == (rows, columns, 3)
        assert equal(whole(library, jpeg, shrink), expected)


def test_smaller_sizes_of_422(library: baseline.Baseline) -> None:
    """At an eighth libjpeg repeats chroma, instead of smoothing it: that is left."""
    jpeg = of_sampling("422", 641, 483)
    for shrink in (2, 4):
        columns, rows = shrunk((641, 483), shrink)
        assert equal(
            whole(library, jpeg, shrink), simplejpeg.decode_jpeg(jpeg, min_width=columns, min_height=rows)
        )  # fmt: skip
    assert whole(library, jpeg, 8) is None


@pytest.mark.parametrize("sampling", jpegs.SAMPLINGS)
def test_every_small_size(library: baseline.Baseline, sampling: str) -> None:
    """Up to 18 x 18, and one pixel wide or high. What is narrower than three samples of chroma is left."""
    sizes = [(width, height) for width in range(1, 19) for height in range(1, 19)]
    for width, height in [*sizes, (1, 90), (90, 1), (5, 200), (200, 2)]:
        jpeg = of_sampling(sampling, width, height)
        for shrink in _SHRINKS:
            got = whole(library, jpeg, shrink)
            if got is None:
                chroma = -(-shrunk((width, height), shrink)[0] // 2)
                assert (sampling == "422" and (chroma <= 2 or shrink == 8)) or (sampling == "420" and chroma <= 2)
            else:
                assert equal(got, by_pillow(jpeg, shrink))


@pytest.mark.parametrize("shrink", _SHRINKS)
@pytest.mark.parametrize("sampling", jpegs.SAMPLINGS)
def test_parts(library: baseline.Baseline, sampling: str, shrink: int) -> None:
    """One pixel at every place of both axes, every width at both edges, and random ones."""
    jpeg = of_sampling(sampling, 83, 61)
    expected = by_pillow(jpeg, shrink)
    assert expected is not None
    rows, columns = expected.shape[:2]
    parts: list[Part] = [(x, 0, x + 1, rows) for x in range(columns)]
    parts += [(0, y, columns, y + 1) for y in range(rows)]
    parts += [(0, 0, x, rows) for x in range(1, columns + 1)] + [(x, 0, columns, rows) for x in range(columns)]
    parts += [(0, 0, columns, y) for y in range(1, rows + 1)] + [(0, y, columns, rows) for y in range(rows)]
    rng = random.Random(1)
    parts += [jpegs.part_of(rng, columns, rows) for _ in range(200)]
    for part in parts:
        got = library.decode(jpeg, 83, 61, shrink, part)
        if (sampling, shrink) == ("422", 8):
            assert got is None
        else:
            assert equal(got, expected[part[1] : part[3], part[0] : part[2]]), part


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {"restart_marker_blocks": 1},
        {"restart_marker_blocks": 7},
        {"restart_marker_blocks": 60_000},
        {"restart_marker_rows": 1},
        {"optimize": True},
        {"optimize": True, "restart_marker_blocks": 3},
        {"dpi": (300, 300), "comment": b"said"},
    ],
)
def test_restarts_and_tables(library: baseline.Baseline, subsampling: int, options: dict[str, object]) -> None:
    jpeg = save(photo(203, 155), "JPEG", quality=83, subsampling=subsampling, **options)
    assert equal(whole(library, jpeg), simplejpeg.decode_jpeg(jpeg))


def test_what_comes_between_is_passed_over(library: baseline.Baseline) -> None:
    jpeg = of_sampling("420", 50, 40)
    expected = simplejpeg.decode_jpeg(jpeg)
    for marker in (*range(0xE0, 0xEE), 0xEF, 0xFE):
        assert equal(whole(library, with_segment(jpeg, marker, b"\xff\xd8\xff\xd9" * 9)), expected)
    assert equal(whole(library, with_segment(jpeg, 0xEE, jpegs.ADOBE)), expected)
    assert equal(whole(library, with_segment(renamed(jpeg, b"RGB"), 0xEE, jpegs.ADOBE)), expected)
    assert equal(whole(library, jpeg + b"and more"), expected)


def test_every_kind_of_table_and_number(library: baseline.Baseline) -> None:
    """Files written symbol by symbol, of which only those with numbers that no picture has are left."""
    rng, answers = random.Random(4), Counter[str]()
    for _ in range(400):
        answers[answer(library, jpegs.written(rng), rng)] += 1
    assert set(answers) == {"equal", "left"}
    assert answers["equal"] > 150


def test_nothing_is_kept_from_another_file(library: baseline.Baseline) -> None:
    """Tables are built again when they differ, and are not there for a file that does not bring them."""
    rng = random.Random(5)
    files = [jpegs.encoded(rng) for _ in range(12)] + [jpegs.written(rng) for _ in range(12)]
    alone = [whole(baseline.Baseline(str(baseline.built())), file) for file in files]
    for _ in range(200):
        at = rng.randrange(len(files))
        got = whole(library, files[at])
        assert (got is None and alone[at] is None) or equal(got, alone[at])
    assert whole(library, without(of_sampling("420", 50, 40), 0xC4)) is None
    assert whole(library, without(of_sampling("420", 50, 40), 0xDB)) is None


# --- left -------------------------------------------------------------------------------------------------------


def without(jpeg: bytes, marker: int) -> bytes:
    """A file without its segments of one kind."""
    for found, start, end in reversed(segments(jpeg)):
        if found == marker:
            jpeg = jpeg[:start] + jpeg[end:]
    return jpeg


def renamed(jpeg: bytes, names: bytes) -> bytes:
    """A file without JFIF whose components have other names."""
    jpeg = without(jpeg, 0xE0)
    body = bytearray(jpeg)
    places = {marker: start for marker, start, _ in segments(jpeg)}
    for i, name in enumerate(names):
        body[places[0xC0] + 10 + 3 * i] = body[places[0xDA] + 5 + 2 * i] = name
    return bytes(body)


def with_frame(jpeg: bytes, offset: int, value: int) -> bytes:
    """A file with one byte of its frame header's body changed."""
    at = next(start for marker, start, _ in segments(jpeg) if marker == 0xC0) + 4 + offset
    return jpeg[:at] + bytes((value,)) + jpeg[at + 1 :]


def _frame_marker(jpeg: bytes, marker: int) -> bytes:
    at = next(start for found, start, _ in segments(jpeg) if found == 0xC0) + 1
    return jpeg[:at] + bytes((marker,)) + jpeg[at + 1 :]


_SCENE = photo(50, 40)
_ORDINARY = of_sampling("420", 50, 40)
_RESTARTED = save(_SCENE, "JPEG", restart_marker_blocks=2)
NOT_FOR_IT = {
    "nothing": b"",
    "a header alone": b"\xff\xd8\xff\xd9",
    "no scan": jpeg_header(50, 40) + b"\xff\xd9",
    "no tables": jpeg_header(50, 40) + jpeg_scan() + b"\0\0\xff\xd9",
    "progressive": save(_SCENE, "JPEG", progressive=True),
    "grey": save(Image.fromarray(_SCENE).convert("L"), "JPEG"),
    "CMYK": save(Image.fromarray(_SCENE).convert("CMYK"), "JPEG"),
    "4:4:0": of_sampling("440", 50, 40),
    "4:1:1": of_sampling("411", 50, 40),
    "RGB": save(_SCENE, "JPEG", keep_rgb=True),
    "named R, G, B": renamed(_ORDINARY, b"RGB"),
    "named 0, 1, 2": renamed(_ORDINARY, b"\0\1\2"),
    "12 bits": with_frame(_ORDINARY, 0, 12),
    "extended": _frame_marker(_ORDINARY, 0xC1),
    "lossless": _frame_marker(_ORDINARY, 0xC3),
    "arithmetic": _frame_marker(_ORDINARY, 0xC9),
    "Adobe's transform 0": with_segment(_ORDINARY, 0xEE, jpegs.ADOBE[:-1] + b"\0"),
    "Adobe's transform 2": with_segment(_ORDINARY, 0xEE, jpegs.ADOBE[:-1] + b"\2"),
    "short Adobe": with_segment(_ORDINARY, 0xEE, jpegs.ADOBE[:-1]),
    "no EOI": _ORDINARY[:-2],
    "half an EOI": _ORDINARY[:-1],
    "half": _ORDINARY[: len(_ORDINARY) // 2],
    "a byte too many": _ORDINARY[:-2] + b"\0\xff\xd9",
    "filled markers": _ORDINARY[:-2] + b"\xff\xff\xd9",
    "restart without interval": without(_RESTARTED, 0xDD),
    "interval without restart": with_segment(_ORDINARY, 0xDD, b"\0\1"),
    "restarts out of order": _RESTARTED.replace(b"\xff\xd1", b"\xff\xd2", 1),
    "restart missing": _RESTARTED.replace(b"\xff\xd1", b"", 1),
    "a scan each": save(_SCENE, "JPEG", progressive=True).replace(b"\xff\xc2", b"\xff\xc0", 1),
    "two frames": _ORDINARY[:2] + jpeg_header(50, 40)[2:] + _ORDINARY[2:],
    "quantisers of 16 bits": with_segment(_ORDINARY, 0xDB, b"\x10" + b"\0\1" * 64),
    "quantisers of zero": with_segment(without(_ORDINARY, 0xDB), 0xDB, b"\0" + bytes(64) + b"\1" + bytes(64)),
    "tables of number 2": with_segment(_ORDINARY, 0xC4, b"\2" + bytes(16)),
    "table cut": with_segment(_ORDINARY, 0xC4, b"\0" + bytes(15)),
    "table longer than its segment": with_segment(_ORDINARY, 0xC4, b"\0" + bytes((9, *[0] * 15))),
    "quantisers cut": with_segment(_ORDINARY, 0xDB, b"\0" + b"\1" * 63),
    "quantisers of number 4": with_segment(_ORDINARY, 0xDB, b"\4" + b"\1" * 64),
    "257 symbols": with_segment(_ORDINARY, 0xC4, b"\0" + bytes((255, 2, *[0] * 14)) + bytes(257)),
}


@pytest.mark.parametrize("name", NOT_FOR_IT)
def test_left(library: baseline.Baseline, name: str) -> None:
    jpeg = NOT_FOR_IT[name]
    for shrink in _SHRINKS:
        part = (0, 0, *shrunk((50, 40), shrink))
        assert library.decode(jpeg, 50, 40, shrink, part) is None


def test_the_files_that_those_were_made_of_are_for_it(library: baseline.Baseline) -> None:
    for jpeg in (_ORDINARY, _RESTARTED, with_frame(_ORDINARY, 0, 8), renamed(_ORDINARY, b"\1\2\3")):
        assert equal(whole(library, jpeg), simplejpeg.decode_jpeg(jpeg))


def test_cut_anywhere(library: baseline.Baseline) -> None:
    jpeg = save(photo(40, 24), "JPEG", quality=60, restart_marker_blocks=2)
    for end in range(len(jpeg)):
        assert library.decode(jpeg[:end], 40, 24, 1, (0, 0, 40, 24)) is None


@pytest.mark.parametrize("part", [(-1, 0, 9, 9), (0, -1, 9, 9), (0, 0, 51, 9), (0, 0, 9, 41), (50, 40, 51, 41)])
def test_parts_outside(library: baseline.Baseline, part: Part) -> None:
    assert library.decode(_ORDINARY, 50, 40, 1, part) is None


def test_other_sizes_than_the_header_says(library: baseline.Baseline) -> None:
    assert library.decode(_ORDINARY, 51, 40, 1, (0, 0, 50, 40)) is None
    assert library.decode(_ORDINARY, 50, 39, 1, (0, 0, 50, 39)) is None
    assert library.decode(_ORDINARY, 50, 40, 3, (0, 0, 10, 10)) is None


def test_parts_too_large_for_its_memory(library: baseline.Baseline) -> None:
    jpeg = bytes(simplejpeg.encode_jpeg(np.zeros((5000, 5000, 3), np.uint8)))
    assert whole(library, jpeg) is None
    assert equal(library.decode(jpeg, 5000, 5000, 1, (0, 0, 5000, 2500)), np.zeros((2500, 5000, 3), np.uint8))


# --- what only an attacker writes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
def test_numbers_that_no_picture_has_are_left(library: baseline.Baseline, shrink: int) -> None:
    """What comes of them between the two passes would not fit 16 bits, and libjpeg-turbo keeps 32 at a quarter."""
    for sign in (-1, 1):
        for quantiser in range(1, 9):
            jpeg = jpegs.steep(sign, quantiser)
            got = whole(library, jpeg, shrink)
            assert (got is None) == (quantiser > 3 and shrink < 8)
            assert got is None or equal(got, reference(jpeg, shrink))


def test_codes_of_all_ones_are_left(library: baseline.Baseline) -> None:
    """The library refuses them."""
    usual, ones = (1, 1), (2,)
    assert equal(whole(library, jpegs.tiny(usual, b"\x03")), simplejpeg.decode_jpeg(jpegs.tiny(usual, b"\x03")))
    jpeg = jpegs.tiny(ones, b"\x03")
    assert reference(jpeg, 1) is None
    assert whole(library, jpeg) is None


def test_sums_of_differences_have_a_bound(library: baseline.Baseline) -> None:
    """A million blocks of 2,047 more than the one before, all of them multiplied by zero."""
    jpeg = jpegs.climbing()
    assert library.decode(jpeg, *jpegs.size_of(jpeg), 8, (0, 0, 16, 16)) is None


def test_sides_that_the_library_refuses_are_left(library: baseline.Baseline) -> None:
    for width, known in ((65_496, True), (65_500, True), (65_501, False), (65_535, False)):
        bits = -(-width // 8) * 6
        coded = ((1 << -bits % 8) - 1).to_bytes(-(-bits // 8), "big")
        jpeg = jpegs.tiny((1, 1), coded, width=width)
        assert (reference(jpeg, 1) is not None) == known
        assert (whole(library, jpeg) is not None) == known


def test_tables_that_are_replaced_may_be_anything(library: baseline.Baseline) -> None:
    """Only those count that a scan uses: what was there before is not even looked at."""
    for wrong in (bytes((2, *[0] * 15, 0, 1)), bytes((*[0] * 15, 1, 99)), bytes((0, 4, *[0] * 14, 1, 2, 3, 4))):
        for kind in (0, 1, 0x10, 0x11):
            jpeg = with_segment(_ORDINARY, 0xC4, bytes((kind,)) + wrong)
            assert equal(whole(library, jpeg), simplejpeg.decode_jpeg(jpeg))
    at = next(start for marker, start, _ in segments(_ORDINARY) if marker == 0xDA)
    jpeg = _ORDINARY[:at] + segment(0xC4, b"\0" + bytes((2, *[0] * 15, 0, 1))) + _ORDINARY[at:]
    assert whole(library, jpeg) is None


# --- damaged ----------------------------------------------------------------------------------------------------


def answer(library: baseline.Baseline, jpeg: bytes, rng: random.Random) -> str:
    """`left`, `equal` or what is wrong, for some part of it at some size."""
    size, shrink = jpegs.size_of(jpeg), rng.choice((1, 1, 1, 2, 4, 8))
    part = jpegs.part_of(rng, *shrunk(size, shrink))
    got = library.decode(jpeg, *size, shrink, part)
    if got is None:
        return "left"
    expected = reference(jpeg, shrink)
    if expected is None:
        return "only it decodes that"
    return "equal" if equal(got, expected[part[1] : part[3], part[0] : part[2]]) else "different"


def attack(library: baseline.Baseline, count: int, seed: int) -> Counter[str]:
    """How often it answered what to so many damaged files."""
    rng, answers = random.Random(seed), Counter[str]()
    corpus: list[bytes] = []
    for i in range(count):
        if i % 2_000 == 0:
            corpus = [jpegs.encoded(rng) for _ in range(60)] + [jpegs.written(rng) for _ in range(60)]
        answers[answer(library, jpegs.damaged(rng.choice(corpus), rng.choice(corpus), rng), rng)] += 1
    return answers


def test_damaged_files_are_left_or_equal(library: baseline.Baseline) -> None:
    answers = attack(library, _SHORT, seed=1)
    assert set(answers) == {"left", "equal"}
    assert answers["equal"] > _SHORT // 10


@pytest.mark.fuzz
def test_many_damaged_files_are_left_or_equal(library: baseline.Baseline) -> None:
    answers = attack(library, _FULL, seed=2)
    assert set(answers) == {"left", "equal"}
    assert answers["equal"] > _FULL // 10
