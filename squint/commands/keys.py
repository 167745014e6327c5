"""`squint keys add, list, revoke`: who may ask, where the service asks for API keys."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from service import config, keys
from service.keys import Key, KeyFileError
from squint.commands.named import command
from squint.commands.table import show
from squint.errors import Failure

_PREFIX = "squint_"
"""What a key begins with, so that one that got into a repository or a log is recognised."""
_BYTES = 32


def add(commands: Any) -> None:
    """Describe the group and its commands."""
    group = commands.add_parser(
        "keys",
        help="make, list and revoke API keys",
        description="Keep the file of API keys that `squint serve --key-file` reads. It holds hashes, never a key; a "
        "running service notices a change within a second.",
        allow_abbrev=False,
    ).add_subparsers(metavar="COMMAND", required=True)
    more = "It is printed once and cannot be shown again; a name may have several, to change from one to the next."
    adding = command(group, "add", add_key, "make a new key for a client", more)
    adding.add_argument("name", metavar="NAME", help="the client's name in logs: a-z, 0-9, '.', '_', '-'")
    adding.add_argument("--admin", action="store_true", help="also for what changes the service (/admin/...)")
    listing = command(group, "list", list_keys, "list the names that have keys, with the beginning of each key's hash")
    listing.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    revoking = command(group, "revoke", revoke_keys, "take a client's keys away")
    revoking.add_argument("name", metavar="NAME", help="the client's name")
    revoking.add_argument("--hash", metavar="HASH", default="", help="only the key whose hash begins so (see list)")
    for one in (adding, listing, revoking):
        one.add_argument(
            "--file", metavar="FILE", help="the file of keys (default: the `key_file` that the service would use)"
        )


def add_key(options: argparse.Namespace) -> None:
    """Make a key, keep its hash, print it."""
    if not keys.NAME.fullmatch(options.name):
        raise Failure(f"{options.name!r}: expected a name of 1 to 64 of a-z, 0-9, '.', '_', '-'")
    path = _path(options)
    key = _PREFIX + secrets.token_urlsafe(_BYTES)
    with _alone(path):
        text = _text(path) if path.exists() else "# API keys: NAME:SHA256 or NAME:SHA256:admin; see `squint keys`\n"
        _parse(path, text)
        _write(path, [*text.splitlines(), Key(options.name, keys.digest(key), options.admin).line])
    print(key)


def list_keys(options: argparse.Namespace) -> None:
    """Who has keys."""
    path = _path(options)
    rows = [
        {"name": key.name, "hash": key.fingerprint, "role": "admin" if key.admin else "client"}
        for key in _parse(path, _text(path))
    ]
    show(rows, ("name", "hash", "role"), as_json=options.json)


def revoke_keys(options: argparse.Namespace) -> None:
    """Take keys out of the file."""
    path = _path(options)
    with _alone(path):
        text = _text(path)
        gone = [
            key
            for key in _parse(path, text)
            if key.name == options.name and key.digest.startswith(options.hash.lower())
        ]
        if not gone:
            raise Failure(f"{path}: no such key of {options.name!r}")
        _write(path, keys.without(text, gone))
    print(f"revoked {len(gone)} key{'s' if len(gone) > 1 else ''} of {options.name}")


def _path(options: argparse.Namespace) -> Path:
    path = options.file or config.load().key_file
    if not path:
        raise Failure("which file of keys? Name it with --file, SQUINT_KEY_FILE or key_file in squint.toml")
    return Path(path)


def _text(path: Path) -> str:
    try:
        return keys.text_of(path)
    except KeyFileError as error:
        raise Failure(f"{path}: {error}") from None


def _parse(path: Path, text: str) -> list[Key]:
    try:
        return keys.parse(text)
    except KeyFileError as error:
        raise Failure(f"{path}: {error}") from None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While nobody else changes a file of this folder: two changes at once would lose one of them."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise Failure(f"{path.parent}: {error.strerror}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: Path, lines: Iterable[str]) -> None:
    """Put the file in its place whole, readable for its owner alone unless it already was for others."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                os.chmod(name, path.stat().st_mode & 0o777)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
