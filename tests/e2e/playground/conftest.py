"""The service with the shipped models, a browser, and pages of one in the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.e2e.playground.browser import Visit, chromium, launched, serving
from tests.e2e.service import Service


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    chromium()
    folder = tmp_path_factory.mktemp("open")
    with serving(Service(folder, "--backend", "onnxruntime", "--threads", "1", fake=False)) as running:
        yield running


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with launched() as running:
        yield running


@pytest.fixture
def visit(browser: Browser, service: Service) -> Iterator[Callable[..., Visit]]:
    """Opens pages; closes them afterwards, and fails if one of them had an error or spoke to a stranger."""
    opened: list[Visit] = []

    def open_page(*, at: Service = service, **how: Any) -> Visit:
        opened.append(Visit(browser, at.port, **how))
        return opened[-1]

    yield open_page
    for one in opened:
        one.close()
