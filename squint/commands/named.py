"""What the commands for models share: how one is described, and how it finds the model that was named."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models import manifest
from models.manifest import Manifest
from service import config
from squint.errors import Failure, how_to_get

Run = Callable[[argparse.Namespace], int | None]
MAX_KEY_BYTES = 4096


def command(group: Any, name: str, run: Run, words: str, more: str = "") -> argparse.ArgumentParser:
    """One command of a group, carried out by `run`."""
    parser: argparse.ArgumentParser = group.add_parser(
        name, help=words, description=f"{words[0].upper()}{words[1:]}. {more}".strip(), allow_abbrev=False
    )
    parser.set_defaults(run=run)
    return parser


def of_model(parser: argparse.ArgumentParser) -> None:
    """Arguments that name one model."""
    parser.add_argument("name", metavar="NAME", help="the model, as `squint models list` shows it")
    of_directories(parser)


def of_directories(parser: argparse.ArgumentParser) -> None:
    """Where models are looked for."""
    parser.add_argument(
        "--models", metavar="DIR", action="append", help="where to look; may be repeated (default: the shipped models)"
    )


def of_service(parser: argparse.ArgumentParser, url: str | None, words: str) -> None:
    """Arguments that say which running service is asked, and as whom."""
    parser.add_argument("--url", metavar="URL", default=url, help=words)
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="a file with nothing but the API key, which on a command line all can read",
    )


def api_key(options: argparse.Namespace) -> str | None:
    """The key that --api-key-file holds."""
    if options.api_key_file is None:
        return None
    try:
        with open(options.api_key_file, encoding="ascii") as file:
            return file.read(MAX_KEY_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "holds no API key"
        raise Failure(f"--api-key-file {options.api_key_file}: {words}") from None


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """An argument's type: a whole number in a range."""

    def whole(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from {low} to {high}")
        return int(text)

    return whole


def share(text: str) -> float:
    """An argument's type: a share, 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a share from 0 to 1")
    return value


def minutes(text: str) -> float:
    """An argument's type: a time to spend."""
    value = float(text)
    if not 0 < value <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected minutes, more than 0 and at most 100000")
    return value


def all_models(options: argparse.Namespace) -> dict[str, Path]:
    """Model name -> directory."""
    return manifest.find([Path(root) for root in config.load({"models": options.models}).models])


def the_model(options: argparse.Namespace) -> tuple[Path, Manifest]:
    """The directory and manifest of the model that was named."""
    found = all_models(options)
    if options.name not in found:
        raise Failure(f"no model {options.name!r}; there are: {', '.join(sorted(found)) or 'none'}")
    return found[options.name], manifest.load(found[options.name])


@contextmanager
def needs(what: str, extra: str) -> Iterator[None]:
    """Say which extra is missing when an import fails."""
    try:
        yield
    except ImportError as error:
        raise Failure(f"{what} needs {error.name}; {how_to_get(extra)}") from error


def cache(options: argparse.Namespace) -> Path:
    """The directory of caches."""
    return Path(config.load({"cache-dir": options.cache_dir}).cache_dir)
