"""Headless Chromium before a running service, and what it noticed on the way."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.e2e.service import START_SECONDS, Service

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP = (1360, 900)
PHONE = (390, 844)
WAIT_MS = 20_000
SAMPLES = Path(__file__).resolve().parents[3] / "samples"
Theme = Literal["light", "dark"]


def chromium() -> str:
    """The browser's path; skips the test where there is none, unless tools are required."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        if os.environ.get("TEST_TOOLS") == "required":
            pytest.fail("chromium is not installed (on Debian: apt-get install chromium)")
        pytest.skip("chromium is not installed")
    return found


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """A browser with a profile of its own, gone afterwards."""
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=[*FLAGS])
        yield browser
        browser.close()


@contextlib.contextmanager
def serving(service: Service, seconds: float = START_SECONDS) -> Iterator[Service]:
    """Starts and stops a service from beside a browser: Playwright keeps an event loop in this thread, where none of
    ours could run."""
    service.start()
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(service.wait_ready, seconds).result()
        yield service
    finally:
        service.stop()


def get(service: Service, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one request, without a browser."""
    request = urllib.request.Request(f"http://127.0.0.1:{service.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()


def ask(service: Service, task: str, **options: Any) -> dict[str, Any]:
    """What the service says of the task's own sample, asked without a browser."""
    query = "&".join(f"{name}={value}" for name, value in options.items())
    url = f"http://127.0.0.1:{service.port}/{task}?{query}"
    with urllib.request.urlopen(url, (SAMPLES / f"{task}.jpg").read_bytes(), timeout=20) as reply:
        return dict(json.load(reply))


class Visit:
    """One page of the service in a fresh context; counts what went wrong in it and who else it spoke to."""

    def __init__(
        self,
        browser: Browser,
        port: int,
        size: tuple[int, int] = DESKTOP,
        theme: Theme = "light",
        address: str = "/",
        **context: Any,
    ) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=theme, locale="en-GB", **context
        )
        self.context.set_default_timeout(WAIT_MS)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self._meant: list[str] = []
        self.strangers: list[str] = []
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.context.on("request", self._on_request)
        self.page.goto(self.origin + address)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.origin + "/", f"blob:{self.origin}/")):
            self.strangers.append(request.url)

    def until(self, condition: str) -> None:
        """Wait until this expression holds in the page, whose policy forbids what Playwright has for that."""
        until = time.monotonic() + WAIT_MS / 1000
        while not self.page.evaluate(condition):
            assert time.monotonic() < until, f"never came true: {condition}"
            self.page.wait_for_timeout(50)

    def settle(self, status: int) -> None:
        """The browser reports an answer of this status as an error; here it was meant to come."""
        self._meant.append(f"status of {status}")

    def answered(self, level: str | None = None) -> None:
        """Wait until nothing is asked any more, and the answer (of a level) stands there."""
        self.page.wait_for_selector("#look:not([aria-busy])")
        self.page.wait_for_selector("#result:not([hidden])")
        if level is not None:
            self.until(f"document.querySelector('.facts').innerText.includes({json.dumps(level)})")

    def sample(self, name: str) -> None:
        """Choose a sample."""
        self.page.get_by_role("button", name=f"Sample: {name}").click()
        self.page.wait_for_selector(f"#samples button[data-name='{name}.jpg'][aria-pressed=true]")
        self.answered()

    def choose(self, name: str) -> None:
        """Choose a task or a level by the name that one sees."""
        self.page.locator(".segmented label, .level", has_text=name).first.click()

    def colours(self, selector: str) -> list[str]:
        """The colours that a canvas shows."""
        script = """(selector) => {
            const canvas = document.querySelector(selector);
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            const seen = new Set();
            for (let i = 0; i < data.length; i += 4) seen.add(data.slice(i, i + 4).join());
            return [...seen];
        }"""
        return list(self.page.evaluate(script, selector))

    def close(self) -> None:
        """Close; nothing may have gone wrong, and nobody else have been spoken to."""
        self.context.close()
        assert [text for text in self.errors if not any(meant in text for meant in self._meant)] == []
        assert self.strangers == []
