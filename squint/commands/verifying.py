"""`squint models verify`: is a model whole, and does it answer as it should, at every level on every backend?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import manifest
from models.levels import LevelError, plan
from models.manifest import Manifest
from squint.commands.named import cache, command, needs, of_model, the_model, whole_number
from squint.commands.table import show
from squint.errors import Failure

if TYPE_CHECKING:
    from squint.measure.verify import Images, Reference, Row

COLUMNS = ("backend", "level", "images", "near", "ties", "decisions", "worst", "verdict")


def add(group: Any) -> None:
    """Describe the command."""
    verify = command(
        group,
        "verify",
        verify_model,
        "check that a model is whole and answers as PyTorch does",
        "Compares the manifest with its own digest and every file with its sha256; nothing is parsed before. Then runs "
        "every installed backend on the reference images, and at every level. With torch, PyTorch is asked about fresh "
        "scenes if the model was made here; otherwise the answers count that its directory keeps. NEAR is the share of "
        "images whose numbers differ by less than 0.0001 (of whose masks less than 0.1 percent), TIES are images where "
        "other tokens were merged because two pairs were alike to the last bit.",
    )
    of_model(verify)
    verify.add_argument("--files", action="store_true", help="look at the files alone")
    verify.add_argument("--backend", metavar="B", default="auto", help="one backend (default: all that are installed)")
    verify.add_argument("--level", metavar="L", action="append", help="only this level; may be repeated")
    verify.add_argument(
        "--scenes", type=whole_number(1, 100_000), default=24, metavar="N", help="scenes to ask PyTorch (default 24)"
    )
    verify.add_argument("--cache-dir", metavar="DIR", help="where compiled models are kept, as for `squint serve`")


def verify_model(options: argparse.Namespace) -> None:
    """Every byte against its digest, every backend against the reference answers, every level of each."""
    directory, model = the_model(options)
    for name in model.files:
        manifest.check_file(directory, model, name)
    print(f"{model.name} version {model.version}: the manifest and {len(model.files)} files are intact")
    if options.files:
        return
    with needs("running backends", "serve"):
        from squint.measure.backends import verify
    store = str(cache(options))
    measured = verify(directory, store, lambda variant: _say(f"trying {variant} ..."), options.backend)
    rows = [
        {
            "backend": one.variant,
            "agreement": round(one.share, 4),
            "score": round(one.score, 5),
            "verdict": one.refused or "agrees",
        }
        for one in measured
    ]
    show(rows, ("backend", "agreement", "score", "verdict"), as_json=False)
    usable = [one.variant for one in measured if not one.refused]
    if not usable:
        raise Failure(f"{model.name}: no installed backend gives the reference answers")
    if model.trunk is not None:
        _levels(options, directory, model, usable, store)


def _levels(options: argparse.Namespace, directory: Path, model: Manifest, variants: Sequence[str], store: str) -> None:
    from tqdm import tqdm

    from models.reference import standard_levels
    from squint.measure.backends import opened
    from squint.measure.verify import check

    try:
        named = [plan(level.explicit, model.trunk).level for level in model.levels]
        wanted = [plan(level, model.trunk).level for level in options.level or ()]
    except LevelError as error:
        raise Failure(f"--level: {error}") from None
    levels = wanted or list(dict.fromkeys([*named, *standard_levels(model.trunk)]))
    images, reference, whose = _reference(options, directory, model)
    print(f"{len(images)} images, compared with {whose}")
    rows: list[Row] = []
    for variant in variants:
        backend = opened(directory, model, variant, store)
        checked = check(model, backend, images, levels, reference)
        rows += tqdm(checked, total=len(levels), unit="level", desc=variant, leave=False)
        backend.close()
    if not rows:
        raise Failure(f"{model.name}: its directory keeps no answers for these levels, and PyTorch cannot be asked")
    show([_shown(row) for row in rows], COLUMNS, as_json=False)
    for level in sorted(set(levels) - {row.level for row in rows}):
        print(f"{level}: not verified, no reference answers are kept for it")
    wrong = [row for row in rows if row.wrong]
    if wrong:
        raise Failure(f"{model.name}: {len(wrong)} of {len(rows)} levels on backends disagree with {whose}")


def _shown(row: Row) -> dict[str, Any]:
    figures = {"decisions": round(row.decisions, 4), "verdict": row.wrong or "agrees"}
    near = {"near": round(row.near, 4), "worst": f"{row.worst:.1e}"} if row.exact else {"near": None, "worst": None}
    return {**asdict(row), **figures, **near}


def _reference(options: argparse.Namespace, directory: Path, model: Manifest) -> tuple[Images, Reference, str]:
    """Images, who answers for them, and what that is called."""
    from models.reference import read_reference
    from squint.measure.backends import pictures
    from squint.measure.verify import kept_reference, remembered

    kept = kept_reference(read_reference(directory, model))
    try:
        from models.oracle import OracleError, oracle
    except ImportError:
        return *kept, "the answers of PyTorch that are kept (it is not installed)"
    try:
        asked = oracle(directory, model)
    except OracleError as error:
        return *kept, f"the answers of PyTorch that are kept ({error})"
    return pictures(model, options.scenes), remembered(asked), "PyTorch"


def _say(text: str) -> None:
    print(text, file=sys.stderr)
