"""The photo classifier on BentoML."""

# mypy: disable-error-code="import-not-found,misc,untyped-decorator"
from __future__ import annotations

from typing import Any

import bentoml
from PIL import Image

from loadtest.peers import plan
from loadtest.peers.textbook import fitted, network

PLAN = plan.given()
LATENCY_MS = 60_000
"""BentoML's own default for the latency that batching may cost."""
TRAFFIC: dict[str, Any] = {}
if PLAN.deadline_ms:
    TRAFFIC = {"timeout": PLAN.deadline_ms / 1000, "max_concurrency": PLAN.queue}


@bentoml.service(name="classify", workers=PLAN.workers, traffic=TRAFFIC)
class Classify:
    """Decoding and inference in each worker; batches form in a worker, never across them."""

    def __init__(self) -> None:
        _, self._network = network()

    if PLAN.batch > 1:

        @bentoml.api(
            route="/classify",
            batchable=True,
            max_batch_size=PLAN.batch,
            max_latency_ms=PLAN.deadline_ms or LATENCY_MS,
        )
        def classify(self, image: list[Image.Image]) -> list[dict[str, Any]]:
            """Answers of a batch."""
            return self._network.answers([fitted(one) for one in image])

    else:

        @bentoml.api(route="/classify")
        def classify_one(self, image: Image.Image) -> dict[str, Any]:
            """The answer for one photo."""
            return self._network.answers([fitted(image)])[0]
