"""Waiting for what comes about by itself; a test fails when it does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_TURN = 0.02


def until(what: Callable[[], bool], seconds: float = 20.0, why: str = "it did not happen") -> None:
    """Wait until `what` holds. Raises TimeoutError after so many seconds, which says `why`."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise TimeoutError(why)
        time.sleep(_TURN)


async def meanwhile(what: Callable[[], bool], seconds: float) -> None:
    """The same, while other things go on in the event loop."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise TimeoutError("it did not happen")
        await asyncio.sleep(_TURN)
