"""A model directory from its parts, whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from models import manifest
from models.levels import FULL, Trunk
from models.manifest import Manifest, Task, Tolerance, Transform

GRAPH, REFERENCE = "model.onnx", "reference.safetensors"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
TOLERANCES: dict[str, Tolerance] = {
    "classify": Tolerance(agreement=0.99, score=0.05),
    "detect": Tolerance(agreement=0.95, score=0.05),
    "segment": Tolerance(agreement=0.99, score=0.05),
}


class SourceError(Exception):
    """A model cannot be brought in; the message is one line for whoever asked for it."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was brought in, but for its name and its reference answers.

    `graph` obeys the graph contract, and `training` says where it and its weights are from. `tokens` is what the
    level `full` ends with (0 where there are no tokens) and `gmacs` what it costs.
    """

    task: Task
    labels: list[str]
    licence: str
    transform: Transform
    graph: bytes
    gmacs: float
    tokens: int
    trunk: Trunk | None = None
    training: dict[str, Any] = {}

    def described(self, name: str, version: str, files: dict[str, manifest.File]) -> Manifest:
        """The manifest of this model under a name."""
        return Manifest(
            format=manifest.FORMAT,
            name=name,
            version=version,
            task=self.task,
            labels=self.labels,
            licence=self.licence,
            transform=self.transform,
            graph=GRAPH,
            reference=REFERENCE,
            files=files,
            levels=[manifest.Level(name=FULL, gmacs=round(self.gmacs, 4), tokens=self.tokens)],
            tolerance=TOLERANCES[self.task],
            trunk=self.trunk,
            training=self.training,
        )


def check_name(name: str) -> str:
    """The name, if a model can be called that. Raises SourceError."""
    if not NAME.fullmatch(name):
        raise SourceError(f"--name {name!r}: expected up to 64 of a-z 0-9 . _ -, the first a letter or a digit")
    return name


def fill(directory: Path, source: Source, name: str, answers: Mapping[str, NDArray[Any]], version: str = "1") -> None:
    """Write graph, reference and manifest into an empty directory.

    `answers` are the reference: `images`, and by name the outputs for them at the level `full`.
    """
    (directory / GRAPH).write_bytes(source.graph)
    save_file({key: np.ascontiguousarray(value) for key, value in answers.items()}, directory / REFERENCE)
    files = {}
    for file in (GRAPH, REFERENCE):
        (directory / file).chmod(0o644)  # safetensors writes 0600; a container may serve as another user
        files[file] = manifest.describe_file(directory / file)
    manifest.write(directory, source.described(name, version, files))


@contextmanager
def staged(root: Path, name: str, version: str = "1") -> Iterator[Path]:
    """An empty directory that becomes `root/name/version` when the block ends well, and vanishes when it does not.

    An older directory of that name stays in place until then.
    """
    final = root / name / version
    made = [path for path in (final.parent, root) if not path.exists()]
    partial, replaced = (final.with_name(f".{version}.{word}") for word in ("partial", "replaced"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(replaced, ignore_errors=True)
        if final.exists():
            os.replace(final, replaced)
        os.replace(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for path in made:
            path.rmdir()
        raise
    shutil.rmtree(replaced, ignore_errors=True)
