"""The photo classifier on mosec: a stage that decodes and a stage that infers."""

# mypy: disable-error-code="import-not-found,misc"
from __future__ import annotations

from typing import Any

import mosec
import numpy as np
from numpy.typing import NDArray

from loadtest.peers import plan
from loadtest.peers.textbook import network, pixels

DECODERS = 2


class Decode(mosec.Worker):
    """The bytes of a body to pixels."""

    def deserialize(self, data: bytes) -> bytes:
        """The body is the photo."""
        return data

    def forward(self, data: bytes) -> NDArray[np.uint8]:
        """Its pixels."""
        return pixels(data)


class Infer(mosec.Worker):
    """A batch of pixels to answers."""

    def __init__(self) -> None:
        super().__init__()
        _, self._network = network()

    def forward(self, data: list[NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """Answers in the order of the batch."""
        return self._network.answers(data)


def main() -> None:
    """Serve until stopped; address, port, capacity and timeout come from MOSEC_ variables."""
    chosen = plan.given()
    server = mosec.Server()
    server.append_worker(Decode, num=DECODERS, route="/classify")
    server.append_worker(
        Infer,
        num=chosen.workers,
        max_batch_size=chosen.batch,
        max_wait_time=max(1, round(chosen.wait_ms)),
        route="/classify",
    )
    server.run()


if __name__ == "__main__":
    main()
