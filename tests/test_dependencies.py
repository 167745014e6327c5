"""What the project depends on: no version with a known hole that reaches us, and locks that say what is asked for."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from typing import Any

import pytest

from service.version import VERSION
from tests.walls import ROOT

FLOORS = {
    "starlette": "1.0.1",  # request path poisoned by the Host header
    "python-multipart": "0.0.27",  # unbounded headers and preambles of parts
    "h11": "0.16",  # request smuggling by chunked bodies
    "pillow": "12.3",  # out-of-bounds writes in decoders
    "onnx": "1.21",  # paths outside the model directory
}
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_installed_is_new_enough(name: str) -> None:
    assert number(metadata.version(name)) >= number(FLOORS[name])


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_what_is_locked_is_new_enough_and_has_hashes(lock: Any) -> None:
    text = lock.read_text()
    pins = dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", text, re.MULTILINE))
    assert len(pins) > 10
    assert not [name for name, least in FLOORS.items() if name in pins and number(pins[name]) < number(least)]
    entries = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    assert not [entry.partition(" ")[0] for entry in entries if "--hash=sha256:" not in entry]


@pytest.mark.parametrize(
    ("lock", "extras"), [("serve", ["serve"]), ("dev", ["serve", "dev"]), ("models", ["models"]), ("otel", ["otel"])]
)
def test_the_lock_has_what_the_project_asks_for(lock: str, extras: list[str]) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    asked = [line for extra in extras for line in PROJECT["project"]["optional-dependencies"][extra]]
    names = [re.split(r"[>=<\[]", line)[0] for line in [*asked, *PROJECT["project"]["dependencies"], "setuptools"]]
    assert not [name for name in names if f"\n{name}==" not in "\n" + text], "run: make lock"


def test_the_project_asks_for_the_floors() -> None:
    asked = [line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra]
    for name, least in FLOORS.items():
        bounds = [line.removeprefix(f"{name}>=") for line in asked if line.startswith(f"{name}>=")]
        assert bounds, name
        assert all(number(bound) >= number(least) for bound in bounds), name


def test_the_gpu_extra_is_the_cpu_extra_with_the_other_runtime() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    cpu = {line.replace("onnxruntime>", "onnxruntime-gpu>") for line in extras["serve"]}
    assert cpu == set(extras["serve-gpu"])
    assert [{"extra": "serve"}, {"extra": "serve-gpu"}] in PROJECT["tool"]["uv"]["conflicts"]


def test_the_locks_agree_with_one_another() -> None:
    """What serve.lock pins, dev.lock pins alike: `make test` changes nothing of what `make serve` runs."""

    def pins(name: str) -> set[str]:
        text = (ROOT / "requirements" / f"{name}.lock").read_text()
        return {line.rstrip("\\ ") for line in text.splitlines() if "==" in line}

    assert pins("serve") <= pins("dev") <= pins("models")


def test_the_version_is_the_same_everywhere() -> None:
    assert PROJECT["project"]["version"] == VERSION
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()
