"""Where ONNX Runtime puts the nodes of every level: none may be left to the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from models import manifest
from models.levels import plan
from service.backends import cuda, onnxruntime, placement
from service.backends.base import Artefact, BackendError
from tests.gpu import variants
from tests.gpu.plan import Cannot, Settings

SIZES = (1, 64)
BRANCHES = {"If", "Loop", "Scan"}


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    """Raises RuntimeError when a node of a level is left to the CPU, or a branch is left in it."""
    library = onnxruntime.library()
    on_gpu = settings.device.startswith("cuda")
    if on_gpu and "CUDAExecutionProvider" not in library.get_available_providers():
        raise Cannot("ONNX Runtime's GPU build is not installed; its registry may not have it (docs/gpu.md)")
    kind, index = cuda.place_of(settings.device)
    provider: cuda.Provider = ("CUDAExecutionProvider", {"device_id": str(index)}) if on_gpu else (placement.CPU, {})
    rows: list[dict[str, Any]] = []
    for name, directory in variants.directories(settings).items():
        described = manifest.load(directory)
        graph = manifest.read_file(directory, described, described.graph)
        artefact = Artefact(manifest=described, graph=graph, device=settings.device)
        sessions = cuda.Sessions(library, artefact, provider)
        for level in described.levels:
            wanted = plan(level.explicit, described.trunk).inputs
            inputs = {key: np.array(values, np.int64) for key, values in wanted.items()}
            for size in SIZES:
                row: dict[str, Any] = {"model": name, "level": level.name, "batch": size, "problem": ""}
                try:
                    found = cuda.nodes(sessions.open(inputs, size))
                    left = {node.kind for node in found} & BRANCHES
                    row |= {"nodes": placement.summary(found), "problem": f"has {min(left)}" if left else ""}
                except BackendError as error:
                    row["problem"] = str(error)
                rows.append(row)
                save({"device": kind, "rows": rows})
    wrong = [row for row in rows if row["problem"]]
    if wrong:
        raise RuntimeError(
            f"{len(wrong)} of {len(rows)}: {wrong[0]['model']} {wrong[0]['level']} {wrong[0]['problem']}"
        )
