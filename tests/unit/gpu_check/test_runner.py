"""The script of `make gpu-check`, with steps that are none: what fails, hangs or cannot be done stops nothing else."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gpu import report, runner
from tests.gpu.plan import STEPS, Settings, Step

HERE = "tests.unit.gpu_check.steps"


def step(name: str, seconds: float = 30.0) -> Step:
    return Step(name, f"Step {name}", f"{HERE}.{name}", seconds, seconds)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(str(tmp_path / "out"), "cpu", "auto", small=True)


def test_a_step_that_fails_hangs_or_cannot_be_done_stops_no_other(settings: Settings) -> None:
    names = ("breaks", "hangs", "cannot", "misses", "works")
    steps = [step(name, 3.0 if name == "hangs" else 30.0) for name in names]
    heard: list[str] = []
    results = runner.carry_out(settings, steps, told=lambda one, result: heard.append(one.name))
    assert heard == list(names)
    assert [result.status for result in results] == ["failed", "late", "cannot", "cannot", "done"]
    breaks, hangs, cannot, misses, works = results
    assert "it broke" in breaks.why and breaks.data == {"before": 1}
    assert hangs.why.startswith("took longer than 3 s")
    assert cannot.why == "this machine has no such thing"
    assert misses.why == "needs a_library_that_is_not_there, which is not installed"
    assert works.data == {"device": "cpu", "small": True}
    hung = int((settings.folder / "hung.pid").read_text())
    end = time.monotonic() + 10
    while Path(f"/proc/{hung}").exists() and "Z" not in Path(f"/proc/{hung}/stat").read_text().rpartition(")")[2][:3]:
        assert time.monotonic() < end, "what a step started outlives it"
        time.sleep(0.05)


def test_what_is_done_is_not_repeated_until_something_changes(settings: Settings) -> None:
    steps = [step("works"), step("cannot")]
    first = runner.carry_out(settings, steps)
    second = runner.carry_out(settings, steps)
    assert second[0] == first[0]
    assert second[1].status == "cannot"
    runs = settings.folder / "runs"
    assert runs.read_text() == "once\n"
    runner.carry_out(settings, steps[:1], again=True)
    runner.carry_out(msgspec.structs.replace(settings, backend="onnxruntime"), steps[:1])
    assert runs.read_text() == "once\n" * 3


def test_a_step_goes_on_from_what_it_came_to_know(settings: Settings) -> None:
    """Too late the first time, for another part the second, again from the beginning when it is asked for."""
    short = msgspec.structs.replace(settings, limit=3.0)
    (first,) = runner.carry_out(short, [step("goes_on")])
    assert first.status == "late" and first.data == {"rows": ["one"]}
    (second,) = runner.carry_out(settings, [step("goes_on")])
    assert second.status == "done" and second.data == {"rows": ["one", "two"]}
    (third,) = runner.carry_out(msgspec.structs.replace(settings, models=("other",)), [step("goes_on")])
    assert third.data == {"rows": ["one", "two", "other"]}
    (fourth,) = runner.carry_out(short, [step("goes_on")], again=True)
    assert fourth.data == {"rows": ["one"]}


def test_a_part_is_what_was_asked_for(settings: Settings) -> None:
    large = msgspec.structs.replace(settings, small=False)
    assert [one.name for one in large.networks] == ["vit-b", "vit-l"]
    (only,) = msgspec.structs.replace(large, models=("vit-l",), levels=("fast",), batches=(64,)).networks
    assert only.levels == {"fast": "tome:8"} and only.batches == (64,)


def test_results_may_lie_apart_from_what_is_made(settings: Settings, tmp_path: Path) -> None:
    apart = msgspec.structs.replace(settings, work=str(tmp_path / "work"))
    report.write(apart, [step("works")], runner.carry_out(apart, [step("works")]))
    assert sorted(path.name for path in Path(apart.out).iterdir()) == [report.DATA, report.PAGE]
    assert (tmp_path / "work" / "works.log").exists()


def test_every_step_is_there_and_bounded() -> None:
    names = [one.name for one in STEPS]
    assert len(set(names)) == len(names)
    assert all(0 < one.small <= 600 and 0 < one.seconds <= 3600 for one in STEPS)
    assert {bar.step for bar in report.BARS} <= set(names)


def data(**steps: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return steps


def verdicts(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {row[0]: row[3] for row in (bar.row(found, {}) for bar in report.BARS)}


def test_a_bar_is_met_missed_or_not_measured() -> None:
    assert set(verdicts({}).values()) == {"not measured (not run)"}
    full = {"network": "vit-l", "level": "full", "share": 0.44}
    served = {"network": "vit-l", "served_of_bare": 0.9, "twice_full": {"of_capacity": 0.95}}
    found = verdicts(
        data(
            agreement={"rows": [{"wrong": ""}, {"wrong": "far away"}]},
            placement={"rows": [{"problem": ""}]},
            engine={"rows": [full], "speedups": []},
            served={"networks": [served]},
            start={"again_seconds": 14.2},
        )
    )
    assert found["levels that disagree with PyTorch fp32"] == "missed"
    assert found["levels with a node on the CPU (ONNX Runtime)"] == "met"
    assert found["ViT-L bf16, bare: share of the rate of matrix products"] == "missed"
    assert found["ViT-L served from JPEG over the bare engine"] == "met"
    assert found["ViT-L goodput at twice the load over the peak"] == "met"
    assert found["start to ready from what was kept, s"] == "met"
    assert found["ViT-L with `auto` over the peak of `full`"] == "not measured (not run)"
    assert found["ViT-B `fast`, bare: speed-up at the best batch"] == "not measured (not run)"


def test_the_page_tells_of_steps_that_did_not_end_well(settings: Settings) -> None:
    steps = [step("breaks"), step("cannot"), step("works")]
    large = msgspec.structs.replace(settings, small=False)
    path = report.write(large, steps, runner.carry_out(settings, steps))
    page = path.read_text()
    assert "## Step breaks" in page and "it broke" in page and "| before | 1 |" in page
    assert "cannot," in page and "this machine has no such thing" in page
    assert "not measured" in page and (path.parent / report.DATA).stat().st_size > 100
