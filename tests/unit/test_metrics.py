"""What is counted here for speed reads as the metrics library would write it; and series stay few."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as LibraryCounter

from service.dispatcher.statistics import Statistics
from service.dispatcher.triton_metrics import TritonMetrics
from service.errors import STATUS, Refusal
from service.metrics import Metrics, Now

LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


def lines(text: bytes, *names: str) -> list[str]:
    kept = [line for line in text.decode().splitlines() if any(name in line for name in names)]
    return [line for line in kept if "_created" not in line]


def value(text: str, name: str, **labels: str) -> float:
    """Of one sample."""
    for line in text.splitlines():
        sample, _, number = line.rpartition(" ")
        found, _, inner = sample.partition("{")
        if found == name and dict(LABEL.findall(inner)) == labels:
            return float(number)
    raise AssertionError(f"no {name} with {labels}")


@given(st.lists(st.floats(0, 100, allow_subnormal=False), max_size=30))
def test_histograms_read_as_the_library_writes_them(times: list[float]) -> None:
    ours, registry = Metrics("1"), CollectorRegistry()
    theirs = Histogram(
        "squint_request_seconds",
        "Time from the request's first byte to its answer",
        ["task", "model", "level", "outcome"],
        buckets=BOUNDS,
        registry=registry,
    )
    for seconds in (*BOUNDS, 0.00100001, *times):
        ours.request("classify", "a", "full", "ok", seconds)
        theirs.labels("classify", "a", "full", "ok").observe(seconds)
    for code, outcome in (("overloaded", "overloaded"), ("internal", "internal"), ("rate_limited", "invalid")):
        ours.request("detect", 'odd "name"\n', "full", code, 0.2)
        theirs.labels("detect", 'odd "name"\n', "none", outcome).observe(0.2)
    assert lines(ours.render(), "squint_request") == lines(generate_latest(registry), "squint_request")


def test_counters_read_as_the_library_writes_them() -> None:
    ours, registry = Metrics("1"), CollectorRegistry()
    theirs = LibraryCounter("squint_refused", "Requests refused, by error code", ["code"], registry=registry)
    for code in STATUS:
        theirs.labels(code)
    for code in ("overloaded", "overloaded", "internal"):
        ours.refused(code)
        theirs.labels(code).inc()
    assert lines(ours.render(), "squint_refused") == lines(generate_latest(registry), "squint_refused")


def test_what_may_be_counted_is_there_from_the_start() -> None:
    text = Metrics("1").render().decode()
    for code in STATUS:
        assert value(text, "squint_refused_total", code=code) == 0
    for reason in ("cap", "drained", "shared", "deadline", "retry"):
        assert value(text, "squint_batch_closed_total", reason=reason) == 0
    for role in ("gateway", "decoder", "worker"):
        assert value(text, "squint_worker_restarts_total", role=role) == 0
    assert value(text, "squint_decoder_busy_seconds_total") == 0


def test_what_is_read_at_a_scrape() -> None:
    metrics = Metrics("1")
    metrics.watch(
        lambda: Now(
            ready=True,
            in_flight=3,
            queued=2,
            engines=4,
            decoders=5,
            delays={"a": 0.5},
            steps_down={"a": 1},
            traces={"sent": 6, "dropped": 7},
        )
    )
    text = metrics.render().decode()
    said = {
        "squint_ready": 1,
        "squint_in_flight": 3,
        "squint_queue_items": 2,
        "squint_engines": 4,
        "squint_decoders": 5,
    }
    assert {name: value(text, name) for name in said} == said
    assert value(text, "squint_queue_delay_estimate_seconds", model="a") == 0.5
    assert value(text, "squint_auto_steps_down", model="a") == 1
    assert value(text, "squint_traces_total", outcome="dropped") == 7


def test_busy_seconds_add_up() -> None:
    metrics = Metrics("1")
    for _ in range(4):
        metrics.ran("a", "full", 0.25)
        metrics.decoded(0.5)
    text = metrics.render().decode()
    assert value(text, "squint_engine_busy_seconds_total", model="a", level="full") == 1.0
    assert value(text, "squint_decoder_busy_seconds_total") == 2.0


def test_stages_are_told_apart_by_model_and_level() -> None:
    metrics = Metrics("1")
    metrics.stages("a", "full", 0.001, 0.002, 0.004, 0.008)
    metrics.stages("a", "fast", 1, 1, 1, 1)
    metrics.stages("b", "full", 1, 1, 1, 1)
    metrics.stages("a", "full", 0.001, 0.002, 0.004, 0.008)
    text = metrics.render().decode()
    for stage, seconds in (("decode", 0.002), ("queue", 0.004), ("infer", 0.008), ("post", 0.016)):
        assert value(text, "squint_stage_seconds_sum", model="a", level="full", stage=stage) == seconds
        assert value(text, "squint_stage_seconds_count", model="a", level="full", stage=stage) == 2


def test_three_models_at_all_their_levels_with_every_error_stay_below_200_kilobytes() -> None:
    metrics = Metrics("1")
    for task, model in (("classify", "a-model-of-usual-name"), ("detect", "another-model"), ("segment", "a-third-one")):
        for level in ("full", "high", "balanced", "fast", "custom"):
            metrics.stages(model, level, 1, 1, 1, 1)
            metrics.batch(model, level, 1, "drained")
            metrics.ran(model, level, 1)
            for asked in (level, "auto", "default"):
                metrics.served(model, level, asked)
            for outcome in ("ok", *STATUS):
                metrics.request(task, model, level, outcome, 1)
        for outcome in ("unknown_model", "overloaded", "internal"):
            metrics.request(task, "none", "none", outcome, 1)
    assert len(metrics.render()) < 200_000


# --- Triton's names --------------------------------------------------------------------------------------------------


def outcome(decode: float, wait: float, queue: float, infer: float, post: float) -> Any:
    return SimpleNamespace(decode=decode, decoder_wait=wait, queue=queue, infer=infer, post=post, refusal=None)


def serving(model: str | None, version: str = "1") -> Any:
    manifest = SimpleNamespace(name=model, version=version)
    return SimpleNamespace(entry=SimpleNamespace(manifest=manifest) if model else None)


def triton(*models: tuple[str, str]) -> tuple[TritonMetrics, Statistics]:
    statistics = Statistics(lambda: 0.0)
    return TritonMetrics(statistics, lambda: dict.fromkeys(models, 3)), statistics


def test_tritons_counters_are_those_of_the_statistics() -> None:
    metrics, statistics = triton(("a", "1"))
    images = [outcome(0.001, 0.002, 0.003, 0.004, 0.005), outcome(0.0005, 0.001, 0.006, 0.004, 0.005)]
    statistics.ran("a", "1", 2, 0.0015, 0.004, 0.005)
    statistics.answered("a", "1", images, 0.02)
    metrics.finished(serving("a"), images, None, 0.02)
    text = metrics.render()
    labels = {"model": "a", "version": "1"}
    assert value(text, "nv_inference_request_success", **labels) == 1
    assert value(text, "nv_inference_count", **labels) == 2
    assert value(text, "nv_inference_exec_count", **labels) == 1
    assert value(text, "nv_inference_pending_request_count", **labels) == 3
    took = {"request": 20_000, "queue": 7_000, "compute_input": 500, "compute_infer": 4_000, "compute_output": 5_000}
    for stage, microseconds in took.items():
        assert value(text, f"nv_inference_{stage}_duration_us", **labels) == microseconds
        histogram = f"nv_inference_{stage}_duration_histogram_us"
        assert value(text, f"{histogram}_sum", **labels) == microseconds
        assert value(text, f"{histogram}_count", **labels) == 1
        assert value(text, f"{histogram}_bucket", **labels, le="+Inf") == 1
    assert value(text, "nv_inference_queue_duration_histogram_us_bucket", **labels, le="5000") == 0
    assert value(text, "nv_inference_queue_duration_histogram_us_bucket", **labels, le="10000") == 1


def test_nothing_is_kept_of_versions_that_are_served_no_more() -> None:
    metrics, statistics = triton(("a", "2"))
    for version in ("1", "2"):
        statistics.refused("a", version, 0.1)
        metrics.finished(serving("a", version), [], Refusal("internal", "no"), 0.1)
    statistics.forget("a", "1")
    assert statistics.of("a", "1").fail.count == 0 and statistics.of("a", "2").fail.count == 1
    kept = metrics.render()
    assert metrics._models.keys() == {("a", "2")}
    assert value(kept, "nv_inference_request_failure", model="a", version="2", reason="BACKEND") == 1


def test_tritons_reasons_of_failures() -> None:
    metrics, _ = triton(("a", "1"))
    for code in STATUS:
        metrics.finished(serving("a"), [], Refusal(code, "no"), 0.1)
        metrics.finished(serving(None), [], Refusal(code, "no"), 0.1)
    text = metrics.render()
    counted = {
        reason: value(text, "nv_inference_request_failure", model="a", version="1", reason=reason)
        for reason in ("OTHER", "BACKEND", "CANCELED", "REJECTED")
    }
    assert counted["CANCELED"] == 1
    assert counted["BACKEND"] == 2
    assert counted["REJECTED"] == 6
    assert sum(counted.values()) == len(STATUS)


def test_tritons_types_are_counters_without_the_suffix() -> None:
    metrics, _ = triton(("a", "1"))
    kinds = dict(line.split()[2:4] for line in metrics.render().splitlines() if line.startswith("# TYPE"))
    assert kinds.pop("nv_inference_pending_request_count") == "gauge"
    histograms = {name for name, kind in kinds.items() if kind == "histogram"}
    assert histograms == {name for name in kinds if name.endswith("_histogram_us")} and len(histograms) == 5
    assert {kinds[name] for name in kinds.keys() - histograms} == {"counter"}
    assert len(kinds) == 14


def test_a_models_odd_name_is_escaped() -> None:
    metrics, _ = triton(('odd "{name}" \\ \n end', "1"))
    escaped = r"odd \"{name}\" \\ \n end"
    assert value(metrics.render(), "nv_inference_count", model=escaped, version="1") == 0
