from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from models import manifest
from models.manifest import Tolerance
from service.backends import cache, choose, measure, registry
from service.backends.store import FOLDER, Store
from service.backends.trial import Measured, Trial
from service.errors import ConfigError
from service.wire.messages.worker import Timing
from tests.contract import models
from tests.contract.graphs import Shape, graph

Tensors = dict[str, NDArray[Any]]
FULL = (Timing("full", 0.001, 0.002),)


def good(variant: str, speed: float) -> Measured:
    return Measured(variant, share=1.0, images_per_second=speed, timings=FULL)


class Bench:
    """Answers trials from a table, and remembers them."""

    def __init__(self, *answers: Measured) -> None:
        self.answers = {answer.variant: answer for answer in answers}
        self.tried: list[str] = []

    def __call__(self, trial: Trial) -> Measured:
        self.tried.append(trial.variant)
        return self.answers.get(trial.variant, Measured(trial.variant, refused="unknown to this test"))


@pytest.fixture
def all_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with every library and bf16."""
    monkeypatch.setattr(cache, "cpu", lambda: ("a cpu", frozenset({"amx_bf16"})))
    monkeypatch.setattr(registry, "installed", lambda variant: "some version")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return models.fake(tmp_path / "zoo", name="m")


def chosen(directory: Path, bench: Bench, name: str = "auto", cache_dir: str = "", engines: int = 2) -> choose.Report:
    return choose.choose(directory, manifest.load(directory), name, engines=engines, cache_dir=cache_dir, attempt=bench)


@pytest.mark.usefixtures("all_variants")
def test_the_fastest_that_agrees_is_taken(directory: Path) -> None:
    bench = Bench(
        good("onnxruntime/f32", 10.0),
        good("openvino/f32", 30.0),
        Measured("openvino/bf16", refused="disagrees", images_per_second=99.0),
    )
    report = chosen(directory, bench)
    assert report.chosen == "openvino/f32" and not report.cached
    assert report.timings == list(FULL)
    assert report.why == "onnxruntime/f32: 10.0 images/s; openvino/f32: 30.0 images/s; openvino/bf16: disagrees"


@pytest.mark.usefixtures("all_variants")
def test_a_named_backend_is_tried_alone_and_refused_in_one_line(directory: Path) -> None:
    bench = Bench(good("onnxruntime/f32", 10.0), Measured("openvino/f32", refused="crashed (SIGFPE)"))
    assert chosen(directory, bench, "onnxruntime").chosen == "onnxruntime/f32"
    assert bench.tried == ["onnxruntime/f32"]
    with pytest.raises(ConfigError) as caught:
        chosen(directory, bench, "openvino/f32")
    assert str(caught.value) == "model m: no backend can run it (openvino/f32: crashed (SIGFPE))"


def test_what_the_machine_lacks_is_not_tried(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "cpu", lambda: ("a cpu", frozenset({"avx2"})))
    monkeypatch.setattr(registry, "installed", lambda variant: "" if variant.startswith("onnx") else "1")
    bench = Bench(good("openvino/f32", 1.0))
    report = chosen(directory, bench)
    assert bench.tried == ["openvino/f32"]
    assert "onnxruntime/f32: not installed" in report.why and "openvino/bf16: this CPU has no bf16" in report.why


@pytest.mark.usefixtures("all_variants")
def test_what_was_measured_is_kept_and_not_measured_again(directory: Path, tmp_path: Path) -> None:
    cache_dir = str(tmp_path / "cache")
    bench = Bench(good("onnxruntime/f32", 10.0), good("openvino/f32", 30.0), Measured("openvino/bf16", refused="x"))
    first = chosen(directory, bench, cache_dir=cache_dir)
    again = chosen(directory, Bench(), cache_dir=cache_dir)
    assert again.cached and again.chosen == first.chosen and again.measured == first.measured
    chosen(directory, bench, cache_dir=cache_dir, engines=1)
    assert len(bench.tried) == 6, "another number of engines is another measurement"


def compiled(directory: Path, cache_dir: str, variant: str, batch: str = "1") -> None:
    """Something compiled for a variant of the model."""
    described = manifest.load(directory)
    key = {"backend": variant, "graph": described.files[described.graph].sha256, "batch": batch}
    Store(Path(cache_dir) / FOLDER).get(key, lambda path: (path / "model.so").touch())


@pytest.mark.usefixtures("all_variants")
def test_what_has_to_be_compiled_before_is_tried_when_it_was(directory: Path, tmp_path: Path) -> None:
    cache_dir = str(tmp_path / "cache")
    bench = Bench(good("onnxruntime/f32", 10.0), good("torch/f32", 20.0), good("torch/bf16", 30.0))
    with pytest.raises(ConfigError, match=r"torch/f32: not compiled; squint models compile does that; torch/bf16: not"):
        chosen(directory, bench, "torch", cache_dir)
    assert bench.tried == []
    assert chosen(directory, bench, cache_dir=cache_dir).chosen == "onnxruntime/f32"
    compiled(directory, cache_dir, "torch/f32")
    report = chosen(directory, bench, cache_dir=cache_dir)
    assert report.chosen == "torch/f32" and "torch/bf16" not in report.why
    compiled(directory, cache_dir, "torch/bf16")
    assert chosen(directory, bench, cache_dir=cache_dir).chosen == "torch/bf16"
    assert chosen(directory, bench, cache_dir=cache_dir).cached
    compiled(directory, cache_dir, "torch/bf16", batch="2")
    assert not chosen(directory, bench, cache_dir=cache_dir).cached, "more was compiled since"


@pytest.mark.usefixtures("all_variants")
def test_another_model_library_or_cpu_is_measured_anew(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_dir = str(tmp_path / "cache")
    bench = Bench(good("onnxruntime/f32", 10.0))
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: monkeypatch.setattr(registry, "installed", lambda variant: "another version"),
        lambda: monkeypatch.setattr(cache, "cpu", lambda: ("another cpu", frozenset({"amx_bf16"}))),
        lambda: manifest.write(directory, _with_tolerance(directory, 0.5)),
    ]
    for number, change in enumerate(changes, 1):
        change()
        assert not chosen(directory, bench, "onnxruntime", cache_dir).cached
        assert chosen(directory, bench, "onnxruntime", cache_dir).cached
        assert len(bench.tried) == number


def _with_tolerance(directory: Path, score: float) -> manifest.Manifest:
    import msgspec

    return msgspec.structs.replace(manifest.load(directory), tolerance=Tolerance(agreement=0.5, score=score))


@pytest.mark.usefixtures("all_variants")
@pytest.mark.parametrize("contents", [b"", b"{}", b"null", b'{"model":"m","chosen":"torch/f32","measured":[]}'])
def test_a_cache_that_makes_no_sense_is_ignored(directory: Path, tmp_path: Path, contents: bytes) -> None:
    cache_dir = str(tmp_path / "cache")
    bench = Bench(good("onnxruntime/f32", 10.0))
    chosen(directory, bench, "onnxruntime", cache_dir)
    (name,) = os.listdir(cache_dir)
    cache.write(cache_dir, name, contents)
    assert not chosen(directory, bench, "onnxruntime", cache_dir).cached
    (tmp_path / "cache" / name).write_bytes(b"junk")
    assert not chosen(directory, bench, "onnxruntime", cache_dir).cached
    assert chosen(directory, bench, "onnxruntime", cache_dir).cached


@pytest.mark.usefixtures("all_variants")
def test_a_result_that_may_not_last_is_not_kept(directory: Path, tmp_path: Path) -> None:
    slow = Measured("openvino/f32", refused="took longer than 60 s", transient=True)
    bench = Bench(good("onnxruntime/f32", 10.0), slow)
    chosen(directory, bench, cache_dir=str(tmp_path / "cache"))
    assert not chosen(directory, bench, cache_dir=str(tmp_path / "cache")).cached


@pytest.mark.usefixtures("all_variants")
def test_levels_that_are_left_out_are_told_and_kept(tmp_path: Path) -> None:
    directory = models.fake(tmp_path, name="levels", levels={"high": "tome:4", "fast": "tome:16"})
    timings = (*FULL, Timing("fast", 0.0, 0.01))
    one = msgspec.structs.replace(good("onnxruntime/f32", 10.0), timings=timings, left_out={"high": "takes 1.01 of it"})
    cache_dir = str(tmp_path / "cache")
    report = chosen(directory, Bench(one), "onnxruntime", cache_dir)
    assert report.why == "onnxruntime/f32: 10.0 images/s, without high (takes 1.01 of it)"
    again = chosen(directory, Bench(), "onnxruntime", cache_dir)
    assert again.cached and [timing.level for timing in again.timings] == ["full", "fast"]


@pytest.mark.usefixtures("all_variants")
@pytest.mark.parametrize("timed", [("full",), ("fast",), ("full", "fast", "slow"), ("fast", "full")])
def test_a_report_that_does_not_cover_the_levels_is_measured_anew(timed: tuple[str, ...], tmp_path: Path) -> None:
    directory = models.fake(tmp_path, name="levels", levels={"fast": "tome:16"})
    timings = tuple(Timing(level, 0.0, 0.01) for level in timed)
    one = msgspec.structs.replace(good("onnxruntime/f32", 10.0), timings=timings)
    for _ in range(2):
        assert not chosen(directory, Bench(one), "onnxruntime", str(tmp_path / "cache")).cached


@pytest.mark.usefixtures("all_variants")
@pytest.mark.parametrize(("wide", "kept"), [(0.55, True), (1.0, True), (0.0, False), (1.5, False)])
def test_what_wide_runs_take_is_told_and_kept_where_it_makes_sense(wide: float, kept: bool, tmp_path: Path) -> None:
    directory, cache_dir = models.fake(tmp_path / "zoo", name="m"), str(tmp_path / "cache")
    timings = (Timing("full", 0.001, 0.002, wide),)
    one = msgspec.structs.replace(good("onnxruntime/f32", 10.0), timings=timings)
    report = chosen(directory, Bench(one), "onnxruntime", cache_dir)
    if kept:
        assert report.why == f"onnxruntime/f32: 10.0 images/s{', wide in 0.55 of the time' if wide < 1 else ''}"
    again = chosen(directory, Bench(one), "onnxruntime", cache_dir)
    assert again.cached == kept and again.timings == [timings[0]]


def test_progress_is_told_before_each_trial(directory: Path) -> None:
    steps: list[str] = []
    bench = Bench(good("onnxruntime/f32", 1.0))
    choose.choose(
        directory,
        manifest.load(directory),
        "onnxruntime",
        engines=1,
        cache_dir="",
        progress=lambda: steps.append("step"),
        attempt=bench,
    )
    assert steps == ["step"]


# --- the process of a trial ---------------------------------------------------------------------------------------


def trial(directory: Path, variant: str = "onnxruntime/f32", speed: bool = False) -> Trial:
    return Trial(str(directory), variant, 1, "", speed)


def test_a_trial_measures_agreement_and_speed(tmp_path: Path) -> None:
    found = choose.try_apart(trial(models.tiny(tmp_path, "classify"), speed=True))
    assert found.refused == "" and found.share == 1.0 and found.score < 1e-4
    (timing,) = found.timings
    assert timing.level == "full" and timing.a >= 0 and timing.b > 0
    assert found.images_per_second > 0 and found.load_seconds > 0


def test_a_trial_times_named_levels_and_leaves_out_those_that_do_not_pay(tmp_path: Path) -> None:
    directory = models.levelled(tmp_path, "classify", levels={"same": "tome:0", "other": "tome:8+width:1/2"})
    found = choose.try_apart(trial(directory, speed=True))
    assert found.refused == "" and found.timings[0].level == "full"
    assert {timing.level for timing in found.timings} | set(found.left_out) == {"full", "same", "other"}


def test_a_level_is_offered_if_it_is_faster_than_the_next_higher_one_offered() -> None:
    times = {
        "full": {1: 1.0, 4: 4.0},
        "noise": {1: 0.99, 4: 3.97},
        "high": {1: 0.9, 4: 3.2},
        "slower": {1: 0.9, 4: 3.3},
        "mixed": {1: 0.95, 4: 2.0},
        "fast": {1: 0.5, 4: 1.0},
    }
    left_out = measure.slower(times)
    assert set(left_out) == {"noise", "slower"}
    assert left_out["slower"] == "takes 1.02 of the time of high here"
    assert measure.slower({"full": {1: 1.0}}) == {}


def test_a_whole_choice_over_real_runtimes(tmp_path: Path) -> None:
    directory = models.tiny(tmp_path, "segment")
    report = choose.choose(directory, manifest.load(directory), "auto", engines=1, cache_dir=str(tmp_path / "cache"))
    assert {one.variant for one in report.measured} == {
        variant for variant in registry.variants("auto") if not registry.is_made(variant)
    }
    assert report.chosen in {one.variant for one in report.measured if not one.refused}


def test_answers_that_differ_from_the_reference_are_refused(tmp_path: Path) -> None:
    pictures = models.images(4, 64)
    reference: Tensors = {
        "images": pictures,
        "logits": np.eye(4, 5, dtype=np.float32) * 9,
        "embedding": np.zeros((4, 32)),
    }
    directory = models.write(tmp_path, "m", "classify", 64, graph("classify"), reference, models.TOLERANCE)
    assert choose.try_apart(trial(directory)).refused.startswith("disagrees with the reference: ")


def test_classes_without_a_label_are_refused(tmp_path: Path) -> None:
    pictures = models.images(4, 64)
    reference: Tensors = {"images": pictures, "logits": np.zeros((4, 9), np.float32)}
    data = graph("classify", Shape(classes=9))
    directory = models.write(tmp_path, "m", "classify", 64, data, reference, models.TOLERANCE)
    assert choose.try_apart(trial(directory)).refused == "answers classes that have no label"


def test_outputs_that_are_missing_or_of_another_shape_are_refused(tmp_path: Path) -> None:
    pictures = models.images(4, 64)
    wrong: Tensors = {"images": pictures, "logits": np.zeros((4, 3), np.float32)}
    directory = models.write(tmp_path, "a", "classify", 64, graph("classify"), wrong, models.TOLERANCE)
    assert choose.try_apart(trial(directory)).refused == "output logits has the wrong shape"
    directory = models.write(tmp_path, "b", "detect", 64, graph("classify"), wrong, models.TOLERANCE)
    assert choose.try_apart(trial(directory)).refused == "has no output boxes"


def test_a_graph_that_is_none_is_refused_not_raised(tmp_path: Path) -> None:
    directory = models.fake(tmp_path)
    for variant in ("onnxruntime/f32", "openvino/f32"):
        found = choose.try_apart(trial(directory, variant))
        assert found.refused and not found.transient


@pytest.mark.parametrize(
    ("number", "transient"), [(signal.SIGFPE, False), (signal.SIGILL, False), (signal.SIGKILL, True)]
)
def test_a_trial_that_crashes_is_an_answer(
    number: signal.Signals, transient: bool, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run_instead(monkeypatch, f"import os; os.kill(os.getpid(), {int(number)})")
    found = choose.try_apart(trial(directory))
    assert found.refused == f"crashed ({number.name})" and found.transient is transient


@pytest.mark.parametrize("program", ["raise SystemExit(3)", "print('noise')", "pass"])
def test_a_trial_that_says_nothing_is_an_answer(program: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run_instead(monkeypatch, program)
    assert choose.try_apart(trial(directory)).refused.startswith("failed (exit status")


def test_a_trial_that_hangs_is_given_up(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run_instead(monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(choose, "TRIAL_SECONDS", 0.5)
    found = choose.try_apart(trial(directory))
    assert found.refused.startswith("took longer") and found.transient


def _run_instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let trials run `program` as their process."""
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **rest: start([command[0], "-c", program], **rest))


# --- the fit ------------------------------------------------------------------------------------------------------


def test_the_fit_finds_a_and_b() -> None:
    a, b = measure.fit({n: 0.004 + 0.002 * n for n in (1, 2, 4, 8)})
    assert a == pytest.approx(0.004) and b == pytest.approx(0.002)


def test_the_fit_is_never_negative() -> None:
    a, b = measure.fit({1: 0.010, 2: 0.021, 4: 0.045})
    assert a == 0.0 and 0.010 < b < 0.0115
    a, b = measure.fit({1: 0.010, 2: 0.009, 4: 0.008})
    assert a == 0.0 and b > 0
    assert measure.fit({1: 0.010}) == (0.0, 0.010)
