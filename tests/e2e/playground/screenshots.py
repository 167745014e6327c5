"""Takes the pictures of docs/screenshots: `python -m tests.e2e.playground.screenshots` (needs Chromium)."""

from __future__ import annotations

import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from tests.e2e.playground.browser import DESKTOP, PHONE, Theme, Visit, launched, serving
from tests.e2e.service import ROOT, Service

FOLDER = ROOT / "docs" / "screenshots"
_FLAT = 40
_FIRST_START = 300.0
"""Seconds in which the service measures which backend is fastest here."""


def _few_colours(picture: Image.Image) -> Image.Image:
    """The picture with a palette, which takes a third of the bytes: the page's own colours exactly, those of the photo
    dithered from what places are left."""
    seen = sorted(picture.getcolors(1 << 24) or [], key=lambda one: -one[0])
    flat: list[int] = []
    for _, colour in seen[:_FLAT]:
        flat.extend(colour if isinstance(colour, tuple) else ())
    rest = picture.quantize(256 - _FLAT, Image.Quantize.MAXCOVERAGE, kmeans=2).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette(flat + rest[: 3 * (256 - _FLAT)])
    return picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def _save(visit: Visit, name: str, whole: bool = False) -> None:
    visit.page.mouse.move(0, 0)
    visit.page.evaluate("document.activeElement?.blur(); scrollTo(0, 0)")
    picture = Image.open(BytesIO(visit.page.screenshot(full_page=whole, scale="css"))).convert("RGB")
    _few_colours(picture).save(FOLDER / f"{name}.png", optimize=True)
    visit.close()
    print(f"{name}.png", (FOLDER / f"{name}.png").stat().st_size // 1000, "kB")


def _task(browser: Browser, port: int, task: str, level: str, theme: Theme, size: tuple[int, int]) -> Visit:
    visit = Visit(browser, port, size=size, theme=theme, address=f"/#task={task}&level={level}")
    visit.page.wait_for_selector("#samples button")
    visit.sample(task)
    visit.answered(level)
    return visit


def _beside(visit: Visit, level: str) -> None:
    visit.page.get_by_role("switch", name="Compare with another level").check()
    visit.page.get_by_label("Second level", exact=True).select_option(level)
    visit.until("document.querySelector('#versus').innerText.includes('median of 5')")


def _tokens(visit: Visit) -> None:
    visit.page.get_by_role("switch", name="Merged tokens").check()
    visit.page.wait_for_selector(".merged")
    visit.answered()


def take(port: int) -> None:
    """All of them, from the service on this port."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with launched() as browser:
        first = Visit(browser, port)
        first.page.wait_for_selector("#samples img[src]")
        _save(first, "start")

        visit = _task(browser, port, "detect", "full", "light", DESKTOP)
        _save(visit, "detect", whole=True)

        visit = _task(browser, port, "classify", "fast", "light", DESKTOP)
        _tokens(visit)
        _save(visit, "tokens", whole=True)

        visit = _task(browser, port, "segment", "full", "dark", DESKTOP)
        _beside(visit, "fast")
        visit.page.get_by_role("switch", name="Keep asking").check()
        visit.page.wait_for_timeout(14_000)
        visit.page.locator("input[name=level][value=balanced]").check()
        visit.page.wait_for_timeout(14_000)
        visit.page.get_by_role("switch", name="Keep asking").uncheck()
        visit.page.locator("input[name=level][value=full]").check()
        visit.until("document.querySelector('#versus').innerText.includes('fast takes')")
        _save(visit, "compare-dark", whole=True)

        visit = _task(browser, port, "segment", "balanced", "dark", PHONE)
        _save(visit, "phone-dark", whole=True)

        visit = _task(browser, port, "detect", "fast", "light", PHONE)
        _tokens(visit)
        _save(visit, "phone")

        visit = _task(browser, port, "classify", "full", "light", DESKTOP)
        visit.choose("explicit")
        visit.page.get_by_label("Explicit level").fill("lookup:5x7")
        visit.page.keyboard.press("Enter")
        visit.page.get_by_role("alert").wait_for()
        visit.settle(400)
        _save(visit, "error")


def main() -> None:
    """Start a service, take the pictures, stop it."""
    with tempfile.TemporaryDirectory() as folder, serving(Service(Path(folder), fake=False), _FIRST_START) as service:
        take(service.port)


if __name__ == "__main__":
    main()
