"""Triton's metrics, by their exact names, and in agreement with Triton's own statistics of the same service."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.e2e import images
from tests.e2e.service import Service

MODEL = "toyscape-classify"
STAGES = {
    "request": "success",
    "queue": "queue",
    "compute_input": "compute_input",
    "compute_infer": "compute_infer",
    "compute_output": "compute_output",
}
"""As metrics and statistics name them."""
PARTS = ("bucket", "sum", "count")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("compat"), "--metrics-compat", "triton", "--fake-item-ms", "2") as running:
        yield running


def samples(service: Service) -> dict[tuple[str, str], float]:
    """Name and labels, as written -> value."""
    text = service.request("GET", "/metrics").body.decode()
    found = re.findall(r"^(nv_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE)
    return {(name, labels): float(value) for name, labels, value in found}


def test_the_names_are_tritons(service: Service) -> None:
    names = {name for name, _ in samples(service)}
    histograms = {f"nv_inference_{stage}_duration_histogram_us_{part}" for stage in STAGES for part in PARTS}
    assert names == histograms | {f"nv_inference_{stage}_duration_us" for stage in STAGES} | {
        "nv_inference_request_success",
        "nv_inference_request_failure",
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_pending_request_count",
    }


def test_every_model_is_there_before_it_is_asked(service: Service) -> None:
    for model in ("toyscape-classify", "toyscape-detect", "toyscape-segment"):
        assert ("nv_inference_count", f'model="{model}",version="1"') in samples(service)


def test_metrics_and_statistics_agree(service: Service) -> None:
    for number in range(5):
        assert service.request("POST", "/classify", images.png(images.number(number))).status == 200
    assert service.request("POST", "/classify", b"no image").status == 415
    labels = f'model="{MODEL}",version="1"'
    counted = samples(service)
    (statistics,) = service.request("GET", f"/v2/models/{MODEL}/stats").json()["model_stats"]
    assert counted["nv_inference_request_success", labels] == 5
    assert counted["nv_inference_count", labels] == statistics["inference_count"] == 5
    assert counted["nv_inference_exec_count", labels] == statistics["execution_count"] > 0
    assert counted["nv_inference_pending_request_count", labels] == 0
    assert counted["nv_inference_request_failure", f'model="{MODEL}",reason="OTHER",version="1"'] == 1
    for stage, name in STAGES.items():
        told = statistics["inference_stats"][name]
        assert counted[f"nv_inference_{stage}_duration_us", labels] == told["ns"] // 1000
        assert counted[f"nv_inference_{stage}_duration_histogram_us_count", labels] == told["count"] == 5
    assert counted["nv_inference_compute_infer_duration_us", labels] >= 5 * 2000


def test_they_are_left_out_unless_asked_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Service(tmp_path_factory.mktemp("plain")) as plain:
        assert samples(plain) == {}
