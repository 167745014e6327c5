"""What OpenVINO's graphs leave open: the steps in which named levels differ."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import manifest
from service.backends import registry
from service.backends.base import Artefact
from service.backends.openvino import OpenVino, fixed
from tests.contract import models

openvino = pytest.importorskip("openvino")


def test_what_all_levels_share_is_fixed() -> None:
    levels = [{"merge": np.array([0, 0, 0])}, {"merge": np.array([0, 8, 0])}, {"merge": np.array([0, 0, 0])}]
    assert fixed(levels) == {"merge": {0: 0, 2: 0}}
    assert fixed(levels[:1]) == {"merge": {0: 0, 1: 0, 2: 0}}
    assert fixed([{}]) == {}


def branches(compiled: Any) -> int:
    return Counter(node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops())["If"]


def opened(backend: OpenVino) -> list[str]:
    return [name for name, one in (("fixed", backend._compiled), ("open", backend._open)) if one]


def test_only_open_steps_are_compiled_until_an_explicit_level_needs_more(tmp_path: Path) -> None:
    directory = models.levelled(tmp_path, "classify", levels={"fast": "tome:0/2"})
    described = manifest.load(directory)
    graph = manifest.read_file(directory, described, described.graph)
    backend = registry.open_backend("openvino/f32", Artefact(manifest=described, graph=graph))
    assert isinstance(backend, OpenVino)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    fast, same = backend.run(images, "fast"), backend.run(images, "tome:0/2")
    assert np.array_equal(fast["logits"], same["logits"]) and opened(backend) == ["fixed"]
    assert backend.prepared("fast") and backend.prepared("tome:0/1") and not backend.prepared("tome:2/2+width:1/2")
    other = backend.run(images, "tome:2/2+width:1/2")
    assert backend.prepared("tome:1/2")
    assert opened(backend) == ["fixed", "open"] and not np.array_equal(other["tokens"], fast["tokens"])
    few, all_of_them = (branches(one._model) for one in (backend._compiled, backend._open) if one)
    assert 0 < few < all_of_them
    backend.close()
