"""The playground when it is told no: errors, keys, metrics that are not shown; and when they are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.playground.browser import Visit, serving
from tests.e2e.service import ROOT, Service

KEY = "sq-a-key-for-this-test"
Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One with keys, whose page is public and whose metrics are on another port."""
    folder = tmp_path_factory.mktemp("closed")
    keys = folder / "keys"
    keys.write_text(f"tester:{hashlib.sha256(KEY.encode()).hexdigest()}\n")
    flags = ["--key-file", str(keys), "--public", "playground", "--admin-port", "0", "--metrics-admin-only"]
    flags += ["--models", str(ROOT / "models/zoo"), "--models", str(ROOT / "models/extra")]
    with serving(Service(folder, *flags)) as running:
        yield running


def test_an_error_is_told_in_the_services_own_words(service: Service, visit: Open, tmp_path: Path) -> None:
    opened = visit()
    opened.page.wait_for_selector(".level")
    with opened.page.expect_file_chooser() as chooser:
        opened.page.get_by_role("button", name="Choose a photo").click()
    notes = tmp_path / "notes.jpg"
    notes.write_text("not an image at all")
    chooser.value.set_files(notes)
    problem = opened.page.get_by_role("alert")
    problem.wait_for()
    details = opened.page.locator("#problem-details").inner_text()
    assert re.fullmatch(r"HTTP 415 · unsupported_media_type · request [0-9A-Za-z._-]{8,64}", details)
    given = details.rpartition(" ")[2]
    logged = next(line for line in service.log_lines("request") if line["request_id"] == given)
    assert logged["outcome"] == "unsupported_media_type"
    assert opened.page.locator("#result").is_hidden()
    opened.settle(415)

    opened.sample("classify")
    assert problem.is_hidden()
    opened.choose("explicit")
    opened.page.get_by_label("Explicit level").fill("lookup:5x7")
    opened.page.keyboard.press("Enter")
    problem.wait_for()
    assert "unknown_level" in opened.page.locator("#problem-details").inner_text()
    assert "explicit levels are tome:R" in opened.page.locator("#problem-text").inner_text()
    opened.settle(400)


def test_a_key_is_asked_for_and_kept_in_memory_alone(closed: Service, visit: Open) -> None:
    opened = visit(at=closed)
    page = opened.page
    page.get_by_role("alert").wait_for()
    assert "unauthorized" in page.locator("#problem-details").inner_text()
    page.get_by_role("button", name="Give a key").click()
    page.get_by_label("Key", exact=True).fill("sq-not-this-one")
    page.get_by_role("button", name="Use it").click()
    page.get_by_role("dialog").wait_for(state="hidden")
    page.get_by_role("alert").wait_for()
    page.get_by_role("button", name="Key", exact=True).click()
    page.get_by_label("Key", exact=True).fill(KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector("#samples button")
    opened.sample("classify")
    assert page.get_by_role("alert").is_hidden()
    assert '-H "Authorization: Bearer $SQUINT_KEY"' in page.locator("#command").inner_text()
    assert KEY not in page.content()
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])")
    assert KEY not in kept
    # Its metrics are on the operator's port: the page says so and goes on.
    opened.until("document.querySelector('#live-note').innerText.includes('another port')")
    assert page.locator("#charts").is_hidden()
    opened.settle(401)
    opened.settle(404)


def test_one_chooses_among_several_models_of_a_task(closed: Service, visit: Open) -> None:
    opened = visit(at=closed, address="/#task=classify&model=toyscape-lookup&level=lookup:5x7")
    page = opened.page
    page.get_by_role("button", name="Give a key").click()
    page.get_by_label("Key", exact=True).fill(KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector("#samples button")
    opened.sample("classify")
    assert page.get_by_label("Model").input_value() == "toyscape-lookup"
    assert page.get_by_label("Explicit level").input_value() == "lookup:5x7"
    assert "model=toyscape-lookup&level=lookup:5x7" in page.locator("#command").inner_text()
    assert page.get_by_role("switch", name="Merged tokens").is_disabled()
    assert page.get_by_text("this model merges none").is_visible()
    page.get_by_label("Model").select_option("toyscape-classify")
    opened.until("document.querySelector('.facts').innerText.includes('toyscape-classify')")
    assert page.get_by_role("switch", name="Merged tokens").is_enabled()
    assert "model=toyscape-classify" in page.url
    opened.settle(401)
    opened.settle(404)


def test_the_charts_move_with_the_load(service: Service, visit: Open) -> None:
    opened = visit(address="/#task=classify&level=fast")
    page = opened.page
    page.wait_for_selector("#charts:not([hidden])")
    opened.sample("classify")
    page.get_by_role("switch", name="Keep asking").check()
    opened.until("parseFloat(document.querySelector('#answered').innerText) > 0.5")
    opened.until("/\\d/.test(document.querySelector('#p50').innerText)")
    assert "ms" in page.locator("#p99").inner_text()
    assert "fast" in page.locator("#levels-legend").inner_text()
    page.wait_for_selector("#latency path.line.p99", state="attached")
    page.wait_for_selector("#rate rect.answered", state="attached")
    page.wait_for_selector("#levels-chart rect.fast", state="attached")
    page.get_by_role("switch", name="Keep asking").uncheck()
    page.get_by_role("button", name="Pause").click()
    assert page.get_by_role("button", name="Go on").get_attribute("aria-pressed") == "true"
