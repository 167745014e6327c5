"""Whether our own decoder of JPEGs can be tested here."""

from __future__ import annotations

import os
import platform

import pytest

from service.decoder import baseline


def needs_own() -> baseline.Baseline:
    """It; or the test is skipped, where there is no compiler or another processor, though never where all tools are
    said to be there."""
    own = baseline.found()
    if own is None:
        here = platform.machine() == "x86_64" and baseline.built() is None
        required = os.environ.get("TEST_TOOLS") == "required" and here
        (pytest.fail if required else pytest.skip)("baseline.c was not built, or not for this processor")
    return own


@pytest.fixture(params=["own", "libjpeg-turbo"])
def jpeg_decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test with each of the two, which give the same pixels."""
    if request.param == "libjpeg-turbo":
        monkeypatch.setattr(baseline, "found", lambda: None)
    else:
        needs_own()
