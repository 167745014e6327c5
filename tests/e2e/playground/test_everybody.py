"""The playground by keyboard, to a screen reader, in both themes, on a phone."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.playground.browser import DESKTOP, PHONE, Theme, Visit

Open = Callable[..., Visit]


RINGED = """() => {
    const one = document.activeElement;
    const beside = one.nextElementSibling;
    const shown = [[one], [one.parentElement], [beside ?? one], [beside ?? one, "::before"]];
    return shown.some((part) => getComputedStyle(...part).outlineStyle === "solid");
}"""
"""The focus shows: on the element, or on what stands for it."""


def test_everything_works_without_a_mouse(visit: Open) -> None:
    opened = visit()
    page = opened.page
    page.wait_for_selector("#samples button")

    def tab_to(wanted: str, most: int = 40) -> None:
        for _ in range(most):
            page.keyboard.press("Tab")
            if page.evaluate("(wanted) => document.activeElement.matches(wanted)", wanted):
                assert page.evaluate(RINGED), f"one does not see that {wanted} has the focus"
                return
        raise AssertionError(f"no way to {wanted} by Tab")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "stage"
    tab_to("#samples button[data-name='detect.jpg']")
    page.keyboard.press("Enter")
    page.wait_for_selector(".box")
    tab_to("input[name=task]")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".mask:not([hidden])")
    opened.answered()
    tab_to("input[name=level]")
    page.keyboard.press("ArrowDown")
    opened.answered("balanced")
    tab_to("#compare")
    page.keyboard.press("Space")
    opened.until("document.querySelector('#versus').innerText.includes('median')")
    tab_to("#copy")
    page.keyboard.press("Shift+Tab")
    page.get_by_role("button", name="Key", exact=True).focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.id") == "key-open"


def _told(node: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Role, name and properties of a node, as a screen reader gets them."""
    properties = {one["name"]: one["value"].get("value") for one in node.get("properties", [])}
    return node["role"]["value"], node.get("name", {}).get("value", ""), properties


def test_the_accessibility_tree_names_what_can_be_used(visit: Open) -> None:
    opened = visit()
    opened.sample("detect")
    session = opened.context.new_cdp_session(opened.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    shown = [_told(node) for node in nodes if not node.get("ignored")]
    roles = {role for role, _, _ in shown}
    assert {"banner", "main", "contentinfo", "navigation", "form", "region", "status"} <= roles
    for role, name, properties in shown:
        if properties.get("focusable") and role not in ("RootWebArea", "region"):
            assert name.strip(), f"a {role} that one can use has no name"
        if role in ("image", "img"):
            assert name.strip(), "an image has no name"
    named = {(role, name) for role, name, _ in shown}
    wanted = [("group", "Task"), ("group", "Level"), ("radio", "Detect"), ("combobox", "Model"), ("button", "Look")]
    wanted += [("switch", "Merged tokens"), ("slider", "Least score"), ("list", "Objects, best first")]
    wanted += [("heading", "How closely should it look?"), ("heading", "Answer"), ("heading", "Live")]
    assert [one for one in wanted if one not in named] == []
    levels = [properties["level"] for role, _, properties in shown if role == "heading"]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_in_both_themes(visit: Open, theme: Theme) -> None:
    opened = visit(theme=theme, address="/#task=classify&level=fast")
    opened.sample("classify")
    opened.page.get_by_role("switch", name="Merged tokens").check()
    opened.page.wait_for_selector(".merged")
    opened.page.get_by_role("switch", name="Compare with another level").check()
    opened.until("document.querySelector('#versus').innerText.includes('median')")
    measured = opened.page.evaluate(CONTRAST)
    assert measured["seen"] > 60
    assert measured["poor"] == []


def test_the_theme_follows_the_system_until_one_is_chosen(visit: Open) -> None:
    opened = visit(theme="dark")
    page = opened.page
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(background)
    assert dark != light
    button = page.get_by_role("button", name=re.compile("^Theme"))
    button.click()
    button.click()
    assert button.get_attribute("aria-label") == "Theme: dark. Change it."
    assert page.evaluate(background) == dark
    page.reload()
    assert page.evaluate(background) == dark
    button.click()
    assert page.evaluate(background) == light


@pytest.mark.parametrize("size", [DESKTOP, PHONE, (320, 640)], ids=["desktop", "phone", "narrowest"])
@pytest.mark.parametrize("task", ["classify", "detect", "segment"])
def test_the_page_fits_its_window(visit: Open, size: tuple[int, int], task: str) -> None:
    opened = visit(size=size)
    opened.sample(task)
    page = opened.page
    page.get_by_role("switch", name="Compare with another level").check()
    opened.until("document.querySelector('#versus').innerText.includes('median')")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    small = """() => [...document.querySelectorAll("button, select, input:not([hidden]), a")]
        .filter((one) => one.checkVisibility() && !one.closest(".skip"))
        .map((one) => [one.id || one.textContent || one.value, (one.closest("label") ?? one).getBoundingClientRect()])
        .filter(([, box]) => box.height < 24 || box.width < 24).map(([name]) => name)"""
    assert page.evaluate(small) == []


def test_nothing_moves_for_who_wants_no_motion(visit: Open) -> None:
    opened = visit(reduced_motion="reduce")
    opened.sample("classify")
    script = """[...document.querySelectorAll("*")].filter((one) => ["", "::before", "::after"].some((part) =>
        getComputedStyle(one, part || null).transitionDuration.split(",").some((time) => parseFloat(time) > 0)
        || getComputedStyle(one, part || null).animationName !== "none")).length"""
    assert opened.page.evaluate(script) == 0


def test_it_can_be_seen_on_a_screen(visit: Open) -> None:
    for theme, size in (("light", DESKTOP), ("dark", PHONE)):
        opened = visit(theme=theme, size=size)
        opened.sample("segment")
        picture = opened.page.screenshot()
        assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
