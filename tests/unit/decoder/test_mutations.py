"""Mutations of a small corpus: an answer or a typed refusal, and nothing else."""

from __future__ import annotations

import random
import time

import pytest

from service.config import Limits
from service.decoder import image
from service.errors import Refusal
from service.wire.messages.decoder import Fitting
from tests.unit.decoder.golden import GOLDEN

_FITTING = Fitting(fit="letterbox", height=32, width=40, fill=(0, 0, 0))
_SHORT, _FULL = 1_000, 10_000
_SECONDS = 0.5


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to four damages: flipped bits, cuts, splices, repeated parts, and numbers of the kind that lengths are."""
    body = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if len(body) < 8:
            break
        # Headers are where it hurts, so every other damage is near the start.
        at = rng.randrange(min(len(body), 200) if rng.random() < 0.5 else len(body))
        kind = rng.randrange(6)
        if kind == 0:
            body[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            body[at] = rng.choice((0, 1, 0x7F, 0x80, 0xD9, 0xDA, 0xFE, 0xFF))
        elif kind == 2:
            del body[at : at + rng.randint(1, 40)]
        elif kind == 3:
            body[at:at] = body[at // 2 : at // 2 + rng.randint(1, 60)]
        elif kind == 4:
            start = rng.randrange(len(other))
            body[at : at + 30] = other[start : start + rng.randint(1, 60)]
        else:
            size = rng.choice((2, 3, 4))
            number = rng.choice((0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, len(body))) & (256**size - 1)
            body[at : at + size] = number.to_bytes(size, rng.choice(("big", "little")))
    return bytes(body)


def attack(count: int, seed: int) -> tuple[dict[str, int], float]:
    """Decode `count` mutations; how often each answer came, and the longest CPU time."""
    corpus = [golden.data for golden in (make() for make in GOLDEN.values()) if len(golden.data) < 60_000]
    rng = random.Random(seed)
    answers: dict[str, int] = {}
    longest = 0.0
    out = memoryview(bytearray(32 * 40 * 3))
    for _ in range(count):
        data = mutate(rng.choice(corpus), rng.choice(corpus), rng)
        started = time.process_time()
        try:
            image.decode(data, out, _FITTING, Limits())
            answer = "ok"
        except Refusal as refusal:
            answer = refusal.code
        longest = max(longest, time.process_time() - started)
        answers[answer] = answers.get(answer, 0) + 1
    return answers, longest


def test_mutations() -> None:
    answers, _ = attack(_SHORT, seed=1)
    assert set(answers) <= {"ok", "unsupported_media_type", "undecodable_image", "image_too_large"}
    assert answers["ok"] > 50
    assert answers["undecodable_image"] > 300


@pytest.mark.fuzz
def test_many_mutations() -> None:
    answers, longest = attack(_FULL, seed=2)
    assert set(answers) <= {"ok", "unsupported_media_type", "undecodable_image", "image_too_large"}
    assert sum(answers.values()) == _FULL
    assert longest <= _SECONDS


def test_fast_and_exact_library_agree_on_what_is_corrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """simplejpeg never accepts a JPEG that Pillow refuses: with it switched off, the verdicts are the same."""
    rng = random.Random(3)
    corpus = [make().data for name, make in GOLDEN.items() if name.startswith("jpeg") and "x" not in name]
    mutants = [mutate(rng.choice(corpus), rng.choice(corpus), rng) for _ in range(400)]

    def verdicts() -> list[str]:
        result = []
        for data in mutants:
            try:
                image.pixels(data, Limits())
                result.append("ok")
            except Refusal as refusal:
                result.append(refusal.code)
        return result

    def refuse(*_: object, **__: object) -> None:
        raise ValueError

    with_it = verdicts()
    monkeypatch.setattr("simplejpeg.decode_jpeg", refuse)
    assert verdicts() == with_it
