"""Files that may be lost at any time: what was measured, and compiled models. Always ours, never a model's.

A file is written whole or not at all, carries a digest of its contents, and is ignored when it does not match: a
damaged cache costs a measurement, never an answer. A directory that cannot be written costs the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

_DIGEST = 32


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


def write(cache_dir: str, name: str, contents: bytes) -> bool:
    """Write one file, readable by this user alone; False when that is not possible."""
    if not cache_dir:
        return False
    temporary = ""
    try:
        Path(cache_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=cache_dir)
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(contents).digest() + contents)
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
