"""Files that may be lost at any time: what was measured, and compiled models. Always ours, never a model's.

A file is written whole or not at all, carries a digest of its contents, and is ignored when it does not match: a
damaged cache costs a measurement, never an answer. A directory that cannot be written costs the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import tempfile
from pathlib import Path

_DIGEST = 32
_PIECE = 1 << 16
"""Bytes per write: of what is written at once the kernel may make one page of 2 MB, which is mapped whole when one of
its bytes is touched."""


def key(*parts: str | bytes) -> str:
    """A name for what depends on all of `parts`."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:32]


def read(cache_dir: str, name: str) -> bytes | None:
    """The contents of one file, or None when it is missing, damaged or unreadable."""
    if not cache_dir:
        return None
    try:
        data = (Path(cache_dir) / name).read_bytes()
    except OSError:
        return None
    contents = data[_DIGEST:]
    return contents if hashlib.sha256(contents).digest() == data[:_DIGEST] else None


class Mapped:
    """A file of the cache as read-only memory, whose pages come from the file when they are touched."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._mapping = mapping
        self.contents = memoryview(mapping)[_DIGEST:]

    def forget(self) -> None:
        """Take the pages out of this process's memory until they are touched again."""
        self._mapping.madvise(mmap.MADV_DONTNEED)


def mapped(cache_dir: str, name: str) -> Mapped | None:
    """One file, or None as for `read`. Its contents stay what they are when the file is replaced or removed."""
    if not cache_dir:
        return None
    try:
        with (Path(cache_dir) / name).open("rb") as file:
            found = Mapped(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            whole = hashlib.sha256(found.contents).digest() == file.read(_DIGEST)
    except (OSError, ValueError):  # ValueError: an empty file
        return None
    return found if whole else None


def write(cache_dir: str, name: str, contents: bytes) -> bool:
    """Write one file, readable by this user alone; False when that is not possible."""
    if not cache_dir:
        return False
    temporary = ""
    try:
        Path(cache_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=cache_dir)
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(contents).digest())
            for start in range(0, len(contents), _PIECE):
                file.write(contents[start : start + _PIECE])
        os.replace(temporary, Path(cache_dir) / name)
    except OSError:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return False
    return True


def cpu() -> tuple[str, frozenset[str]]:
    """The CPU's model and its feature flags, as the kernel names them."""
    with contextlib.suppress(OSError):
        fields = dict[str, str]()
        for line in Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n", 1)[0].splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
        flags = fields.get("flags", fields.get("Features", ""))
        model = " ".join(fields.get(part, "") for part in ("vendor_id", "cpu family", "model", "model name"))
        return model, frozenset(flags.split())
    return "", frozenset()
