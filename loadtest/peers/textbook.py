"""What every other server does with a photo: the pipeline of a tutorial, then ONNX Runtime, then the five best classes.

Runs in the environment of that server, so it needs no more than numpy, Pillow and ONNX Runtime.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from loadtest.peers import plan
from loadtest.peers.plan import Plan

RESIZED, SIDE, BEST = 256, 224, 5
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def pixels(photo: bytes) -> NDArray[np.uint8]:
    """The middle of a photo as uint8 [224, 224, 3]: short side to 256, bicubic, then the middle."""
    with Image.open(io.BytesIO(photo)) as opened:
        return fitted(opened)


def fitted(image: Image.Image) -> NDArray[np.uint8]:
    """As `pixels`, of an image that is open."""
    image = image.convert("RGB")
    width, height = image.size
    scale = RESIZED / min(width, height)
    width, height = max(RESIZED, round(width * scale)), max(RESIZED, round(height * scale))
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


def normalised(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels [224, 224, 3] as most networks want them: float32 [3, 224, 224], mean and deviation of ImageNet."""
    return np.ascontiguousarray(((image.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1))


class Network:
    """The model on ONNX Runtime."""

    def __init__(self, model: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._normalises = self._session.get_inputs()[0].type == "tensor(float)"

    def answers(self, images: Sequence[NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """One answer per image: its best classes with their shares, best first."""
        # As a tutorial does it, image by image, where the network was exported without its normalisation.
        given = [normalised(image) for image in images] if self._normalises else images
        logits = self._session.run(["logits"], {"images": np.stack(given)})[0]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = powers / powers.sum(axis=1, keepdims=True)
        order = np.argsort(-logits, axis=1)[:, :BEST]
        return [
            {"predictions": [{"label": f"class {i}", "index": int(i), "score": float(row[i])} for i in best]}
            for best, row in zip(order, shares, strict=True)
        ]


def network() -> tuple[Plan, Network]:
    """The plan of this process and its network, warm at the batch sizes 1 and that of the plan."""
    chosen = plan.given()
    built = Network(chosen.model, chosen.threads)
    for size in {1, chosen.batch}:
        built.answers([np.zeros((SIDE, SIDE, 3), np.uint8)] * size)
    return chosen, built
