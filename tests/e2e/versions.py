"""A model repository under test: versions of models for the fake, put in place as a deployment would, at once."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from models import manifest
from tests.contract import models
from tests.e2e.http import once
from tests.e2e.service import Service, free_port

SIDE = 32
PATIENCE = 60.0


def put(root: Path, version: str, name: str = "toy", side: int = SIDE, task: manifest.Task = "classify",
        training: dict[str, Any] | None = None, licence: str = "Apache-2.0") -> Path:  # fmt: skip
    """Put NAME/VERSION under `root`, by one rename; what is there by that name goes. `training = {"fake": ...}` tells
    the fake what to do while it is loaded, and another `licence` makes another digest."""
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        made = models.fake(Path(folder), task, name, side)
        described = manifest.load(made)
        manifest.write(
            made, msgspec.structs.replace(described, version=version, training=training or {}, licence=licence)
        )
        place = root / name / version
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            shutil.rmtree(place)
        made.rename(place)
    return place


def damage(directory: Path) -> None:
    """Flip one bit of its graph."""
    graph = directory / "model.onnx"
    data = bytearray(graph.read_bytes())
    data[0] ^= 1
    graph.write_bytes(data)


class Repository(Service):
    """A service over `root` with an admin port, where calls may change models."""

    def __init__(self, folder: Path, root: Path, *flags: str) -> None:
        self.root = root
        self.admin_port = free_port()
        super().__init__(
            folder, "--models", str(root), "--admin-port", str(self.admin_port), "--model-control", "explicit", *flags
        )

    def admin(self, method: str, target: str, status: int = 200) -> Any:
        """One call to the admin port, and its answer."""
        reply = asyncio.run(once(self.admin_port, method, target))
        assert reply.status == status, reply.body
        return reply.json()

    def rows(self, name: str = "toy") -> dict[str, tuple[str, str]]:
        """Version -> state and reason, of one model."""
        return {
            row["version"]: (row["state"], row["reason"])
            for row in self.admin("GET", "/admin/models")["versions"]
            if row["name"] == name
        }

    def states(self, name: str = "toy") -> dict[str, str]:
        """Version -> state."""
        return {version: state for version, (state, _) in self.rows(name).items()}

    def served(self, image: bytes, target: str = "/classify") -> str:
        """The version that answers."""
        reply = self.request("POST", target, image)
        assert reply.status == 200, reply.body
        return str(reply.json()["version"])

    def metric(self, line: str) -> float:
        """One sample of /metrics; 0 where there is none."""
        for text in self.request("GET", "/metrics").body.decode().splitlines():
            if text.startswith(line + " "):
                return float(text.rpartition(" ")[2])
        return 0.0

    def until(self, what: Callable[[], bool]) -> None:
        """Wait until it holds."""
        end = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < end, json.dumps(self.rows()) + self.log_text()[-3000:]
            time.sleep(0.02)
