"""`squint models verify, profile, evaluate`: is it whole, how fast is it, how good is it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from models import manifest
from service import config
from squint.commands.named import cache, command, needs, of_model, the_model, whole_number
from squint.commands.table import show
from squint.errors import Failure

if TYPE_CHECKING:
    from service.backends.trial import Measured

BACKENDS = ("onnxruntime", "openvino")


def add(group: Any) -> None:
    """Describe the commands."""
    _add_verify(group)
    _add_profile(group)
    _add_evaluate(group)


def _add_verify(group: Any) -> None:
    verify = command(
        group,
        "verify",
        verify_model,
        "check that a model's files are what its manifest says",
        "Compares the manifest with its own digest and every file with its sha256; nothing is parsed before. Then runs "
        "every installed backend on the reference images and compares the answers.",
    )
    of_model(verify)
    verify.add_argument("--files", action="store_true", help="look at the files alone")
    verify.add_argument("--cache-dir", metavar="DIR", help="where compiled models are kept, as for `squint serve`")


def _add_profile(group: Any) -> None:
    profile = command(
        group,
        "profile",
        profile_model,
        "measure a model's times on this machine",
        "Shows every backend and what `auto` chooses; a batch of n items takes about a + b * n. What was measured "
        "before is shown again, unless --fresh.",
    )
    of_model(profile)
    profile.add_argument("--backend", metavar="B", default="auto", help="auto, or one backend (default auto)")
    profile.add_argument("--threads", metavar="N", help="engine threads, as for `squint serve`")
    profile.add_argument("--fresh", action="store_true", help="measure again; nothing is kept")
    profile.add_argument("--cache-dir", metavar="DIR", help="where measurements are kept, as for `squint serve`")
    profile.add_argument("--json", action="store_true", help="one JSON array instead of a table")


def _add_evaluate(group: Any) -> None:
    evaluate = command(
        group,
        "evaluate",
        evaluate_model,
        "measure a model's accuracy on freshly generated scenes",
        "Classification gives top1, detection map and map50 (COCO), segmentation miou. Scenes are stored as JPEG and "
        "decoded and resized as the service does it; with --url they are sent to a running service.",
    )
    of_model(evaluate)
    evaluate.add_argument("--scenes", type=whole_number(1, 1_000_000), default=2000, metavar="N", help="default 2000")
    evaluate.add_argument(
        "--seed", type=whole_number(0, 2**31 - 1), default=0, metavar="S", help="another seed, other scenes (default 0)"
    )
    evaluate.add_argument("--level", default="full", metavar="L", help="the level to run at (default full)")
    evaluate.add_argument(
        "--backend",
        metavar="B",
        default="onnxruntime",
        help="onnxruntime or openvino, also with a precision such as openvino/bf16 (default onnxruntime)",
    )
    evaluate.add_argument("--url", metavar="URL", help="evaluate through this running service instead of a backend")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def verify_model(options: argparse.Namespace) -> None:
    """Every byte against its digest, then every backend against the reference answers."""
    directory, model = the_model(options)
    for name in model.files:
        manifest.check_file(directory, model, name)
    print(f"{model.name} version {model.version}: the manifest and {len(model.files)} files are intact")
    if options.files:
        return
    with needs("running backends", "serve"):
        from squint.measure.backends import verify
    measured = verify(directory, str(cache(options)), lambda variant: print(f"trying {variant} ...", file=sys.stderr))
    rows = [
        {
            "backend": one.variant,
            "agreement": round(one.share, 4),
            "score": round(one.score, 5),
            "verdict": _verdict(one),
        }
        for one in measured
    ]
    show(rows, ("backend", "agreement", "score", "verdict"), as_json=False)
    if all(one.refused for one in measured):
        raise Failure(f"{model.name}: no installed backend gives the reference answers")


def profile_model(options: argparse.Namespace) -> None:
    """Times of every backend, and the one that `auto` takes."""
    directory, model = the_model(options)
    loaded = config.load({"threads": options.threads, "cache-dir": options.cache_dir})
    with needs("running backends", "serve"):
        from squint.measure.backends import profile
    report = profile(directory, model, options.backend, loaded.threads, loaded.cache_dir, fresh=options.fresh)
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
    show(rows, ("backend", "level", "a_ms", "b_ms", "images_per_second", "verdict"), as_json=options.json)


def _verdict(one: Measured) -> str:
    return one.refused or "agrees"


def evaluate_model(options: argparse.Namespace) -> None:
    """Accuracy on fresh scenes."""
    directory, model = the_model(options)
    levels = [level.name for level in model.levels]
    if options.level not in levels:
        raise Failure(f"--level {options.level}: {model.name} has {', '.join(levels)}")
    if options.backend.partition("/")[0] not in BACKENDS:
        raise Failure(f"--backend {options.backend}: expected one of {', '.join(BACKENDS)}, or one with its precision")
    with needs("evaluating", "serve"):
        from squint.measure.evaluate import evaluate
    try:
        result = evaluate(
            model.name,
            directory,
            scenes=options.scenes,
            seed=options.seed,
            backend=options.backend,
            url=options.url,
            level=options.level,
            progress=not options.json,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise Failure(f"{options.url or options.backend}: {error}") from error
    figures = {name: round(value, 4) for name, value in result.items()}
    print(json.dumps(figures) if options.json else "  ".join(f"{name} {value}" for name, value in figures.items()))
