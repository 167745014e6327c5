"""service.log: what a line may hold, whatever it is given."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import log


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    log.configure("info")
    yield
    log.configure("info")


def test_a_line_is_one_json_object_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", process="gateway")
    log.event("request", status=200, seconds=0.0123456789, model=None, path=Path("/a"), late=False)
    line = json.loads(capsys.readouterr().err)
    assert line.pop("ts").endswith("Z")
    assert line == {
        "severity": "info",
        "event": "request",
        "process": "gateway",
        "status": 200,
        "seconds": 0.012346,
        "model": None,
        "path": "/a",
        "late": False,
    }


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("warning")
    log.event("quiet")
    log.event("loud", severity="error")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["loud"]


@given(st.text())
def test_no_value_can_break_out_of_its_line(text: str) -> None:
    stderr, sys.stderr = sys.stderr, io.StringIO()
    try:
        log.event("request", path=text)
        written = sys.stderr.getvalue()
    finally:
        sys.stderr = stderr
    assert written.endswith("\n")
    assert all(" " <= character <= "~" for character in written[:-1])
    assert json.loads(written)["path"] == text[:256]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_cannot_say_is_null(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    log.event("x", value=value)
    assert json.loads(capsys.readouterr().err)["value"] is None


def test_a_reader_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(text)

    monkeypatch.setattr(sys, "stderr", Gone())
    log.event("x")
