"""Outputs of the network as they are."""

from __future__ import annotations

import numpy as np
import pytest

from service.tasks import raw
from service.wire.messages.worker import Form


def test_the_forms_of_a_batch() -> None:
    outputs = {"logits": np.zeros((2, 5), np.float32), "mask": np.zeros((2, 3, 4), np.uint8), "one": np.float32(1.0)}
    expected = (Form("logits", "float32", (5,)), Form("mask", "uint8", (3, 4)))
    assert raw.forms({name: np.asarray(values) for name, values in outputs.items()}) == expected


def test_one_images_tensors() -> None:
    logits = np.arange(10, dtype=np.float32).reshape(2, 5)
    labels = np.array([[1], [2]], np.int64)
    found = raw.tensors({"logits": logits, "labels": labels}, 1, ("labels", "logits"))
    assert [(one.name, one.kind, one.shape) for one in found] == [
        ("labels", "int64", (1,)),
        ("logits", "float32", (5,)),
    ]
    assert found[0].data == (2).to_bytes(8, "little")
    assert found[1].data == logits[1].tobytes()


def test_short_floats_travel_as_long_ones() -> None:
    half = np.array([[0.5, 0.25]], np.float16)
    (found,) = raw.tensors({"x": half}, 0, ("x",))
    assert (found.kind, found.data) == ("float32", half[0].astype(np.float32).tobytes())
    assert raw.forms({"x": half})[0].kind == "float32"


def test_views_are_written_row_by_row() -> None:
    turned = np.arange(6, dtype=np.int32).reshape(2, 3).T[None]
    (found,) = raw.tensors({"x": turned}, 0, ("x",))
    assert found.data == np.ascontiguousarray(turned[0]).tobytes()


def test_an_output_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        raw.tensors({}, 0, ("x",))
