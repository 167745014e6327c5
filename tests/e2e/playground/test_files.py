"""What the playground is made of, as it is served."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.e2e.playground.browser import SAMPLES, get, serving
from tests.e2e.service import Service


def test_browsers_get_the_page_and_programs_get_links(service: Service) -> None:
    status, headers, page = get(service, "/", accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (status, headers["content-type"], headers["vary"]) == (200, "text/html; charset=utf-8", "Accept")
    assert page.startswith(b"<!doctype html>")
    for accept in ("application/json", "application/json, text/html", "*/*"):
        status, headers, body = get(service, "/", accept=accept)
        assert (status, headers["content-type"], headers["vary"]) == (200, "application/json", "Accept")
        assert json.loads(body)["playground"] == "/"


def test_the_page_may_load_and_run_nothing_but_its_own_files(service: Service) -> None:
    _, headers, page = get(service, "/", accept="text/html")
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    text = page.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", text)


def test_the_files_are_known_by_their_tags(service: Service) -> None:
    status, headers, body = get(service, "/playground/app.js")
    assert (status, headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    status, again, nothing = get(service, "/playground/app.js", **{"if-none-match": f'W/{headers["etag"]}, "x"'})
    assert (status, nothing, again["etag"]) == (304, b"", headers["etag"])
    assert body


@pytest.mark.parametrize(
    "path", ["x.js", "%2e%2e/app.py", "..%2fapp.py", "samples/x.jpg", "samples/..%2fREADME.md", "samples/README.md"]
)
def test_nothing_else_is_served(service: Service, path: str) -> None:
    status, _, body = get(service, f"/playground/{path}")
    assert (status, json.loads(body)["code"]) == (404, "not_found")


def test_the_samples_are_the_shipped_ones(service: Service) -> None:
    names = json.loads(get(service, "/playground/samples")[2])["samples"]
    assert names == sorted(path.name for path in SAMPLES.glob("*.jpg"))
    for name in names:
        status, headers, body = get(service, f"/playground/samples/{name}")
        assert (status, headers["content-type"], body) == (200, "image/jpeg", (SAMPLES / name).read_bytes())


def test_it_can_be_left_out(tmp_path: Path) -> None:
    with serving(Service(tmp_path, "--no-playground")) as bare:
        status, headers, body = get(bare, "/", accept="text/html")
        assert (status, headers["content-type"]) == (200, "application/json")
        assert "playground" not in json.loads(body)
        for path in ("app.js", "samples", "samples/classify.jpg"):
            assert get(bare, f"/playground/{path}")[0] == 404
