"""`squint models train, export, toyscape`: where our own models come from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from models import manifest
from service import config
from squint.commands.named import cache, command, minutes, needs, share, whole_number
from squint.errors import Failure

TASKS: tuple[manifest.Task, ...] = ("classify", "detect", "segment")
LOOKUP = "toyscape-lookup"
EXPORTED: dict[str, manifest.Task] = {**{f"toyscape-{task}": task for task in TASKS}, LOOKUP: "classify"}


def add(group: Any) -> None:
    """Describe the commands."""
    train = command(
        group,
        "train",
        train_model,
        "train a toyscape model",
        "Goes on where an interrupted run stopped, and keeps the best weights as they improve. Needs torch.",
    )
    train.add_argument(
        "name", metavar="NAME", help="toyscape (all three heads on one trunk), toyscape-TASK or toyscape-lookup"
    )
    train.add_argument("--minutes", type=minutes, metavar="M", help="time to spend (default: what the recipe says)")
    train.add_argument("--scenes", type=whole_number(1, 10_000_000), metavar="N", help="how many scenes to learn from")
    train.add_argument(
        "--processes",
        type=whole_number(1, 256),
        default=0,
        metavar="N",
        help="how many train together (default: one per CPU)",
    )
    train.add_argument("--fresh", action="store_true", help="start anew instead of going on")
    train.add_argument("--start", metavar="FILE", help="weights that a new run begins with, if need be deepened")
    train.add_argument("--merged", type=share, metavar="S", help="share of the steps that merge tokens, for levels")
    train.add_argument("--narrow", type=share, metavar="S", help="share of the steps with half of the MLPs' units")
    train.add_argument("--cache-dir", metavar="DIR", help="where scenes and checkpoints are kept")
    export = command(
        group,
        "export",
        export_model,
        "write a trained model as ONNX with its manifest",
        "The weights are those that `train` keeps. Needs torch.",
    )
    export.add_argument("name", metavar="NAME", help="the model, such as toyscape-classify")
    export.add_argument("--to", metavar="DIR", help="directory of models to write to (default: the shipped models)")
    export.add_argument("--weights", metavar="FILE", help="other weights than those that `train` kept")
    export.add_argument("--cache-dir", metavar="DIR", help="where `train` kept its weights")
    toyscape = command(group, "toyscape", draw_sheet, "draw a contact sheet of generated scenes with their labels")
    toyscape.add_argument("--sheet", metavar="FILE", required=True, help="the picture to write, such as sheet.png")
    toyscape.add_argument(
        "--first", type=whole_number(0, 10**9), default=0, metavar="N", help="number of the first scene"
    )


def train_model(options: argparse.Namespace) -> None:
    """Minutes to hours, with a progress bar."""
    with needs("training", "models"):
        from models.train import RUNS, train
        from models.trainer import Recipe
    if options.name not in RUNS:
        raise Failure(f"no model {options.name!r} to train; there are: {', '.join(RUNS)}")
    given = {name: getattr(options, name) for name in ("minutes", "scenes", "merged", "narrow")}
    recipe = Recipe(**{name: value for name, value in given.items() if value is not None})
    start = Path(options.start) if options.start else None
    if start is not None and not start.is_file():
        raise Failure(f"{start}: no such file")
    best = train(options.name, recipe, cache(options), options.fresh, options.processes, start)
    print(f"best weights: {best}")


def export_model(options: argparse.Namespace) -> None:
    """From the best weights to a model directory."""
    with needs("exporting", "models"):
        from models.export import export
    if options.name not in EXPORTED:
        raise Failure(f"no model {options.name!r} to export; there are: {', '.join(EXPORTED)}")
    runs = cache(options) / "runs"
    trained = [options.name] if options.name == LOOKUP else [options.name, "toyscape"]
    candidates = [runs / run / "best.safetensors" for run in trained]
    weights = Path(options.weights) if options.weights else next((path for path in candidates if path.exists()), None)
    if weights is None or not weights.is_file():
        raise Failure(f"no weights in {weights or runs}; make them with: squint models train {options.name}")
    root = Path(options.to) if options.to else Path(config.load().models[0])
    print(f"wrote {export(EXPORTED[options.name], weights, root, options.name)}")


def draw_sheet(options: argparse.Namespace) -> None:
    """A picture of what the toyscape models are trained on."""
    with needs("drawing scenes", "serve"):
        from models.toyscape import contact_sheet
    target = Path(options.sheet)
    if not target.parent.is_dir():
        raise Failure(f"{target.parent}: no such directory")
    try:
        contact_sheet(target, first=options.first)
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise Failure(f"--sheet {target}: {words or 'cannot be written'}") from None
    print(f"wrote {target}")
