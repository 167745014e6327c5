"""One JSON object per line on stderr.

A line is made of named fields, never of a text with values in it, so that nothing a client sends can look like a
line, a field or a terminal command: everything outside printable ASCII is escaped, and long values are cut.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import time
import traceback
from typing import Any, Literal

import msgspec

Severity = Literal["debug", "info", "warning", "error"]
MAX_VALUE = 256
_FRAMES = 4
_RANK: dict[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_least = _RANK["info"]
_always: dict[str, Any] = {}
_encoder = msgspec.json.Encoder()
_second = (-1, "")
"""The second last written, and how it is written."""


def configure(severity: str, **always: Any) -> None:
    """Write lines of at least `severity`, each with the fields `always` (such as the name of this process)."""
    global _least, _always
    _least = _RANK[severity]
    _always = {key: _plain(value) for key, value in always.items()}
    logging.getLogger().handlers = [_Bridge(logging.WARNING)]


class _Bridge(logging.Handler):
    """What libraries log becomes a line like any other, with the library's words as a field.

    Some of them warn about every odd byte a client sends; that is the client's affair, and a debug line.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        library = record.name.partition(".")[0]
        severity: Severity = "debug" if library in _CHATTY else "warning"
        if record.levelno >= logging.ERROR:
            severity = "error"
        error = record.exc_info[1] if record.exc_info else None
        where = {"trace": frames(error)} if error else {}
        event("library", severity=severity, library=library, text=record.getMessage(), **where)


_CHATTY = ("python_multipart", "uvicorn")


def event(name: str, /, *, severity: Severity = "info", **fields: Any) -> None:
    """Write one line. A reader that has gone away, or is slow to take it, is never an error of ours."""
    if _RANK[severity] < _least:
        return
    line = {"ts": _now(), "severity": severity, "event": name, **_always}
    for key, value in fields.items():
        kind = type(value)
        line[key] = value if kind is int or (kind is str and len(value) <= MAX_VALUE) else _plain(value)
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(_text(line))


def _text(line: dict[str, Any]) -> str:
    try:
        fast = _encoder.encode(line)
    except (UnicodeEncodeError, OverflowError):
        fast = b"\x7f"
    if fast.isascii() and b"\x7f" not in fast:
        return fast.decode("ascii") + "\n"
    return json.dumps(line, ensure_ascii=True, separators=(",", ":")).replace("\x7f", "\\u007f") + "\n"


def frames(error: BaseException) -> str:
    """Where an error arose, as `file:line function` of the innermost frames, and what it is; for a line's field."""
    inner = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    places = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in inner]
    return " > ".join([*places, f"{type(error).__name__}: {error}"])


def _now() -> str:
    global _second
    seconds = time.time()
    known = _second
    if known[0] != int(seconds):
        known = _second = (int(seconds), time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds)))
    return f"{known[1]}{int(seconds * 1000) % 1000:03d}Z"


def _plain(value: Any) -> Any:
    """What JSON can hold; any other value as its text, cut to MAX_VALUE characters."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return str(value)[:MAX_VALUE]
