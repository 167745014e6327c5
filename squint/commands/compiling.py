"""`squint models compile`: have models compiled before they are served."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from models import manifest
from squint.commands.named import all_models, cache, command, needs, of_directories, whole_number
from squint.commands.table import show
from squint.errors import Failure

COLUMNS = ("model", "backend", "seconds", "agreement", "score", "verdict")


def add(group: Any) -> None:
    """Describe the command."""
    compiling = command(
        group,
        "compile",
        compile_models,
        "compile models ahead of time for this machine",
        "Makes what the backend `torch` loads: a library for every named level and batch size, in float32 and in "
        "bfloat16, kept in the cache directory. What is there is not made again; what it was made from, the software "
        "and the hardware are part of its name. Then the answers are compared with the reference. Minutes; needs torch "
        "and a C++ compiler, serving needs torch alone.",
    )
    compiling.add_argument("name", metavar="NAME", nargs="?", help="the model, as `squint models list` shows it")
    compiling.add_argument("--all", action="store_true", help="every model")
    of_directories(compiling)
    compiling.add_argument(
        "--backend", metavar="B", default="torch", help="torch, or one of torch/f32 and torch/bf16 (default torch)"
    )
    compiling.add_argument("--device", metavar="D", default="cpu", help="cpu, or a GPU such as cuda:0 (default cpu)")
    compiling.add_argument(
        "--batch",
        type=whole_number(1, 64),
        action="append",
        metavar="N",
        help="only this batch size; may be repeated. On a GPU a batch is filled up to the next size that every level "
        "has (default: 1, 2, 4, 8, 16, 32 and 64; on a CPU 1)",
    )
    compiling.add_argument("--cache-dir", metavar="DIR", help="where it is kept, as for `squint serve`")


def compile_models(options: argparse.Namespace) -> None:
    """Compile, and say of each model and variant whether its answers are right."""
    found = all_models(options)
    if options.all == (options.name is not None):
        raise Failure("name one model, or give --all")
    names = sorted(found) if options.all else [options.name]
    if options.name is not None and options.name not in found:
        raise Failure(f"no model {options.name!r}; there are: {', '.join(sorted(found)) or 'none'}")
    with needs("compiling", "models"):
        from squint.measure.backends import built
    store, rows = str(cache(options)), list[dict[str, Any]]()
    for name in names:
        model = manifest.load(found[name])
        for variant, made in built(
            found[name], model, options.backend, store, _say, options.device, options.batch or ()
        ):
            rows.append(
                {
                    "model": name,
                    "backend": variant,
                    "seconds": round(made.load_seconds, 1),
                    "agreement": round(made.share, 4),
                    "score": round(made.score, 5),
                    "verdict": made.refused or "agrees",
                }
            )
    show(rows, COLUMNS, as_json=False)
    if any(row["verdict"] != "agrees" for row in rows):
        raise Failure("not everything can be used")


def _say(line: str) -> None:
    print(line, file=sys.stderr)
