"""The first answers of a kind, read by several threads at once."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.service import ROOT
from tests.unit.client import answers

PROGRAM = """
import sys, threading, time
from squint.client import exchange

def slowly(frame, event, argument):
    # While msgspec looks at a type for the first time, it lets others go on: they meet a type that is half made.
    if event == "call" and "msgspec" in frame.f_code.co_filename:
        time.sleep(0.005)

def ask(number, kind, body):
    sys.setprofile(slowly)
    time.sleep(number * 0.005)
    exchange.read(body, kind, "id")

kind, body = getattr(exchange, sys.argv[1]), sys.argv[2].encode()
threads = [threading.Thread(target=ask, args=(number, kind, body)) for number in range(30)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


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
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, json.dumps(answer)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
