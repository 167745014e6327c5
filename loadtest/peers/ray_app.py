"""The photo classifier on Ray Serve."""

# mypy: disable-error-code="attr-defined,import-not-found,misc,untyped-decorator"
from __future__ import annotations

import time
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from loadtest.peers import plan
from loadtest.peers.textbook import network, pixels

PLAN = plan.given()
ONGOING = 2 * PLAN.batch if PLAN.queue else 64
"""Requests in a replica at a time. Two batches where the queue is limited; else more than are ever sent, as those
beyond wait in the proxy, which tries again after pauses that double."""
STORE = 200_000_000
"""Bytes of Ray's object store, which nothing here uses; left alone it would take a third of the memory."""


@serve.deployment(
    num_replicas=PLAN.workers,
    max_ongoing_requests=ONGOING,
    max_queued_requests=PLAN.queue or -1,
    ray_actor_options={"num_cpus": PLAN.threads, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(PLAN.threads)}}},
)
class Classify:
    """Decoding and inference of a batch in one replica."""

    def __init__(self) -> None:
        _, self._network = network()

    @serve.batch(max_batch_size=PLAN.batch, batch_wait_timeout_s=PLAN.wait_ms / 1000)
    async def answers(self, photos: list[bytes]) -> list[dict[str, Any]]:
        """Answers of a batch."""
        return self._network.answers([pixels(photo) for photo in photos])

    async def __call__(self, request: Request) -> dict[str, Any]:
        """The body is the photo."""
        answer: dict[str, Any] = await self.answers(await request.body())
        return answer


def main() -> None:
    """Serve until stopped."""
    ray.init(
        num_cpus=PLAN.workers * PLAN.threads + 1,
        include_dashboard=False,
        object_store_memory=STORE,
        log_to_driver=False,
        logging_level="warning",
    )
    serve.start(
        http_options={
            "host": "127.0.0.1",
            "port": PLAN.port,
            "request_timeout_s": PLAN.deadline_ms / 1000 or None,
        },
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    serve.run(Classify.bind(), route_prefix="/classify")
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
