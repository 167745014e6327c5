"""The photo classifier on LitServe."""

# mypy: disable-error-code="import-not-found,misc"
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import litserve
import numpy as np
from numpy.typing import NDArray

from loadtest.peers import plan
from loadtest.peers.textbook import Network, network, pixels

SECONDS = 30.0
"""LitServe's own default for a request's timeout."""


class Classify(litserve.LitAPI):
    """Decoding and inference in one worker process, as LitServe has it."""

    network: Network

    def setup(self, device: str) -> None:
        """Load the model."""
        _, self.network = network()

    # LitServe takes the annotation of `request` for the type of the body; without one it hands over the form.
    def decode_request(self, request) -> NDArray[np.uint8]:  # type: ignore[no-untyped-def]
        """The uploaded photo's pixels."""
        return pixels(request["image"].file.read())

    def batch(self, inputs: Sequence[NDArray[np.uint8]]) -> Sequence[NDArray[np.uint8]]:
        """Kept as a list: the network stacks."""
        return inputs

    def predict(self, inputs: Sequence[NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """Answers of a batch."""
        return self.network.answers(inputs)

    def unbatch(self, outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One per request."""
        return outputs

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """JSON as it is."""
        return output


def main() -> None:
    """Serve until stopped."""
    chosen = plan.given()
    api = Classify(max_batch_size=chosen.batch, batch_timeout=chosen.wait_ms / 1000, api_path="/classify")
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        devices=1,
        workers_per_device=chosen.workers,
        timeout=chosen.deadline_ms / 1000 or SECONDS,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=chosen.port,
        generate_client_file=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
