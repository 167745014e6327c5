"""The playground in a real browser, before the real service with the real models."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from tests.e2e.playground.browser import SAMPLES, Visit, ask
from tests.e2e.service import Service

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
Open = Callable[..., Visit]


@pytest.mark.parametrize("task", ["classify", "detect", "segment"])
def test_every_task_shows_what_the_service_answers(service: Service, visit: Open, task: str) -> None:
    opened = visit()
    opened.sample(task)
    page = opened.page
    wanted = ask(service, task)
    found = wanted["segments"] if task == "segment" else wanted["predictions"]
    assert found
    assert sorted(page.locator(".found .name").all_inner_texts()) == sorted(one["label"] for one in found)
    if task == "segment":
        area = max(found, key=lambda one: one["area"])["area"] / (wanted["size"][0] * wanted["size"][1])
        assert page.locator(".found .value").first.inner_text() == f"{area * 100:.1f} %"
        assert len(opened.colours(".mask")) > len(found)
    else:
        score = float(page.locator(".found .value").first.inner_text().removesuffix(" %")) / 100
        assert score == pytest.approx(found[0]["score"], abs=0.006)
    assert page.locator(".box").count() == (len(found) if task == "detect" else 0)
    facts = page.locator(".facts").inner_text()
    assert wanted["model"] in facts and wanted["backend"] in facts
    assert page.locator(".legend dt").all_inner_texts() == ["decode", "queue", "model", "answer", "rest"]
    assert page.locator("#said").inner_text().startswith(found[0]["label"] if task == "classify" else f"{len(found)} ")
    command = page.locator("#command").inner_text()
    assert f"@samples/{task}.jpg" in command and f"127.0.0.1:{service.port}/{task}?level=full" in command


def test_boxes_stand_where_the_service_says(service: Service, visit: Open) -> None:
    opened = visit()
    opened.sample("detect")
    wanted = ask(service, "detect")["predictions"][0]
    frame = opened.page.locator(".frame").first.bounding_box()
    box = opened.page.locator(".box[data-at='0']").bounding_box()
    assert frame is not None and box is not None
    width = opened.page.evaluate("document.querySelector('.frame img').naturalWidth")
    scale = frame["width"] / width
    x0, y0, x1, y1 = wanted["box"]
    drawn = (box["x"] - frame["x"], box["y"] - frame["y"], box["width"], box["height"])
    assert drawn == pytest.approx((x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale), abs=1.5)


def test_options_reach_the_service(service: Service, visit: Open) -> None:
    opened = visit(address="/#task=detect&level=fast")
    opened.sample("detect")
    opened.answered("fast")
    opened.page.locator("#threshold").fill("0.95")
    opened.until("document.querySelector('#command').innerText.includes('threshold=0.95')")
    count = len(ask(service, "detect", level="fast", threshold=0.95)["predictions"])
    assert opened.page.locator(".found li").count() == count
    opened.choose("Classify")
    opened.page.locator("#top_k").fill("3")
    opened.page.locator("#top_k").press("Enter")
    opened.until("document.querySelectorAll('.found li').length === 3")
    opened.choose("auto")
    opened.page.get_by_label("Never below").select_option("balanced")
    opened.until("document.querySelector('#command').innerText.includes('min_level=balanced')")
    opened.answered()


def test_an_explicit_level_is_written_with_its_grammar_at_hand(visit: Open) -> None:
    opened = visit()
    opened.sample("classify")
    opened.choose("explicit")
    field = opened.page.get_by_label("Explicit level")
    assert field.evaluate("(element) => element === document.activeElement")
    assert "tome:R" in opened.page.locator("#grammar-one").inner_text()
    field.fill("tome:8+width:1/2")
    field.press("Enter")
    opened.answered("tome:8+width:1/2")
    assert "level=tome%3A8" not in opened.page.locator("#command").inner_text()
    assert "level=tome:8%2Bwidth:1/2" in opened.page.locator("#command").inner_text()


def test_the_map_of_merged_tokens_is_drawn_over_the_image(service: Service, visit: Open) -> None:
    opened = visit(address="/#task=classify&level=fast")
    opened.sample("classify")
    opened.page.get_by_role("switch", name="Merged tokens").check()
    opened.page.wait_for_selector(".tokens:not([hidden])")
    opened.answered("fast")
    tokens = ask(service, "classify", level="fast", explain="tokens")["explain"]["tokens"]
    told = opened.page.locator(".merged p").inner_text()
    assert told.startswith(f"196 patches in {len(tokens['sizes'])} groups; the largest holds {max(tokens['sizes'])}")
    assert opened.page.locator(".sizes li").count() == len(set(tokens["sizes"]))
    # Groups are filled with their mean colour and parted by lines: many colours, but far fewer than the photo has.
    assert len(tokens["sizes"]) / 2 < len(opened.colours(".tokens"))
    drawn = opened.page.locator(".tokens").first
    drawn.hover()
    assert re.search(r"patches as one token|a patch of its own", opened.page.locator(".pane-under").first.inner_text())
    opened.choose("full")
    opened.answered("full")
    assert opened.page.locator(".merged p").inner_text().startswith("196 patches, none merged")
    assert "explain=tokens" in opened.page.locator("#command").inner_text()


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("classify", r"Both say \w+, their scores [\d.]+ points apart\.|They disagree: \w+ or \w+\."),
        ("detect", r"\d+ of \d+ objects? in common, their boxes overlapping by [\d.]+ %\."),
        ("segment", r"The same class on [\d.]+ % of the pixels\."),
    ],
)
def test_two_levels_are_compared_side_by_side(service: Service, visit: Open, task: str, says: str) -> None:
    opened = visit()
    opened.sample(task)
    page = opened.page
    page.get_by_role("switch", name="Compare with another level").check()
    page.get_by_label("Second level", exact=True).select_option("fast")
    opened.until("document.querySelector('#versus').innerText.includes('median of 5')")
    assert page.locator(".pane:visible").count() == page.locator(".answer").count() == 2
    assert page.locator(".pane-level").all_inner_texts() == ["full", "fast"]
    times = [float(text.split()[0]) for text in page.locator(".pane-time").all_inner_texts()]
    assert all(time > 0 for time in times)
    assert re.match(r"fast takes [\d.]+ (% of the time of full|times as long as full): ", page.inner_text("#versus"))
    assert re.fullmatch(says, page.inner_text("#agreement"))
    left, right = (pane.bounding_box() for pane in page.locator(".pane").all())
    assert left is not None and right is not None
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    assert page.inner_text("#command").count("curl ") == 2
    page.get_by_role("switch", name="Compare with another level").uncheck()
    opened.until("document.querySelectorAll('.answer').length === 1")
    opened.answered()


def test_the_agreement_of_masks_is_that_of_their_pixels(service: Service, visit: Open) -> None:
    answers = [ask(service, "segment", level=level) for level in ("full", "fast")]
    maps = []
    for answer in answers:
        classes = np.zeros(answer["size"], np.uint8)
        for segment in answer["segments"]:
            classes[coco.decode({"size": answer["size"], "counts": segment["counts"].encode()}) > 0] = segment["index"]
        maps.append(classes)
    script = "async (both) => (await import('/playground/agreement.js')).samePixels(...both)"
    assert visit().page.evaluate(script, answers) == pytest.approx(float((maps[0] == maps[1]).mean()), abs=1e-9)


# -- bringing an image -------------------------------------------------------------------------------------------------

BRING = """([how, data, name, type]) => {
    const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type }));
    const event = how === "paste" ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
        : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.body.dispatchEvent(event);
}"""


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.parametrize("how", ["choose", "drop", "paste"])
def test_an_image_is_chosen_dropped_or_pasted(visit: Open, how: str) -> None:
    opened = visit()
    opened.page.wait_for_selector(".level")
    if how == "choose":
        with opened.page.expect_file_chooser() as chooser:
            opened.page.get_by_role("button", name="Choose a photo").click()
        chooser.value.set_files(SAMPLES / "classify.jpg")
    else:
        opened.page.evaluate(BRING, [how, encoded(SAMPLES / "classify.jpg"), "classify.jpg", "image/jpeg"])
    opened.answered()
    assert opened.page.locator("#file-name").inner_text() == "classify.jpg, 649 \u00d7 464"
    assert opened.page.locator(".found li").count() == 5
