"""baseline.c under AddressSanitizer and UndefinedBehaviorSanitizer: whatever it is given, it stays in its memory.

It runs in a program of its own (sanitized.c) whose pieces of memory are exactly as large as baseline.py makes them.
"""

from __future__ import annotations

import os
import platform
import random
import shutil
import struct
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from service.decoder.baseline import scratch_bytes
from tests.deploy.tools import lacking
from tests.unit.decoder import jpegs
from tests.unit.decoder.scenes import noise, photo, save, with_segment

_HERE = Path(__file__).parent
_SOURCES = [_HERE / "sanitized.c", *(_HERE.parents[2] / "service" / "decoder" / "native").glob("*.c")]
_FLAGS = ["-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-mavx2", "-mbmi", "-mbmi2"]
_SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
_SHORT, _FULL = 3_000, 300_000
_AT_ONCE = 2_000


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("baseline.c is for x86-64")
    if shutil.which("cc") is None:
        lacking("needs a C compiler")
    directory = tmp_path_factory.mktemp("sanitized")
    probe, built = directory / "probe.c", directory / "sanitized"
    probe.write_text(
        'int main(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") ? 0 : 9; }\n'
    )
    if subprocess.run(["cc", *_SANITIZERS, probe, "-o", built], capture_output=True).returncode:
        lacking("needs a C compiler with AddressSanitizer and UndefinedBehaviorSanitizer")
    if subprocess.run([built]).returncode == 9:
        pytest.skip("needs AVX2 and BMI2")
    subprocess.run(["cc", *_FLAGS, *_SANITIZERS, *_SOURCES, "-o", built], check=True)
    return built


def case(jpeg: bytes, size: tuple[int, int], shrink: int, part: jpegs.Part) -> bytes:
    """One case as the program reads it."""
    numbers = (*size, shrink, *part, scratch_bytes(part, len(jpeg)), len(jpeg))
    return struct.pack("=9i", *numbers) + jpeg


def with_scratch(jpeg: bytes, size: tuple[int, int], part: jpegs.Part, scratch: int) -> bytes:
    """One case in so much memory."""
    return struct.pack("=9i", *size, 1, *part, scratch, len(jpeg)) + jpeg


