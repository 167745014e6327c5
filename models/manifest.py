"""The manifest of a model: what it is, what it takes, what it answers, and which bytes it consists of.

A model directory is `NAME/VERSION/` with a `manifest.json` and exactly the files the manifest lists. Every file
carries its sha256; the manifest carries a digest of itself, so that any flipped bit is seen before a parser runs.
The digests guard against damage, not against an author: who may write the directory may write new digests.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from models.levels import FULL, LevelError, Trunk, plan

FORMAT = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20

Task = Literal["classify", "detect", "segment"]
Fit = Literal["crop", "stretch", "letterbox"]
Filter = Literal["bicubic", "bilinear"]
_VERSION = re.compile(r"0|[1-9][0-9]{0,8}")
Name = msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")


class ManifestError(Exception):
    """The model cannot be used; the message is one line and names the file."""


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all manifest parts: frozen, and a key we do not know is an error."""


class Transform(Struct, frozen=True):
    """From an image to the network's input.

    `crop` resizes so that the short side fits and takes the middle, `stretch` ignores the aspect ratio, `letterbox`
    keeps it and fills the rest with `fill`. Of what `crop` and `stretch` would take, only the middle `keep` of each
    side is the input ("resize to 256, crop 224" keeps 0.875). Always one antialiased resample of the source box.
    """

    fit: Fit
    height: int
    width: int
    fill: tuple[int, int, int] = (114, 114, 114)
    keep: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    filter: Filter = "bicubic"


class File(Struct, frozen=True):
    """One file of the model: its sha256 in hex and its size in bytes."""

    sha256: str
    bytes: int


class Level(Struct, frozen=True):
    """A named operating point and the explicit level it stands for (see `models.levels`).

    `accuracy` is this level's evaluation metric, absent until it was measured; `agreement` the share of decisions it
    shares with `full`, for a model whose accuracy nobody here can measure.
    """

    name: str
    gmacs: float
    tokens: int
    explicit: str = FULL
    accuracy: float | None = None
    agreement: float | None = None


class Tolerance(Struct, frozen=True):
    """How far a backend may stray from the reference outputs and still be offered.

    `agreement` is the least share of decisions (top-1 classes, matched boxes, mask pixels) that must be the same,
    `score` the largest difference of a probability or score.
    """

    agreement: float
    score: float


class Manifest(Struct, frozen=True):
    """The whole of `manifest.json`."""

    format: int
    name: str
    version: str
    task: Task
    labels: list[str]
    licence: str
    transform: Transform
    graph: str
    reference: str
    files: dict[str, File]
    levels: list[Level]
    tolerance: Tolerance
    trunk: Trunk | None = None
    training: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    digest: str = ""

    def sealed(self) -> Manifest:
        """This manifest with its own digest filled in."""
        return msgspec.structs.replace(self, digest=digest(self))


_DECODER = msgspec.json.Decoder(Manifest)
"""Made before there are threads: two that are the first to decode one type by its name alone crash in msgspec."""


def digest(manifest: Manifest) -> str:
    """sha256 of the manifest's canonical JSON with an empty digest field."""
    blank = msgspec.structs.replace(manifest, digest="")
    return hashlib.sha256(msgspec.json.encode(blank, order="sorted")).hexdigest()


