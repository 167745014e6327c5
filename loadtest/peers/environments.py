"""What the comparison needs before it can run: an environment for each server, and the models."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from loadtest.peers.places import CACHE, MODELS, REQUIREMENTS, ROOT, python_of

STAMP = "peers.stamp"
MODELS_PYTHON = ROOT / ".venv-models" / "bin" / "python"


class Missing(Exception):
    """Something cannot be made; the message is one line."""


def requirements(name: str) -> Path:
    """The file that pins all packages of an environment."""
    return REQUIREMENTS / f"{name}.txt"


def version(name: str, package: str) -> str:
    """The pinned version of a package in an environment; empty if it is not there."""
    for line in requirements(name).read_text().splitlines():
        found, _, pinned = line.partition("==")
        if found.partition("[")[0].lower() == package.lower():
            return pinned
    return ""


def environment(name: str) -> None:
    """Make `.cache/peers/NAME`, or leave it if it is as pinned. Raises Missing."""
    folder, wanted = CACHE / name, requirements(name)
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    stamp = folder / STAMP
    if stamp.exists() and stamp.read_text() == digest:
        return
    print(f"installing {wanted.relative_to(ROOT)} into {folder.relative_to(ROOT)} ...", flush=True)
    pip = [str(python_of(name)), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    try:
        if not python_of(name).exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([*pip, "-r", str(wanted)], check=True)
    except subprocess.CalledProcessError as error:
        raise Missing(f"the environment of {name} cannot be made: exit code {error.returncode}") from None
    stamp.write_text(digest)


def models(kinds: Iterable[str]) -> None:
    """Make the models that are not there yet. Raises Missing."""
    wanted = [kind for kind in kinds if not made(kind)]
    if not wanted:
        return
    if not MODELS_PYTHON.exists():
        raise Missing("the models under test are exported with torch: run `make models-env` first")
    print(f"making the models: {', '.join(wanted)} (the ViT takes some minutes) ...", flush=True)
    command = [
        str(MODELS_PYTHON),
        "-m",
        "loadtest.peers.artefacts",
        *sorted({kind.partition("-")[0] for kind in wanted}),
    ]
    try:
        subprocess.run(command, cwd=ROOT, check=True)
    except subprocess.CalledProcessError as error:
        raise Missing(f"the models cannot be made: exit code {error.returncode}") from None


def made(kind: str) -> bool:
    """Whether a model is whole: for the others and for Squint."""
    return plain(kind).exists() and (ours(kind) / "manifest.json").exists()


def plain(kind: str) -> Path:
    """The ONNX file that the others serve."""
    model, _, form = kind.partition("-")
    return MODELS / model / f"plain{'-' * bool(form)}{form}.onnx"


def ours(kind: str) -> Path:
    """The directory that Squint serves."""
    model = kind.partition("-")[0]
    return MODELS / model / "zoo" / model / "1"
