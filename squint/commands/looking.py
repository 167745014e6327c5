"""`squint models list, levels`: what there is, by the manifests alone."""

from __future__ import annotations

import argparse
from typing import Any

from models import manifest
from squint.commands.named import all_models, command, of_directories, of_model, the_model
from squint.commands.table import show


def add(group: Any) -> None:
    """Describe the commands."""
    listing = command(group, "list", list_models, "list the models that would be served")
    of_directories(listing)
    listing.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    levels = command(
        group,
        "levels",
        list_levels,
        "list the levels of a model",
        "A level trades accuracy for time; GMACs count the multiply-adds of one image, in thousand millions.",
    )
    of_model(levels)
    levels.add_argument("--json", action="store_true", help="one JSON array instead of a table")


def list_models(options: argparse.Namespace) -> None:
    """What would be served."""
    rows = []
    for directory in all_models(options).values():
        model = manifest.load(directory)
        megabytes = round(sum(file.bytes for file in model.files.values()) / 1e6, 1)
        levels = [level.name for level in model.levels]
        rows.append(
            {"name": model.name, "version": model.version, "task": model.task, "levels": levels, "mb": megabytes}
        )
    show(rows, ("name", "version", "task", "levels", "mb"), as_json=options.json)


def list_levels(options: argparse.Namespace) -> None:
    """Cost and measured accuracy of each level, best first."""
    _, model = the_model(options)
    rows: list[dict[str, Any]] = [
        {"level": level.name, "gmacs": level.gmacs, "tokens": level.tokens, "accuracy": level.accuracy}
        for level in sorted(model.levels, key=lambda level: -level.gmacs)
    ]
    show(rows, ("level", "gmacs", "tokens", "accuracy"), as_json=options.json)