def any_case(rng: random.Random, corpus: list[bytes]) -> bytes:
    """A file, damaged three times out of four, some part of it, at some size."""
    jpeg = rng.choice(corpus)
    if rng.random() < 0.75:
        jpeg = jpegs.damaged(jpeg, rng.choice(corpus), rng)
    width, height = jpegs.size_of(jpeg)
    shrink = rng.choice((1, 1, 2, 4, 8))
    part = jpegs.part_of(rng, -(-width // shrink), -(-height // shrink))
    # What baseline.py keeps between images ends at some size, and files that only claim to be large take time.
    if scratch_bytes(part, len(jpeg)) > 1 << 20:
        part = (part[0], part[1], min(part[0] + 100, part[2]), min(part[1] + 100, part[3]))
    return case(jpeg, (width, height), shrink, part)


def told_of(program: Path, cases: list[bytes]) -> str:
    """What the program says of each case. Fails with the sanitizers' report where there is one."""
    options = {"ASAN_OPTIONS": "abort_on_error=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    done = subprocess.run([program], input=b"".join(cases), capture_output=True, env={**os.environ, **options})
    told = done.stdout.decode()
    assert done.returncode == 0, f"case {len(told)}: {done.stderr.decode()[:4000]}"
    assert len(told) == len(cases)
    return told


def attack(program: Path, count: int, seed: int) -> Counter[str]:
    """How often the program answered what, to so many cases."""
    rng, answers = random.Random(seed), Counter[str]()
    while (done := answers.total()) < count:
        corpus = [jpegs.encoded(rng) for _ in range(60)] + [jpegs.written(rng) for _ in range(60)]
        cases = [any_case(rng, corpus) for _ in range(min(_AT_ONCE, count - done))]
        answers.update(told_of(program, cases))
    return answers


def test_damaged_files_are_decoded_within_their_memory(program: Path) -> None:
    answers = attack(program, _SHORT, seed=1)
    assert set(answers) == {"D", "L"}
    assert answers["D"] > _SHORT // 6
    assert answers["L"] > _SHORT // 6


@pytest.mark.fuzz
def test_many_damaged_files_are_decoded_within_their_memory(program: Path) -> None:
    answers = attack(program, _FULL, seed=2)
    assert set(answers) == {"D", "L"}
    assert answers["D"] > _FULL // 6


@pytest.mark.parametrize("sampling", jpegs.SAMPLINGS)
def test_memory_suffices_for_every_part(program: Path, sampling: str) -> None:
    """All parts of a row and of a column, each exact in the memory that it is given."""
    jpeg = jpegs.of_sampling(sampling, 37, 37)
    cases = []
    for shrink in (1, 2, 4) if sampling == "422" else (1, 2, 4, 8):
        side = -(-37 // shrink)
        spans = [(low, high) for low in range(side) for high in range(low + 1, side + 1)]
        cases += [case(jpeg, (37, 37), shrink, (low, 0, high, side)) for low, high in spans]
        cases += [case(jpeg, (37, 37), shrink, (0, low, side, high)) for low, high in spans]
        cases += [case(jpeg, (37, 37), shrink, (low, low, high, high)) for low, high in spans]
    assert set(told_of(program, cases)) == {"D"}


def test_sums_of_differences_have_a_bound(program: Path) -> None:
    jpeg = jpegs.climbing()
    assert told_of(program, [case(jpeg, jpegs.size_of(jpeg), 8, (0, 0, 16, 16))]) == "L"


def test_files_that_end_early(program: Path) -> None:
    """Anywhere, and with a segment that says so."""
    jpeg = with_segment(save(photo(40, 40), "JPEG", restart_marker_blocks=2), 0xEE, jpegs.ADOBE)
    cut = [jpeg[:size] for size in range(len(jpeg))] + jpegs.ending_in_a_segment(jpeg)
    assert set(told_of(program, [case(each, (40, 40), 1, (0, 0, 40, 40)) for each in cut])) == {"L"}


def test_frames_and_scans_that_say_anything(program: Path) -> None:
    """Every value of every byte."""
    jpeg, cases = jpegs.of_sampling("420", 24, 24), []
    for marker, start, end in jpegs.segments(jpeg):
        for at in range(start + 2, end) if marker in (0xC0, 0xDA) else ():
            for value in range(256):
                changed = jpeg[:at] + bytes((value,)) + jpeg[at + 1 :]
                width, height = jpegs.size_of(changed)
                cases.append(case(changed, (width, height), 1, (0, 0, min(width, 24), min(height, 24))))
    answers = Counter(told_of(program, cases))
    assert set(answers) == {"D", "L"}
    assert answers["D"] > 50


@pytest.mark.parametrize("part", [(0, 0, 40, 40), (0, 0, 8, 8)])
def test_too_little_memory_is_noticed(program: Path, part: jpegs.Part) -> None:
    """Whatever is missing, the file is left, and what baseline.py gives is more than is needed. What lacks is once room
    for the pixels, once for the coded data."""
    jpeg = save(noise(40, 40), "JPEG", quality=100)
    cases = [with_scratch(jpeg, (40, 40), part, size) for size in range(0, 14_000, 11)]
    told = told_of(program, cases)
    enough = told.index("D")
    assert set(told[:enough]) == {"N"}
    assert set(told[enough:]) == {"D"}
    assert 11 * enough <= scratch_bytes(part, len(jpeg))


def test_data_that_ends_within_the_largest_block(program: Path) -> None:
    """Zeros are read behind the data, and none behind those."""
    part = (32, 0, 40, 8)
    cases = []
    for size in range(2950, 3250, 15):
        jpeg = jpegs.endless(size)
        cases += [with_scratch(jpeg, (40, 8), part, len(jpeg) + more) for more in range(0, 900, 8)]
    assert set(told_of(program, cases)) == {"L"}
