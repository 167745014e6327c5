"""Artefacts that take long to make, such as compiled models: each a directory of files, whole or not there at all.

What is in them is code, or is read by libraries that trust it like code. So they are made here and never taken from
elsewhere, in a directory that nobody else may write, and every byte is checked before a library sees it. The name of an
artefact comes from its key, which names all that it depends on: a change of any part is another artefact. The digests
guard against damage and mix-ups; who may write as this user may write new digests, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from service.backends import cache

FOLDER = "artefacts"
"""Where artefacts are, below the cache directory."""
FORMAT = 1
SEAL = "seal.json"
MAX_SEAL_BYTES = 1 << 20
MAX_FILES = 4096
"""A network compiled for a GPU has a file for each of its kernels, and every block that merges has other ones."""
PATIENCE = 3600.0
"""Seconds to wait for another process that makes the same artefact."""
LIMIT = 20_000_000_000
"""Bytes of artefacts; beyond it those that nobody has used for the longest time are deleted."""
IN_USE = 3600.0
"""Seconds since its last use in which an artefact is not deleted: someone may be about to load it."""
_POLL = 0.1

Build = Callable[[Path], None]


class StoreError(Exception):
    """An artefact can be neither found nor made; the message is one line without a path."""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of an artefact: its sha256 in hex and its size in bytes."""

    sha256: str
    bytes: int


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an artefact was made for, and the files that it consists of."""

    key: dict[str, str]
    files: dict[str, File]
    format: int = FORMAT


_SEALS = msgspec.json.Decoder(Seal)
"""Made before there are threads, as that of manifests is."""


class Store:
    """The artefacts below `root`, which is made when the first one is. Any number of processes may use it at once.

    `report` is told, in one line, of every artefact that is there but is refused.
    """

    def __init__(
        self,
        root: Path,
        *,
        report: Callable[[str], None] = lambda line: None,
        limit: int = LIMIT,
        patience: float = PATIENCE,
    ) -> None:
        self._root = root
        self._report = report
        self._limit = limit
        self._patience = patience

    def get(self, key: Mapping[str, str], build: Build) -> Path:
        """The directory of the artefact for `key`, verified; where there is none, `build` fills an empty directory
        with plain files first, while others who want the same one wait.

        Raises StoreError, and whatever `build` raises; then nothing is kept.
        """
        found = self.find(key)
        if found is not None:
            return found
        self._make_root()
        name = name_of(key)
        with self._locked(name):
            if not self.problem(key):  # somebody else has made it while we waited
                return self._root / name
            return self._made(name, key, build)

    def find(self, key: Mapping[str, str]) -> Path | None:
        """The directory of the artefact for `key`, verified; None where there is none that can be used."""
        path = self._root / name_of(key)
        problem = self.problem(key)
        if not problem:
            with contextlib.suppress(OSError):  # others may own it
                os.utime(path / SEAL)
            return path
        if os.path.lexists(path):
            self._report(f"artefact {path.name} is refused: {problem}")
        return None

    def problem(self, key: Mapping[str, str]) -> str:
        """Why there is no artefact for `key` that can be used; empty when there is one."""
        path = self._root / name_of(key)
        try:
            _check_owner(os.lstat(self._root), stat.S_ISDIR)
            _check_owner(os.lstat(path), stat.S_ISDIR)
            return _problem(path, key)
        except FileNotFoundError:
            return "it is not there" if not os.path.lexists(path) else "a file is missing"
        except OSError as error:
            return f"it cannot be read ({error.strerror})"
        except StoreError as error:
            return str(error)

    def keys(self) -> list[dict[str, str]]:
        """The keys of all artefacts, as their seals have them; none of them is verified."""
        return [seal.key for _, seal, _ in self._sealed()]

    def _make_root(self) -> None:
        try:
            self._root.parent.mkdir(parents=True, exist_ok=True)
            self._root.mkdir(mode=0o700, exist_ok=True)
            _check_owner(os.lstat(self._root), stat.S_ISDIR)
        except OSError as error:
            raise StoreError(f"artefacts cannot be kept ({error.strerror})") from None

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the lock of one artefact; the system gives it back when the process that holds it dies."""
        try:
            descriptor = os.open(
                self._root / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise StoreError(f"artefacts cannot be kept ({error.strerror})") from None
        try:
            until = time.monotonic() + self._patience
            while not _taken(descriptor):
                if time.monotonic() > until:
                    raise StoreError(f"another process has been making this artefact for {self._patience:.0f} s")
                time.sleep(_POLL)
            try:
                yield
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def _made(self, name: str, key: Mapping[str, str], build: Build) -> Path:
        """Make one artefact, with its lock held."""
        for left in self._root.glob(f".{name}.*"):  # of processes that died while they made it
            shutil.rmtree(left, ignore_errors=True)
        final = self._root / name
        try:
            partial = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=self._root))
        except OSError as error:
            raise StoreError(f"artefacts cannot be kept ({error.strerror})") from None
        try:
            build(partial)
            try:
                _seal(partial, key)
                if os.path.lexists(final):
                    _remove(final)
                os.rename(partial, final)
            except OSError as error:
                raise StoreError(f"the artefact cannot be kept ({error.strerror})") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self._sweep(name)
        return final

    def _sealed(self) -> list[tuple[float, Seal, Path]]:
        """When each artefact was last used, its seal, and its directory."""
        found = []
        with contextlib.suppress(OSError):
            for path in sorted(self._root.iterdir()):
                if not path.name.startswith(".") and not path.name.endswith(".lock"):
                    with contextlib.suppress(OSError, StoreError):
                        found.append(((path / SEAL).stat().st_mtime, _read_seal(path), path))
        return found

    def _sweep(self, kept: str) -> None:
        """Delete what was not used for the longest time until the rest is within the limit."""
        found = self._sealed()
        total = sum(file.bytes for _, seal, _ in found for file in seal.files.values())
        for used, seal, path in sorted(found, key=lambda one: one[0]):
            if total <= self._limit or time.time() - used < IN_USE:
                return
            if path.name != kept:
                _remove(path)
                total -= sum(file.bytes for file in seal.files.values())


