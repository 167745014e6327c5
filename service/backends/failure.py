"""What went wrong inside a runtime library, in our own words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from service.backends.base import BackendError


@contextlib.contextmanager
def in_our_words() -> Iterator[None]:
    """Whatever a library raises in here is raised as BackendError."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:  # the libraries' own classes derive from Exception only
        raise error_from_library(error) from error


def error_from_library(error: Exception) -> BackendError:
    """A library's exception as ours: what the libraries say when memory is short is told from the rest."""
    text = str(error)
    short = ("bad_alloc", "bad allocation", "allocate memory", "out of memory", "can't allocate", "could not allocate")
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in short):
        return BackendError("oom", "out of memory")
    return BackendError("batch", text.strip().splitlines()[-1][:200] if text.strip() else type(error).__name__)
