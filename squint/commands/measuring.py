"""`squint models evaluate`: how good a model is."""

from __future__ import annotations

import argparse
import json
from typing import Any

from models.levels import FULL, LevelError, plan
from models.manifest import Manifest
from squint.commands.named import api_key, command, needs, of_model, of_service, the_model, whole_number
from squint.commands.table import show
from squint.errors import Failure

ALL = "all"
BACKENDS = ("onnxruntime", "openvino")


def add(group: Any) -> None:
    """Describe the command."""
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
    evaluate.add_argument(
        "--level",
        metavar="L",
        action="append",
        help="a level, all for those with a name; may be repeated (default full)",
    )
    evaluate.add_argument(
        "--backend",
        metavar="B",
        default="onnxruntime",
        help="onnxruntime or openvino, also with a precision such as openvino/bf16 (default onnxruntime)",
    )
    of_service(evaluate, None, "evaluate through this running service instead of a backend")
    evaluate.add_argument("--write", action="store_true", help="write what was found into the manifest")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def evaluate_model(options: argparse.Namespace) -> None:
    """Accuracy on fresh scenes."""
    directory, model = the_model(options)
    levels = _levels(model, options.level or [FULL])
    if options.backend.partition("/")[0] not in BACKENDS:
        raise Failure(f"--backend {options.backend}: expected one of {', '.join(BACKENDS)}, or one with its precision")
    with needs("evaluating", "serve"):
        from squint.client import ClientError
        from squint.measure.evaluate import evaluate, record
    try:
        results = evaluate(
            model.name,
            directory,
            scenes=options.scenes,
            seed=options.seed,
            backend=options.backend,
            url=options.url,
            levels=levels,
            progress=not options.json,
            api_key=api_key(options),
        )
    except (ClientError, OSError, RuntimeError, ValueError) as error:
        raise Failure(f"{options.url or options.backend}: {error}") from error
    if options.write:
        where = "a running service" if options.url else options.backend
        conditions = {"data": "toyscape, test split", "scenes": options.scenes, "seed": options.seed, "backend": where}
        record(directory, results, conditions)
    figures = {level: {name: round(value, 4) for name, value in found.items()} for level, found in results.items()}
    if len(figures) > 1:
        rows = [{"level": level, **found} for level, found in figures.items()]
        show(rows, list(rows[0]), as_json=options.json)
        return
    (only,) = figures.values()
    print(json.dumps(only) if options.json else "  ".join(f"{name} {value}" for name, value in only.items()))


def _levels(model: Manifest, asked: list[str]) -> list[str]:
    """Names and explicit levels, each once."""
    named = [level.name for level in model.levels]
    levels = list(dict.fromkeys(level for word in asked for level in (named if word == ALL else [word])))
    for level in levels:
        try:
            if level not in named:
                plan(level, model.trunk)
        except LevelError as error:
            raise Failure(f"--level {level}: {model.name} has {', '.join(named)}; {error}") from None
    return levels
