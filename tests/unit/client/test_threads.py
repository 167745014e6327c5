"""The first answers of a kind, read by several threads at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.client import answers
from tests.unit.crowd import first_together

SETUP = "from squint.client import exchange; kind, body = getattr(exchange, sys.argv[1]), sys.argv[2].encode()"


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("Classification", answers.CLASSIFICATION),
        ("Detections", answers.DETECTIONS),
        ("Segmentation", answers.SEGMENTATION),
        ("Model", answers.MODEL),
        ("Models", {"models": [answers.MODEL]}),
    ],
)
def test_threads_may_share_a_client_from_the_first_answer_on(kind: str, answer: dict[str, Any]) -> None:
    assert first_together(SETUP, 'exchange.read(body, kind, "id")', kind, json.dumps(answer)) == (0, "")
