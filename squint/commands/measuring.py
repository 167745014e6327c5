"""`squint models evaluate`: how good a model is."""

from __future__ import annotations

import argparse
import json
from typing import Any

from squint.commands.named import command, needs, of_model, the_model, whole_number
from squint.errors import Failure

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
    evaluate.add_argument("--level", default="full", metavar="L", help="the level to run at (default full)")
    evaluate.add_argument(
        "--backend",
        metavar="B",
        default="onnxruntime",
        help="onnxruntime or openvino, also with a precision such as openvino/bf16 (default onnxruntime)",
    )
    evaluate.add_argument("--url", metavar="URL", help="evaluate through this running service instead of a backend")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


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
