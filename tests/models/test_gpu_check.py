"""`make gpu-check` carried out with tiny networks on a CPU: the script works before anyone has a GPU for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu import report
from tests.gpu.plan import STEPS
from tests.walls import ROOT

pytestmark = pytest.mark.torch

SECONDS = 2400.0


def test_a_small_run_does_every_step_and_reports(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.gpu", "--small", "--device", "cpu", "--backend", "onnxruntime"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    found = json.loads((tmp_path / report.DATA).read_text())
    assert {name: (one["status"], one["why"]) for name, one in found.items()} == {
        step.name: ("done", "") for step in STEPS
    }, done.stdout
    assert done.returncode == 0
    assert found["machine"]["matmul_tflops"] > 0
    rows = found["engine"]["rows"]
    assert {(row["level"], row["compiled"]) for row in rows} == {
        (level, compiled) for level in ("full", "fast") for compiled in (False, True)
    }
    assert all(row["images_per_second"] > 0 for row in rows), [row.get("error") for row in rows]
    assert not [row for row in found["agreement"]["rows"] if row["wrong"]]
    of_networks = [row for row in found["agreement"]["rows"] if row["model"] == "vit-tiny"]
    assert {(row["level"], row["reference"]) for row in of_networks} == {
        ("full", "PyTorch, now"),
        ("tome:12", "PyTorch, now"),
    }
    assert not [row for row in found["placement"]["rows"] if row["problem"]]
    (served,) = found["served"]["networks"]
    assert served["capacity"]["answered"] > 0 and served["twice_full"]["goodput"] > 0
    assert served["twice_auto"]["answered"] > 0 and set(served["twice_auto"]["levels"]) <= {"full", "fast"}
    assert found["start"]["again_seconds"] < found["start"]["first_seconds"]
    page = (tmp_path / report.PAGE).read_text()
    assert all(step.title in page for step in STEPS) and (tmp_path / "engine.svg").exists()