def describe_file(path: Path) -> File:
    """The manifest entry of an existing file."""
    data = path.read_bytes()
    return File(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def write(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, sealed, in a form a person can read."""
    text = msgspec.json.format(msgspec.json.encode(manifest.sealed()), indent=1)
    (directory / MANIFEST).write_bytes(text + b"\n")


def load(directory: Path) -> Manifest:
    """Read and check the manifest of `directory`, and that the directory holds exactly its files.

    Raises ManifestError. The files' contents are checked when they are read, by `read_file`.
    """
    raw = _read_regular(directory / MANIFEST, MAX_MANIFEST_BYTES)
    try:
        manifest = _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"{directory / MANIFEST}: {error}") from None
    if manifest.format != FORMAT:
        raise ManifestError(f"{directory / MANIFEST}: format {manifest.format}, this version reads {FORMAT}")
    if digest(manifest) != manifest.digest:
        raise ManifestError(f"{directory / MANIFEST}: does not match its digest; it was altered or damaged")
    _check_parts(directory, manifest)
    present = {entry.name for entry in os.scandir(directory)}
    for name in sorted(present - set(manifest.files) - {MANIFEST}):
        raise ManifestError(f"{directory / name}: not listed in the manifest")
    for name in sorted(set(manifest.files) - present):
        raise ManifestError(f"{directory / name}: missing")
    return manifest


def _check_parts(directory: Path, manifest: Manifest) -> None:
    for part in (manifest.graph, manifest.reference):
        if part not in manifest.files:
            raise ManifestError(f"{directory / MANIFEST}: {part!r} is not among its files")
    for name in manifest.files:
        if name != Path(name).name or name.startswith("."):
            raise ManifestError(f"{directory / MANIFEST}: {name!r} is not a plain file name")
    if not manifest.levels or not manifest.labels:
        raise ManifestError(f"{directory / MANIFEST}: needs at least one level and one label")
    for level in manifest.levels if manifest.trunk else ():
        try:
            plan(level.explicit, manifest.trunk)
        except LevelError as error:
            raise ManifestError(f"{directory / MANIFEST}: level {level.name!r}: {error}") from None


def check_file(directory: Path, manifest: Manifest, name: str) -> None:
    """Check one listed file against its sha256 without holding it in memory. Raises ManifestError."""
    with _open_regular(directory / name, manifest.files[name].bytes) as file:
        _check_sum(directory / name, manifest.files[name], hashlib.file_digest(file, "sha256").hexdigest())


def read_file(directory: Path, manifest: Manifest, name: str) -> bytes:
    """The bytes of one listed file, checked against its sha256 before anyone parses them."""
    data = _read_regular(directory / name, manifest.files[name].bytes)
    _check_sum(directory / name, manifest.files[name], hashlib.sha256(data).hexdigest())
    return data


def _check_sum(path: Path, listed: File, sha256: str) -> None:
    if sha256 != listed.sha256:
        raise ManifestError(f"{path}: does not match the sha256 in the manifest; it was altered or damaged")


def _read_regular(path: Path, limit: int) -> bytes:
    with _open_regular(path, limit) as file:
        return file.read(limit + 1)


def _open_regular(path: Path, limit: int) -> BufferedReader:
    """Open a regular file of at most `limit` bytes, following no link: what was checked is what is used."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from None
    status = os.fstat(descriptor)
    wrong = ""
    if not stat.S_ISREG(status.st_mode):
        wrong = "not a plain file"
    elif status.st_size > limit:
        wrong = f"{status.st_size} bytes, expected at most {limit}"
    if wrong:
        os.close(descriptor)
        raise ManifestError(f"{path}: {wrong}")
    return os.fdopen(descriptor, "rb")


def find(roots: list[Path]) -> dict[str, Path]:
    """Model name -> directory of its newest version, over all `roots`; a later root wins over an earlier one."""
    return {name: there[max(there, key=int)] for name, there in versions(roots).items()}


def versions(roots: list[Path]) -> dict[str, dict[str, Path]]:
    """Model name -> version -> its directory, over all `roots`; of a model that several have, the last root's versions
    count. A version is a whole number without leading zeros."""
    found: dict[str, dict[str, Path]] = {}
    for root in roots:
        if not root.is_dir():
            raise ManifestError(f"{root}: no such model directory")
        for model in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
            named = (entry for entry in model.iterdir() if _VERSION.fullmatch(entry.name))
            if there := {entry.name: entry for entry in named if entry.is_dir()}:
                found[model.name] = there
    return found
