"""The photo classifier on Triton's Python backend; servers.py puts this file into a model repository as `model.py`."""

# mypy: disable-error-code="import-not-found,misc"
from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from loadtest.peers.textbook import network, pixels


class TritonPythonModel:
    """Decoding and inference of a batch in one instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model."""
        _, self._network = network()

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response per request."""
        photos = [pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()[0][0] for request in requests]
        answers = self._network.answers([pixels(photo) for photo in photos])
        tensors = [
            pb_utils.Tensor("ANSWER", np.array([[json.dumps(answer).encode()]], np.object_)) for answer in answers
        ]
        return [pb_utils.InferenceResponse(output_tensors=[tensor]) for tensor in tensors]
