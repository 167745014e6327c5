"""`squint models profile`: how fast a model is here, and what its levels cost and are worth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from models import manifest
from models.manifest import Manifest
from service import config
from squint.commands.named import command, needs, of_model, the_model, whole_number
from squint.commands.table import show
from squint.errors import Failure

if TYPE_CHECKING:
    from service.backends.choose import Report
    from service.backends.trial import Measured
    from squint.measure.profile import Profile


def add(group: Any) -> None:
    """Describe the command."""
    profile = command(
        group,
        "profile",
        profile_model,
        "measure a model's times, and its levels, on this machine",
        "Shows every backend and what `auto` chooses; a batch of n items takes about a + b * n. Then, on that backend, "
        "the levels: their times in turns, their accuracy on fresh scenes (agreement with full, for a model not made "
        "for these), and which of them high, balanced and fast should be. They are chosen from the best: --max-drop "
        "is what fast may lose; balanced may lose 15 percent of that, high 5. What was measured before is shown "
        "again, unless --fresh.",
    )
    of_model(profile)
    profile.add_argument("--backend", metavar="B", default="auto", help="auto, or one backend (default auto)")
    profile.add_argument("--threads", metavar="N", help="engine threads, as for `squint serve`")
    profile.add_argument(
        "--scenes", type=whole_number(1, 100_000), default=200, metavar="N", help="for accuracy (default 200)"
    )
    profile.add_argument(
        "--seed", type=whole_number(0, 2**31 - 1), default=0, metavar="S", help="another seed, other scenes"
    )
    profile.add_argument("--batches", type=sizes, default=(1, 2, 4, 8), metavar="N,N", help="default 1,2,4,8")
    profile.add_argument("--level", metavar="L", action="append", help="measure this level instead; may be repeated")
    profile.add_argument("--max-drop", type=points, default=1.0, metavar="P", help="points of accuracy (default 1.0)")
    profile.add_argument("--plot", metavar="FILE", help="where to draw time and accuracy (a PNG)")
    profile.add_argument("--write", action="store_true", help="write the chosen levels into the manifest")
    profile.add_argument("--fresh", action="store_true", help="measure again")
    profile.add_argument("--cache-dir", metavar="DIR", help="where measurements are kept, as for `squint serve`")
    profile.add_argument("--json", action="store_true", help="one JSON array instead of tables")


def sizes(text: str) -> tuple[int, ...]:
    """An argument's type: batch sizes."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= 64 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected sizes from 1 to 64, such as 1,4")
    return tuple(sorted({int(part) for part in parts}))


def points(text: str) -> float:
    """An argument's type: percentage points."""
    value = float(text)
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r}: expected points from 0 to 100")
    return value


def profile_model(options: argparse.Namespace) -> None:
    """Times of every backend and the one that `auto` takes; then its levels."""
    directory, model = the_model(options)
    if model.trunk is None and (options.write or options.plot or options.level):
        raise Failure(f"{model.name} has no levels but full")
    loaded = config.load({"threads": options.threads, "cache-dir": options.cache_dir})
    with needs("running backends", "serve"):
        from squint.measure.backends import profile
    report = profile(directory, model, options.backend, loaded.threads, loaded.cache_dir, fresh=options.fresh)
    if model.trunk is None or not options.json:
        _backends(report, as_json=options.json)
    if model.trunk is not None:
        _levels(options, directory, model, report.chosen, loaded.cache_dir)


def _backends(report: Report, *, as_json: bool) -> None:
    """How fast every backend is, and why one or one of its levels is not used."""
    rows: list[dict[str, Any]] = []
    for one in report.measured:
        verdict = "chosen" if one.variant == report.chosen else _verdict(one)
        speed = round(one.images_per_second, 1)
        for timing in one.timings or (None,):
            level, a, b = (timing.level, timing.a, timing.b) if timing else (None, 0.0, 0.0)
            times = {"a_ms": round(a * 1000, 3), "b_ms": round(b * 1000, 3)}
            rows.append(
                {"backend": one.variant, "level": level, **times, "images_per_second": speed, "verdict": verdict}
            )
        for level, reason in one.left_out.items():
            nothing = {"a_ms": None, "b_ms": None, "images_per_second": None}
            rows.append({"backend": one.variant, "level": level, **nothing, "verdict": f"not offered: {reason}"})
    show(rows, ("backend", "level", "a_ms", "b_ms", "images_per_second", "verdict"), as_json=as_json)


def _verdict(one: Measured) -> str:
    return one.refused or "agrees"


def _levels(options: argparse.Namespace, directory: Path, model: Manifest, variant: str, store: str) -> None:
    """Measure levels on one variant, show them, and do with them what was asked."""
    from squint.measure.plot import draw
    from squint.measure.profile import choose, named_levels, rows

    measured = _profile(options, directory, model, variant, store)
    chosen = choose(measured.points, model.task, options.max_drop)
    table = rows(measured, model.task, chosen)
    if not options.json:
        print(f"\nlevels of {model.name} on {variant}, {measured.scenes} scenes")
    show(table, list(table[0]), as_json=options.json)
    if options.plot:
        draw(measured, model.task, chosen, Path(options.plot))
    if options.write:
        manifest.write(directory, msgspec.structs.replace(model, levels=named_levels(model, chosen)))


def _profile(options: argparse.Namespace, directory: Path, model: Manifest, variant: str, store: str) -> Profile:
    """Measured now, or before."""
    from squint.measure import profile

    levels = ["full", *options.level] if options.level else profile.levels_of(model)
    name = profile.store_name(model, variant, options.scenes, options.seed, options.batches, levels)
    known = None if options.fresh else profile.stored(store, name)
    if known is not None:
        return known
    return profile.measured_now(
        directory, model, variant, levels, options.batches, options.scenes, options.seed, store, name
    )
