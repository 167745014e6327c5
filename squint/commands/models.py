"""`squint models ...`: look at, check, measure and make models."""

from __future__ import annotations

from typing import Any

from squint.commands import adding, compiling, looking, making, measuring, profiling, reloading, verifying


def add(commands: Any) -> None:
    """Describe the group and its commands."""
    group = commands.add_parser(
        "models",
        help="list, check, evaluate, train, export and add models",
        description="Work with models. A model is a directory NAME/VERSION with a manifest; NAME is its name here.",
        allow_abbrev=False,
    ).add_subparsers(metavar="COMMAND", required=True)
    looking.add(group)
    verifying.add(group)
    profiling.add(group)
    measuring.add(group)
    making.add(group)
    adding.add(group)
    compiling.add(group)
    reloading.add(group)
