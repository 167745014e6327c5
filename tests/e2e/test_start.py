"""A service that cannot start says why in one line, and ends with the right code."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.service import ROOT


def serve(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "squint", "serve", "--backend", "fake", "--allow-fake", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def check_one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    for word in words:
        assert word in lines[0]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.onnx", flip),
        ("reference.safetensors", flip),
        ("manifest.json", flip),
        ("model.onnx", Path.unlink),
        ("manifest.json", Path.unlink),
        ("stray.bin", Path.touch),
    ],
    ids=["altered-graph", "altered-reference", "altered-manifest", "no-graph", "no-manifest", "stray-file"],
)
def test_a_damaged_model_stops_the_start(tmp_path: Path, file: str, damage: Callable[[Path], None]) -> None:
    zoo = tmp_path / "zoo"
    shutil.copytree(ROOT / "models" / "zoo", zoo)
    damage(zoo / "toyscape-detect" / "1" / file)
    check_one_line(serve("--models", str(zoo)), 1, "toyscape-detect", file)


def test_a_directory_without_models(tmp_path: Path) -> None:
    check_one_line(serve("--models", str(tmp_path)), 1, "no model")
    check_one_line(serve("--models", str(tmp_path / "nowhere")), 1, "nowhere")


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        check_one_line(serve("--http-port", str(port)), 1, str(port), "--http-port")


def test_a_file_of_keys_that_is_missing_stops_the_start_before_any_port_is_open(tmp_path: Path) -> None:
    done = serve("--key-file", str(tmp_path / "keys"))
    check_one_line(done, 1, "--key-file", "squint keys add")
    assert "listening" not in done.stderr


def test_wrong_usage() -> None:
    check_one_line(serve("--http-port", "many"), 2, "--http-port", "65535")
    check_one_line(serve("--backend", "magic"), 2, "--backend", "openvino")
    check_one_line(serve("--no-such-flag"), 2, "--no-such-flag")
