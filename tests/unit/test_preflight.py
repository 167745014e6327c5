"""What is said before a start: which file is missing, where models should lie, and what is hardly meant."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from service import log, preflight
from service.config import Config, ModelConfig
from service.errors import StartError
from tests.walls import ROOT

ZOO = ROOT / "models" / "zoo"


def warnings(config: Config, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What `warn` logs, by its own fields."""
    log.configure("info")
    capsys.readouterr()
    preflight.warn(config)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert all(line["severity"] == "warning" for line in lines)
    return [{key: value for key, value in line.items() if key not in ("ts", "severity")} for line in lines]


@pytest.mark.parametrize("name", ["tls_cert", "tls_key", "tls_client_ca", "key_file"])
def test_a_file_that_is_missing_is_named_with_its_flag(name: str, tmp_path: Path) -> None:
    there = str(ZOO / "toyscape-detect" / "1" / "manifest.json")
    gone: dict[str, Any] = {name: str(tmp_path / "gone")}
    config = dataclasses.replace(Config(tls_cert=there, tls_key=there), **gone)
    with pytest.raises(StartError, match=f"--{name.replace('_', '-')} {tmp_path}/gone: No such file"):
        preflight.check_files(config)


def test_a_file_of_keys_is_judged_before_the_start(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    with pytest.raises(StartError, match="squint keys add"):
        preflight.check_files(Config(key_file=str(file)))
    file.write_text("not a key\n")
    with pytest.raises(StartError, match=r"line 1: expected NAME:SHA256 or NAME:SHA256:admin$"):
        preflight.check_files(Config(key_file=str(file)))
    file.write_text(f"alice:{'0' * 64}\n")
    preflight.check_files(Config(key_file=str(file)))
    preflight.check_files(Config())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (".", "name the directory two levels above it"),
        ("..", "name the directory above it"),
        ("flat", "a directory for the version"),
        ("graphs", "squint models add onnx"),
        ("empty", "expected NAME/VERSION/manifest.json below it"),
    ],
)
def test_a_directory_without_models_is_told_how_one_is_laid_out(given: str, said: str, tmp_path: Path) -> None:
    for name in ("flat/mine/manifest.json", "graphs/yolo.onnx", "empty/readme"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    of_one = {".": ZOO / "toyscape-detect" / "1", "..": ZOO / "toyscape-detect"}
    root = of_one.get(given, tmp_path / given)
    with pytest.raises(StartError) as raised:
        preflight.check_models(Config(models=(str(root),)))
    assert str(root) in str(raised.value)
    assert said in str(raised.value)


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    inside = str(tmp_path / "file" / "squint")
    (line,) = warnings(Config(cache_dir=inside), capsys)
    assert (line["event"], line["directory"], line["reason"]) == ("cache_unwritable", inside, "Not a directory")
    assert warnings(Config(cache_dir=str(tmp_path / "made")), capsys) == []
    assert list((tmp_path / "made").iterdir()) == []


def test_settings_for_a_model_that_is_not_there_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(
        cache_dir=str(tmp_path), model={"toyscape-clasify": ModelConfig(), "toyscape-detect": ModelConfig()}
    )
    assert warnings(config, capsys) == [
        {"event": "settings_for_no_model", "model": "toyscape-clasify", "meant": "toyscape-classify"}
    ]


def test_a_variable_that_is_no_setting_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUINT_RATE_LMIT", "3")
    assert warnings(Config(cache_dir=str(tmp_path)), capsys) == [
        {"event": "unknown_variable", "variable": "SQUINT_RATE_LMIT", "meant": "SQUINT_RATE_LIMIT"}
    ]
