"""Every level of every model, on every variant of the device, against PyTorch in fp32 on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models import manifest
from models.levels import plan
from models.manifest import Manifest
from models.reference import read_reference
from service.backends.base import BackendError
from service.errors import ConfigError
from squint.measure import verify
from squint.measure.backends import pictures
from tests.gpu import variants
from tests.gpu.plan import Settings


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    """Raises RuntimeError when a level is outside its tolerance; a variant that cannot run says why and is none."""
    rows: list[dict[str, Any]] = settings.remembered("agreement").get("rows", [])
    refused: list[dict[str, str]] = []
    for name, directory in variants.directories(settings).items():
        described = manifest.load(directory)
        wanted = [one for one in variants.wanted(settings) if not _known(rows, described, one)]
        if not wanted:
            continue
        images, reference, whose = references(settings, directory, described)
        levels = [plan(level.explicit, described.trunk).level for level in described.levels]
        for variant in wanted:
            try:
                backend = variants.opened(settings, directory, variant)
                found = list(verify.check(described, backend, images, levels, reference))
                backend.close()
            except (BackendError, ConfigError) as error:
                refused.append({"model": name, "variant": variant, "why": str(error)})
            else:
                rows = [row for row in rows if (row["model"], row["backend"]) != (name, variant)]
                rows += [{"model": name, "made": described.digest, "reference": whose, **asdict(row)} for row in found]
            save({"rows": rows, "refused": refused})
    wrong = [f"{row['model']} {row['backend']} {row['level']}" for row in rows if row["wrong"]]
    if wrong or not rows:
        raise RuntimeError(f"{len(wrong)} of {len(rows)} levels disagree: {', '.join(wrong[:5])}")


def _known(rows: list[dict[str, Any]], described: Manifest, variant: str) -> bool:
    """Whether these very levels of a model were looked at before."""
    return (described.digest, variant) in {(row.get("made"), row["backend"]) for row in rows}


def references(settings: Settings, directory: Path, described: Manifest) -> tuple[verify.Images, verify.Reference, str]:
    """Images and what PyTorch answers: asked now about fresh scenes, or for a model that was brought in, the answers
    that it was brought in with."""
    from models.oracle import OracleError, oracle

    try:
        asked = oracle(directory, described)
    except OracleError:
        return *verify.kept_reference(read_reference(directory, described)), "PyTorch, when it was brought in"
    return pictures(described, settings.scenes), verify.remembered(asked), "PyTorch, now"
