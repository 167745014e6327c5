"""The file of API keys: who may ask, by the SHA-256 of what they show.

One key a line, `NAME:SHA256` or `NAME:SHA256:admin`; `#` begins a comment. A name may have several keys, so that one
can be replaced while the other still works. No key itself is ever in the file: they are random and long, so the
plain hash of one gives nothing away.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_FILE_BYTES = 1 << 20
MAX_KEYS = 10_000
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class KeyFileError(Exception):
    """The file cannot be read, or does not say what it should; one line that never holds a hash."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key: whose it is, and its SHA-256 in hexadecimal. An admin key may also change the service."""

    name: str
    digest: str
    admin: bool = False

    @property
    def line(self) -> str:
        """As in the file."""
        return f"{self.name}:{self.digest}{':admin' if self.admin else ''}"

    @property
    def fingerprint(self) -> str:
        """What tells the keys of one name apart."""
        return self.digest[:12]


def digest(key: str) -> str:
    """What the file holds of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def parse(text: str) -> list[Key]:
    """The keys of a file's text. Raises KeyFileError, which names the line."""
    found: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        name, _, rest = line.partition(":")
        digest_, _, role = rest.partition(":")
        if not NAME.fullmatch(name) or not _DIGEST.fullmatch(digest_) or role not in ("", "admin"):
            raise KeyFileError(f"line {number}: expected NAME:SHA256 or NAME:SHA256:admin")
        found.append(Key(name, digest_, role == "admin"))
    if len(found) > MAX_KEYS:
        raise KeyFileError(f"more than {MAX_KEYS} keys")
    return found


def read(path: str | Path) -> list[Key]:
    """The keys of a file. Raises KeyFileError."""
    return parse(text_of(path))


def text_of(path: str | Path) -> str:
    """The file as it is. Raises KeyFileError, also where anybody may write it."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o002:
                raise KeyFileError("anybody on this machine may write it; take that right away (chmod o-w)")
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(error.strerror or "cannot be read") from None
    if len(data) > MAX_FILE_BYTES:
        raise KeyFileError(f"longer than {MAX_FILE_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise KeyFileError("not text in UTF-8") from None


def without(text: str, gone: Iterable[Key]) -> Iterator[str]:
    """The lines of a file's text but for those of some keys; comments stay."""
    lost = {key.line for key in gone}
    return (line for line in text.splitlines() if line.partition("#")[0].strip() not in lost)
