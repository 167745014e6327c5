"""`squint models add`: a public model, ready to be served."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.manifest import Task
from service import config
from squint.commands.named import cache, command, needs, whole_number
from squint.errors import Failure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.sources.artefact import Source

    Answers = dict[str, NDArray[Any]]

TASKS: tuple[Task, ...] = ("classify", "detect", "segment")
MORE = """SOURCE is timm/NAME, a classifier of the timm library, or onnx with a FILE. The graph that is written obeys
the service's contract; it is run on every installed backend, and the model is kept only if one gives the reference
answers. docs/models.md describes the files. Needs the extra 'models'."""


def add(group: Any) -> None:
    """Describe the command."""
    adding = command(group, "add", add_model, "bring a public model in", " ".join(MORE.split()))
    adding.add_argument("source", metavar="SOURCE", help="timm/NAME, or onnx")
    adding.add_argument("file", metavar="FILE", nargs="?", help="the .onnx file, after onnx")
    adding.add_argument("--name", metavar="NAME", help="what clients will call it (for timm by default as timm does)")
    adding.add_argument(
        "--version",
        type=whole_number(1, 999_999_999),
        default=1,
        metavar="N",
        help="which version of NAME it is; others stay beside it (default 1)",
    )
    adding.add_argument("--task", choices=TASKS, help="what it answers (timm: classify)")
    adding.add_argument(
        "--weights", metavar="W", help="for timm: random, pretrained (from the hub), or a .safetensors file"
    )
    adding.add_argument("--labels", metavar="FILE", help="the names of its classes, one per line or as JSON")
    adding.add_argument("--transform", metavar="FILE", help="how images become its input, as TOML or JSON")
    adding.add_argument("--to", metavar="DIR", help="directory of models to write to (default: the first one served)")
    adding.add_argument("--cache-dir", metavar="DIR", help="where compiled models are kept, as for `squint serve`")


def add_model(options: argparse.Namespace) -> None:
    """Bring it in, verify it, and only then put it in its place."""
    kind, _, name = options.source.partition("/")
    with needs("bringing a model in", "models"):
        from models.sources.artefact import SourceError, check_name
    try:
        if kind == "timm" and name:
            name = check_name(options.name or name.lower())
            source, answers = _timm(options, options.source.partition("/")[2])
        elif options.source == "onnx":
            _needs_all(options)
            name = check_name(options.name)
            source, answers = _onnx(options)
        elif kind == "transformers":
            raise Failure("models of transformers: not available in this release")
        else:
            raise Failure(f"{options.source}: expected timm/NAME, or onnx FILE")
        _keep(options, source, answers, name)
    except SourceError as error:
        raise Failure(str(error)) from error


def _timm(options: argparse.Namespace, name: str) -> tuple[Source, Answers]:
    if options.file or options.task not in (None, "classify"):
        raise Failure("a timm model takes no FILE, and its task is classify")
    if not options.weights:
        raise Failure("--weights: expected random, pretrained, or a .safetensors file")
    with needs("bringing a timm model in", "models"):
        from models.sources.timm_graph import bring_in
    _say(f"exporting timm/{name} ...")
    return bring_in(name, options.weights, _path(options.labels), _path(options.transform))


def _needs_all(options: argparse.Namespace) -> None:
    words = ("file", "name", "task", "labels", "transform")
    missing = ["FILE" if word == "file" else f"--{word}" for word in words if not getattr(options, word)]
    if missing:
        raise Failure(f"an ONNX model needs {', '.join(missing)}")
    if options.weights:
        raise Failure("--weights is for timm; an ONNX model has its weights in FILE")


def _onnx(options: argparse.Namespace) -> tuple[Source, Answers]:
    with needs("bringing an ONNX model in", "models"):
        from models.sources.onnx import bring_in
        from models.sources.pictures import reference_images
        from squint.measure.reference import answers
    source = bring_in(Path(options.file), options.task, Path(options.labels), Path(options.transform))
    _say("running it on the reference images ...")
    return source, answers(source, reference_images(source.transform))


def _keep(options: argparse.Namespace, source: Source, answers: Answers, name: str) -> None:
    """Write the model; it stays only if a backend gives the reference answers."""
    from models.sources.artefact import fill
    from squint.measure.backends import verify

    root = Path(options.to) if options.to else Path(config.load().models[0])
    version = str(options.version)
    with _place(root, name, version) as directory:
        fill(directory, source, name, answers, version)
        measured = verify(directory, str(cache(options)), lambda variant: _say(f"trying {variant} ..."))
        for one in measured:
            print(f"{one.variant}: {one.refused or f'agrees, scores within {one.score:.1g}'}")
        if all(one.refused for one in measured):
            raise Failure(f"{name}: no installed backend gives the reference answers, so it was not kept")
    print(f"wrote {root / name / version}; to serve it: squint serve --models {root}")


@contextmanager
def _place(root: Path, name: str, version: str) -> Iterator[Path]:
    """Where it is written first; it gets there whole or not at all."""
    from models.sources.artefact import staged

    try:
        with staged(root, name, version) as directory:
            yield directory
    except OSError as error:
        raise Failure(f"--to {root}: {error.strerror or 'cannot be written'}") from error


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _say(line: str) -> None:
    print(line, file=sys.stderr)
