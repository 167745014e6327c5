"""Files that are read again when they change: keys and certificates, which are renewed while the service runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

LOOK_SECONDS = 1.0
"""The files are looked at no more often."""

_Stamp = tuple[int, int, int, int]


class Watch:
    """Says that one of some files has changed since it was last asked."""

    def __init__(self, paths: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._paths = [path for path in paths if path]
        self._clock = clock
        self._looked = clock()
        self._stamps = [_stamp(path) for path in self._paths]

    def changed(self) -> bool:
        """Whether to read the files again. A file that was replaced, renamed or removed has changed, and so has a link
        that leads elsewhere."""
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return False
        self._looked = now
        stamps = [_stamp(path) for path in self._paths]
        before, self._stamps = self._stamps, stamps
        return stamps != before


def _stamp(path: str) -> _Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
