"""The names of a model's classes, from a file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from models.sources.artefact import SourceError

MOST_BYTES = 1 << 22


def read_labels(path: Path) -> list[str]:
    """A JSON list, a JSON object from index to name, or one name per line; the names by rising index.

    Raises SourceError.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path}: not UTF-8 text") from None
    if len(raw) > MOST_BYTES:
        raise SourceError(f"{path}: {len(raw)} bytes, expected at most {MOST_BYTES}")
    names = _json(path, text) if text.lstrip()[:1] in ("[", "{") else [line.strip() for line in text.splitlines()]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise SourceError(f"{path}: holds no names")
    if not all(names):
        raise SourceError(f"{path}: name number {names.index('') + 1} is empty")
    return names


def _json(path: Path, text: str) -> list[str]:
    try:
        found = msgspec.json.decode(text, type=list[str] | dict[int, str])
    except msgspec.MsgspecError as error:
        raise SourceError(f"{path}: {error}") from None
    if isinstance(found, list):
        return found
    if sorted(found) != list(range(len(found))):
        raise SourceError(f"{path}: the indices are not 0 to {len(found) - 1}")
    return [found[index] for index in range(len(found))]


def check_count(labels: list[str], classes: int) -> list[str]:
    """The labels, if there is one for each class. Raises SourceError."""
    if len(labels) != classes:
        raise SourceError(f"--labels holds {len(labels)} names, the model has {classes} classes")
    return labels
