"""`squint load` against a real service: what it counts, the service counts too."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import numpy as np
import pytest

from loadtest import bodies, images, plan
from loadtest.sender import send
from squint import cli
from tests.e2e.service import Service

SCENARIO = """
name = "both"
path = "/classify?model=toyscape-classify"
deadline_ms = 5000
warmup_seconds = 0.2
[[images]]
kind = "thumbnail"
count = 4
weight = 3
[[images]]
kind = "500x375"
count = 2
[[phases]]
name = "steady"
rate = 40
seconds = 1
[[phases]]
name = "closed"
kind = "closed"
connections = 2
seconds = 1.5
"""


def served(metrics: str) -> int:
    counts = re.findall(
        r'^squint_level_served_total\{[^}]*model="toyscape-classify"[^}]*\} ([\d.]+)', metrics, re.MULTILINE
    )
    return int(sum(float(count) for count in counts))


def test_a_scenario_against_the_service(tmp_path: Path, service: Service) -> None:
    path = tmp_path / "both.toml"
    path.write_text(SCENARIO)
    before = served(service.request("GET", "/metrics").body.decode())
    url = f"http://127.0.0.1:{service.port}"
    assert cli.main(["load", url, "--scenario", str(path), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    after = served(service.request("GET", "/metrics").body.decode())
    found = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    steady, closed = (run["points"][0]["summary"] for run in found["runs"])
    for one in (steady, closed):
        assert one["counts"]["sent"] == one["counts"]["on_time"] > 10
        assert one["levels"] == {"full": one["counts"]["sent"]}
    counted = steady["counts"]["sent"] + closed["counts"]["sent"]
    assert counted <= after - before
    assert steady["kinds"]["thumbnail"]["count"] > steady["kinds"]["500x375"]["count"] > 0
    assert steady["latency"]["p50"] > 0
    assert closed["closed"] == 2


@pytest.mark.parametrize("encoding", ["raw", "multipart", "json"])
def test_every_form_of_body_is_understood(encoding: str, service: Service) -> None:
    made = bodies.encode_all(images.generate("thumbnail", 2), encoding)
    target = plan.target(f"127.0.0.1:{service.port}", "/classify?model=toyscape-classify", made)
    wanted = plan.Plan(np.zeros(4), np.arange(4, dtype=np.int32) % 2, 0.1)
    found = asyncio.run(send(wanted, target))
    assert found.status.tolist() == [200] * 4, found.first_bodies
