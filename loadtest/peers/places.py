"""Where things of the comparison lie."""

from __future__ import annotations

from pathlib import Path

APPS = Path(__file__).resolve().parent
ROOT = APPS.parents[1]
CACHE = ROOT / ".cache" / "peers"
REQUIREMENTS = APPS / "requirements"
RESULTS = APPS / "results"
PLOTS = ROOT / "docs" / "plots"
MODELS = CACHE / "models"


def python_of(name: str) -> Path:
    """The interpreter of an environment of its own."""
    return CACHE / name / "bin" / "python"
