"""What ONNX Runtime answers: the reference of a model that came as a graph, for which nobody else can speak."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.levels import FULL
from models.sources.artefact import Source
from service.backends.base import Artefact, BackendError
from service.backends.registry import open_backend
from service.tasks.registry import TASKS
from squint.errors import Failure

SCORE = 0.001
"""How far an image's scores may depend on the batch it is in."""


def answers(source: Source, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The outputs for images [B, H, W, 3], `images` among them; of each image alone and of all together, which must be
    the same. Raises Failure."""
    described = source.described("new", "1", {})
    task = TASKS[source.task]
    try:
        backend = open_backend("onnxruntime/f32", Artefact(manifest=described, graph=source.graph))
        parts = [backend.run(image[None], FULL) for image in images]
    except BackendError as error:
        raise Failure(f"ONNX Runtime cannot run it: {error}") from error
    alone = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    highest = task.highest(alone)
    if highest >= len(source.labels):
        raise Failure(f"--labels holds {len(source.labels)} names, the model answers class {highest}")
    try:
        together = backend.run(images, FULL)
        agreed = task.agreement(alone, together)
    except (BackendError, ValueError) as error:
        raise Failure(f"its graph takes only the batch size it was made for, export it with any: {error}") from error
    if agreed.share < 1 or agreed.score > SCORE:
        raise Failure(f"an image's answer depends on the others in its batch (scores by {agreed.score:.4f})")
    return {"images": images, **alone}
