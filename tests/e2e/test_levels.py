"""Levels as a client meets them, against the real processes with the fake backend and models that merge tokens."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from models.levels import plan
from tests.contract import models
from tests.e2e import images
from tests.e2e.http import Connection, Reply
from tests.e2e.service import ROOT, Service

NAMED = {"balanced": "tome:4", "fast": "tome:8+width:1/2"}
IMAGE = images.png(images.number(7))
PREFIX = models.TRUNK.prefix


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    for task in ("classify", "detect", "segment"):
        models.fake(folder / "zoo", task, levels=NAMED)
    models.fake(folder / "zoo", name="plain")
    (folder / "squint.toml").write_text('[model.fake-detect]\ndefault_level = "tome:5"\n')
    with Service(folder, "--models", str(folder / "zoo"), "--config", str(folder / "squint.toml")) as running:
        yield running


def ask(service: Service, options: str, task: str = "classify", headers: dict[str, str] | None = None) -> Reply:
    return service.request("POST", f"/{task}?model=fake-{task}&{options}", IMAGE, headers)


def metrics(service: Service, *parts: str) -> float:
    """The sum of the samples whose line holds all parts."""
    lines = service.request("GET", "/metrics").body.decode().splitlines()
    samples = [line for line in lines if not line.startswith("#") and all(part in line for part in parts)]
    return sum(float(sample.split()[-1]) for sample in samples)


@pytest.mark.parametrize(
    ("options", "headers", "served"),
    [
        ("level=fast", {}, "fast"),
        ("level=auto", {}, "full"),
        ("level=auto&min_level=tome:3", {}, "full"),
        ("level=tome:8+width:1/2", {}, "tome:8+width:1/2"),
        ("level=width:1/2%2Btome:8", {}, "tome:8+width:1/2"),
        ("", {"X-Squint-Level": "width:1/2+tome:8"}, "tome:8+width:1/2"),
        ("level=tome:6", {"X-Squint-Level": "fast"}, "tome:6"),
        ("level=tome:9/0/5", {}, "tome:9/0/5"),
        ("level=tome:4,-1", {}, "tome:4,-1"),
        ("", {}, "full"),
    ],
)
def test_the_answer_the_header_and_the_log_say_what_was_served(
    service: Service, options: str, headers: dict[str, str], served: str
) -> None:
    reply = ask(service, options, headers=headers)
    assert reply.status == 200, reply.body
    planned = plan(NAMED.get(served, served), models.TRUNK)
    assert reply.headers["x-squint-level"] == served
    answer = reply.json()
    assert (answer["level"], answer["tokens"]) == (served, planned.tokens)
    assert answer["gmacs"] == pytest.approx(planned.gmacs, abs=1e-4)
    line = service.logged(answer["request_id"])
    assert (line["level"], line["tokens"]) == (served, planned.tokens)
    assert line["gmacs"] == pytest.approx(planned.gmacs, abs=1e-5)


def test_the_operators_default_is_served_and_can_be_overruled(service: Service) -> None:
    assert ask(service, "", "detect").json()["level"] == "tome:5"
    assert ask(service, "level=full", "detect").json()["level"] == "full"


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ("level=tiny", "unknown_level", "levels are full, balanced, fast, auto; explicit levels are tome:R"),
        ("level=tome:8+tome:9", "unknown_level", "stands twice"),
        ("level=width:1/3", "unknown_level", "width:1/2"),
        ("level=auto&min_level=tiny", "unknown_level", "levels are full"),
        ("level=fast&min_level=fast", "bad_option", "level=auto"),
        ("explain=boxes", "bad_option", "explain must be one of tokens, batch, all"),
        ("model=plain&level=tome:8", "unknown_level", "levels are full, auto"),
        ("model=plain&explain=tokens", "bad_option", "merges no tokens"),
    ],
)
def test_what_cannot_be_served_is_refused_with_what_can(service: Service, options: str, code: str, says: str) -> None:
    options = options if "model" in options else f"model=fake-classify&{options}"
    reply = service.request("POST", f"/classify?{options}", IMAGE)
    assert (reply.status, reply.json()["code"]) == (400, code), reply.body
    assert says in reply.json()["error"]


def test_models_list_their_levels(service: Service) -> None:
    described = service.request("GET", "/v1/models/fake-classify").json()
    assert {level["name"]: level["explicit"] for level in described["levels"]} == {"full": "full", **NAMED}
    for level in described["levels"]:
        planned = plan(level["explicit"], models.TRUNK)
        assert (level["gmacs"], level["tokens"]) == (pytest.approx(planned.gmacs, abs=1e-4), planned.tokens)
        assert {"accuracy", "agreement"} <= set(level)
        assert level["merges_tokens"] == ("tome:" in level["explicit"])
    assert described["merges_tokens"] is True
    assert service.request("GET", "/v1/models/plain").json()["merges_tokens"] is False
    assert "tome:R" in described["explicit_levels"] and "width:1/2" in described["explicit_levels"]
    assert service.request("GET", "/v1/models/plain").json()["explicit_levels"] is None
    assert service.request("GET", "/v1/models/fake-detect").json()["default_level"] == "tome:5"


def test_metrics_know_names_and_custom_alone(service: Service) -> None:
    for options in ("level=fast", "level=width:1/2+tome:8", "level=tome:7", "level=auto"):
        before = metrics(service, "squint_level_served_total{")
        assert ask(service, options).status == 200
        assert metrics(service, "squint_level_served_total{") == before + 1
    for level, asked in (("fast", "fast"), ("fast", "custom"), ("custom", "custom"), ("full", "auto")):
        assert metrics(service, "squint_level_served_total{", f'level="{level}"', f'asked="{asked}"') > 0
    text = service.request("GET", "/metrics").body.decode()
    assert 'squint_batch_items_count{level="custom",model="fake-classify"}' in text
    assert 'squint_request_seconds_count{level="custom",model="fake-classify"' in text
    assert "tome:" not in text and "width:" not in text


@pytest.mark.parametrize("task", ["classify", "detect", "segment"])
@pytest.mark.parametrize("level", ["full", "fast", "tome:16/0/3"])
def test_tokens_are_explained_when_asked(service: Service, task: str, level: str) -> None:
    answer = ask(service, f"level={level}&explain=tokens", task).json()
    document = service.request("GET", "/openapi.json").json()
    schema = document["paths"][f"/{task}"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, {**schema, "components": document["components"]})
    told = answer["explain"]["tokens"]
    assert told["grid"] == [8, 8]
    assert told["box"] == [0, 0, 32, 32]
    groups = [group for group, length in told["groups"]["runs"] for _ in range(length)]
    assert len(groups) == 64
    assert told["sizes"] == [groups.count(group) for group in range(len(told["sizes"]))]
    assert len(told["sizes"]) + PREFIX == answer["tokens"]
    assert "explain" not in ask(service, f"level={level}", task).json()


def test_strangers_at_many_levels_get_their_own_answers(service: Service) -> None:
    """The tokens of an answer tell the level it was run at, its class the image it was made from."""
    levels = ["full", "balanced", "fast", *(f"tome:{count}" for count in range(1, 8)), "width:1/2"]

    async def one(number: int) -> None:
        connection = Connection(service.port)
        for turn in range(6):
            level, colour = levels[(number + turn) % len(levels)], images.number(1000 * turn + number)
            target = f"/classify?model=fake-classify&level={level}&explain=tokens&timeout_ms=60000"
            answer = (await connection.request("POST", target, images.png(colour))).json()
            tokens = plan(NAMED.get(level, level), models.TRUNK).tokens
            assert answer["tokens"] == len(answer["explain"]["tokens"]["sizes"]) + PREFIX == tokens
            expected = images.expected_index(colour, len(models.LABELS), side=32)
            assert answer["predictions"][0]["index"] == expected
        await connection.close()

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(40)))

    asyncio.run(all_of_them())


def test_hundreds_of_different_levels_are_served_one_after_another(service: Service) -> None:
    async def each() -> None:
        connection = Connection(service.port)
        for number in range(300):
            level = f"tome:{number % 17}/{number // 17}"
            reply = await connection.request("POST", f"/classify?model=fake-classify&level={level}", IMAGE)
            assert reply.status == 200, reply.body
        await connection.close()

    asyncio.run(each())
    assert ask(service, "level=full").status == 200


@pytest.mark.parametrize(
    ("key", "wrong"),
    [("default_level", "tiny"), ("default_level", "width:1/3"), ("min_level", "tiny"), ("min_level", "auto")],
)
def test_a_wrong_level_of_the_operators_stops_the_start(tmp_path: Path, key: str, wrong: str) -> None:
    models.fake(tmp_path / "zoo", levels=NAMED)
    file = tmp_path / "squint.toml"
    file.write_text(f'[model.fake-classify]\n{key} = "{wrong}"\n')
    flags: list[Any] = ["--backend", "fake", "--allow-fake", "--models", tmp_path / "zoo", "--config", file]
    command = [sys.executable, "-m", "squint", "serve", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert (done.returncode, len(lines)) == (2, 1), json.dumps(done.stderr)
    assert f"[model.fake-classify] {key} = '{wrong}'" in lines[0]
    assert "full, balanced, fast, auto" in lines[0] and "tome:R" in lines[0]