def name_of(key: Mapping[str, str]) -> str:
    """The name of the artefact for a key."""
    return cache.key(*(part for item in sorted(key.items()) for part in item))


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_owner(status: os.stat_result, kind: Callable[[int], bool]) -> None:
    """Raises StoreError for what is of another kind, or may be written by others than this user and root."""
    if not kind(status.st_mode):
        raise StoreError("it holds a link or something else that does not belong there")
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
        raise StoreError("others than this user may write it")


def _read_seal(path: Path) -> Seal:
    with open(path / SEAL, "rb") as file:
        raw = file.read(MAX_SEAL_BYTES + 1)
    try:
        return _SEALS.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise StoreError("its seal is damaged") from None


def _problem(path: Path, key: Mapping[str, str]) -> str:
    """What is wrong with an artefact that is there; empty if nothing. Raises OSError and StoreError."""
    _check_owner(os.lstat(path / SEAL), stat.S_ISREG)
    seal = _read_seal(path)
    if seal.format != FORMAT or seal.key != dict(key):
        return "it was made for something else"
    if {entry.name for entry in os.scandir(path)} != {*seal.files, SEAL}:
        return "files are missing, or there are others"
    for name, file in seal.files.items():
        descriptor = os.open(path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            status = os.fstat(descriptor)
            _check_owner(status, stat.S_ISREG)
            if status.st_nlink != 1:
                return "a file has a second name"
            if status.st_size != file.bytes or hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
                return "a file was altered or damaged"
    return ""


def _seal(path: Path, key: Mapping[str, str]) -> None:
    """Describe all files of a directory in its seal, and have everything on the disk."""
    names = sorted(entry.name for entry in os.scandir(path))
    if not names or len(names) > MAX_FILES or SEAL in names:
        raise StoreError(f"an artefact has from 1 to {MAX_FILES} files, none of them {SEAL}; this one {len(names)}")
    files = {}
    for name in names:
        if not stat.S_ISREG(os.lstat(path / name).st_mode):
            raise StoreError("an artefact has plain files only")
        os.chmod(path / name, 0o600)
        with open(path / name, "rb") as file:
            files[name] = File(hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size)
            os.fsync(file.fileno())
    with open(path / SEAL, "wb") as file:
        os.chmod(path / SEAL, 0o600)
        file.write(msgspec.json.encode(Seal(dict(key), files)))
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    """Take an artefact away at once, as far as others see, whatever it is."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    os.rename(path, aside)
    shutil.rmtree(aside, ignore_errors=True)
