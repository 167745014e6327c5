"""Outputs of the network as they are, for clients who read them themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.tasks.agreement import Outputs
from service.wire.messages.results import Raw
from service.wire.messages.worker import Form

_KINDS = ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64")


def forms(outputs: Outputs) -> tuple[Form, ...]:
    """What each output of a batch is for one image, in their order; one without a batch axis is left out."""
    return tuple(Form(name, _kind(values), values.shape[1:]) for name, values in outputs.items() if values.ndim)


def tensors(outputs: Outputs, number: int, names: tuple[str, ...]) -> tuple[Raw, ...]:
    """The named outputs of a batch for its image `number`. Raises KeyError for one that is not there."""
    return tuple(_tensor(name, outputs[name][number]) for name in names)


def _tensor(name: str, values: NDArray[np.generic]) -> Raw:
    plain = values.astype(np.dtype(_kind(values)).newbyteorder("<"), copy=False)
    return Raw(name, _kind(values), plain.shape, plain.tobytes())


def _kind(values: NDArray[np.generic]) -> str:
    """Numpy's name for the numbers; short floats travel as float32, which holds them exactly."""
    return values.dtype.name if values.dtype.name in _KINDS else "float32"
