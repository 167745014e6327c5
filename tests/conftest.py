"""What all tests share: the option --full, and a clean environment."""

from __future__ import annotations

import os
import signal

import pytest

# A shell starts what runs in its background with SIGINT ignored, and so would be every process the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run chaos and fuzz tests at full length, not the short form")


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether tests that come in two lengths run the long one."""
    return bool(request.config.getoption("--full"))


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own SQUINT_* variables, and a PORT for something else, change no test."""
    for name in [name for name in os.environ if name.startswith(("SQUINT_", "OTEL_")) or name == "PORT"]:
        monkeypatch.delenv(name)
