from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest import drive
from loadtest.scenario import parse
from squint import cli
from tests.unit.loadtest.server import Asked, Server, answer
from tests.walls import ROOT

SCENARIO = """
name = "short"
deadline_ms = 1000
warmup_seconds = 0.1
[[images]]
kind = "thumbnail"
count = 2
[[phases]]
name = "calm"
rate = 50
seconds = 0.3
[[phases]]
name = "busy"
rate = 100
seconds = 0.3
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "short.toml"
    path.write_text(SCENARIO)
    return path


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_sent(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with Server() as server:
        code = cli.main(["load", server.url, "--scenario", str(scenario), "--out", str(tmp_path / "file")])
    assert (code, server.asked) == (1, [])
    assert capsys.readouterr().err == f"squint: load: --out {tmp_path}/file: File exists\n"


def test_it_writes_both_reports_and_prints_a_table(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Server() as server:
        code = cli.main(["load", server.url, "--scenario", str(scenario), "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert code == 0
    (page, figures) = sorted((tmp_path / "out").iterdir())
    assert (page.suffix, figures.suffix) == (".html", ".json")
    points = json.loads(figures.read_text())["runs"][0]["points"]
    assert [point["name"] for point in points] == ["calm", "busy"]
    assert sum(point["summary"]["counts"]["sent"] for point in points) <= len(server.asked)
    lines = said.out.splitlines()
    assert lines[0].startswith("RUN")
    assert [line.split()[0] for line in lines[1:3]] == ["calm", "busy"]
    assert str(figures) in lines[-1]
    assert "calm, busy" in said.err


def test_json_is_one_array(scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Server() as server:
        cli.main(["load", server.url, "--scenario", str(scenario), "--out", str(tmp_path), "--json", "--quiet"])
    said = capsys.readouterr()
    assert [row["run"] for row in json.loads(said.out)] == ["calm", "busy"]
    assert said.err == ""


def test_a_name_is_looked_up_once() -> None:
    with Server() as server:
        mixed = drive.reached(drive.prepare(parse(SCENARIO), f"http://localhost:{server.port}"))
    assert mixed.timed.host == mixed.free.host == "127.0.0.1"
    assert f"Host: localhost:{server.port}".encode() in mixed.timed.requests[0]


@pytest.mark.parametrize(
    ("url", "text", "message"),
    [
        ("http://127.0.0.1:1", SCENARIO, "nobody answers at 127.0.0.1 port 1"),
        ("nonsense://x", SCENARIO, "not an address of a service"),
        ("http://127.0.0.1:1", SCENARIO.replace("rate = 50", ""), "phases[0]: give either rate or load"),
    ],
)
def test_a_mistake_is_one_line(
    url: str, text: str, message: str, scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.write_text(text)
    assert cli.main(["load", url, "--scenario", str(scenario), "--quiet"]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_ctrl_c_writes_what_was_measured(scenario: Path, tmp_path: Path) -> None:
    processes: list[subprocess.Popen[str]] = []

    def reply(asked: Asked) -> bytes:
        if asked.number == 40:
            processes[0].send_signal(signal.SIGINT)
        return answer()

    scenario.write_text(SCENARIO.replace("seconds = 0.3", "seconds = 100"))
    with Server(reply) as server:
        command = [sys.executable, "-m", "squint", "load", server.url, "--scenario", str(scenario)]
        command += ["--out", str(tmp_path / "out"), "--quiet"]
        processes.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        out, err = processes[0].communicate(timeout=60)
    assert processes[0].returncode == 1, err
    assert "interrupted; wrote " in out
    found = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    assert found["interrupted"]
    (point,) = found["runs"][0]["points"]
    assert point["summary"]["counts"]["sent"] >= 30
    assert point["summary"]["counts"]["error"] == 0
    assert point["summary"]["seconds"] < 100
    page = next((tmp_path / "out").glob("*.html")).read_text()
    assert "Interrupted" in page
