"""What gRPC promises in time: run on an otherwise idle machine (`make bench`)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.bench import grpc
from tests.e2e.service import Service

pytestmark = pytest.mark.bench

SEEN_MS = 50.0
OF_REST = 0.9


@pytest.mark.parametrize("cancel", [True, False], ids=["cancelled", "deadline"])
def test_the_end_of_a_call_reaches_the_core(tmp_path: Path, cancel: bool) -> None:
    with Service(tmp_path) as service:
        waited = sorted(asyncio.run(grpc.seen_after(service, cancel)))
    print(f"\nseen in the metrics after {waited[len(waited) // 2]:.1f} ms (median), {waited[-1]:.1f} ms (longest)")
    assert waited[-1] < SEEN_MS


def test_calls_with_a_shipped_model_are_about_as_many_as_over_rest(tmp_path: Path) -> None:
    with Service(tmp_path, *grpc.SHIPPED, fake=False) as service:
        report = grpc.throughput(service, 4.0, 5)
    print(f"\n{report}")
    assert report["grpc"]["of_rest"] >= OF_REST
    assert report["stream"]["of_rest"] >= OF_REST
