"""Every server of the comparison can be made again, and is started as its documentation advises."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from loadtest.peers import environments, places
from loadtest.peers.plan import VARIABLE, Plan, given
from loadtest.peers.run import settings
from loadtest.peers.servers import RIVALS, SERVERS, Server, best_of, triton_config
from loadtest.peers.session import contenders

PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z,]+\])?==[A-Za-z0-9.!+]+")
README = (places.APPS / "README.md").read_text()


def pins(name: str) -> list[str]:
    lines = environments.requirements(name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("name", [*(server.name for server in RIVALS), "plots"])
def test_an_environment_is_pinned_to_the_last_package(name: str) -> None:
    assert pins(name)
    assert [line for line in pins(name) if not PIN.fullmatch(line)] == []


@pytest.mark.parametrize("server", RIVALS, ids=lambda server: server.name)
def test_a_rival_has_all_it_needs(server: Server) -> None:
    assert (places.APPS / f"{server.name}_app.py").is_file()
    assert environments.version(server.name, server.package)
    # The same library and the same decoder in each, or the comparison is one of those.
    assert {environments.version(server.name, name) for name in ("onnxruntime", "pillow")} == {"1.31.1", "13.0.0"}
    assert f"`{server.name}`" in README


def test_no_requirements_without_a_server() -> None:
    files = {file.stem for file in places.REQUIREMENTS.iterdir()}
    assert files == {server.name for server in RIVALS} | {"plots"}


@pytest.mark.parametrize("name", sorted({"triton", "mosec", "bentoml"}))
def test_a_server_is_told_to_listen_on_loopback_alone(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "copytree", lambda source, target: Path(target).mkdir(parents=True))
    monkeypatch.setattr(shutil, "copy2", lambda source, target: None)
    words = SERVERS[name].command(SERVERS[name].planned("free", 9199), tmp_path)
    assert "127.0.0.1" in words and "0.0.0.0" not in words and "9199" in words


@pytest.mark.parametrize("name", ["litserve", "ray"])
def test_a_server_without_a_command_line_says_so_itself(name: str) -> None:
    assert "127.0.0.1" in (places.APPS / f"{name}_app.py").read_text()


def test_a_plan_travels_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(model="m.onnx", port=9150, workers=3, threads=2, batch=4, wait_ms=1.5, deadline_ms=500, queue=7)
    monkeypatch.setenv(VARIABLE, plan.environment()[VARIABLE])
    assert given() == plan


def test_triton_limits_its_queue_only_with_a_deadline() -> None:
    plain = triton_config(Plan(model="m", port=1, batch=8, workers=2, wait_ms=2.0))
    assert "max_batch_size: 8" in plain and "count: 2" in plain and "max_queue_delay_microseconds: 2000" in plain
    assert "queue_policy" not in plain and "{{" not in plain and plain.count("{") == plain.count("}")
    limited = triton_config(Plan(model="m", port=1, deadline_ms=550, queue=9))
    assert "timeout_action: REJECT" in limited
    assert "default_timeout_microseconds: 550000" in limited and "max_queue_size: 9" in limited
    assert limited.count("{") == limited.count("}")


def test_mosec_limits_its_queue_only_with_a_deadline(tmp_path: Path) -> None:
    server = SERVERS["mosec"]
    assert "--capacity" not in server.command(Plan(model="m", port=1), tmp_path)
    words = server.command(Plan(model="m", port=1, deadline_ms=550, queue=9), tmp_path)
    assert words[words.index("--timeout") + 1] == "550" and words[words.index("--capacity") + 1] == "9"


def test_ours_is_held_to_one_backend_unless_it_may_choose(tmp_path: Path) -> None:
    model = str(tmp_path / "zoo" / "vit" / "model.onnx")
    words = {name: SERVERS[name].command(Plan(model=model, port=9), tmp_path) for name in ("squint", "squint-fastest")}
    assert words["squint"] == [*words["squint-fastest"], "--backend", "onnxruntime"]
    assert str(tmp_path / "zoo") in words["squint"]


def test_every_form_of_answer_is_read() -> None:
    one = {"predictions": [{"index": 3}, {"index": 1}]}
    assert best_of(one) == best_of([one]) == [3, 1]
    assert best_of({"outputs": [{"data": ['{"predictions": [{"index": 3}, {"index": 1}]}']}]}) == [3, 1]


def test_contenders_by_name() -> None:
    entries = contenders(["squint", "squint-auto", "triton", "triton-default", "squint-fastest"])
    assert [entry.server.name for entry in entries] == ["squint", "squint", "triton", "triton", "squint-fastest"]
    assert entries[0].query == entries[4].query == "level=full" and "min_level=fast" in entries[1].query
    assert [entry.limits for entry in entries] == [True, True, True, False, True]
    assert [entry.server.ours for entry in entries] == [True, True, False, False, True]
    for unknown in ("torchserve", "triton-auto", ""):
        with pytest.raises(ValueError, match="unknown server"):
            contenders([unknown])


def test_set_ups_by_name() -> None:
    assert settings(["mosec.batch=4", "mosec.wait_ms=1.5", "ray.workers=1"]) == {
        "mosec": {"batch": 4, "wait_ms": 1.5},
        "ray": {"workers": 1},
    }
    for wrong in ("mosec.port=1", "nobody.batch=1", "mosec.batch=x", "mosec"):
        with pytest.raises(ValueError):
            settings([wrong])


@pytest.mark.bench
@pytest.mark.parametrize("server", RIVALS, ids=lambda server: server.name)
def test_a_rival_answers_as_onnx_runtime_does(server: Server, tmp_path: Path) -> None:
    from loadtest.peers.session import Session

    environments.environment(server.name)
    environments.environment("mosec")
    environments.models(["free"])
    session = Session("free", "free", contenders([server.name]), 1.0, 1, 0.0, tmp_path / "free.json")
    with session.started(session.entries[0]) as running:
        assert running is not None, session.record["failures"]
    assert session.record["contenders"][server.name]["answer"]["same"]
