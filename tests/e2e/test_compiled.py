"""The compiled backend as an operator meets it: compile, serve without a compiler, and what comes of a damaged file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.contract import networks
from tests.e2e import images
from tests.e2e.service import ROOT, Service

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]  # the compiler's own deprecations

MODEL = "network-classify-vit"
PHOTO = images.png(images.number(42))
START_SECONDS = 180.0
"""Importing torch in several processes on a busy machine."""


def squint(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "squint", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_what_was_compiled_serves_without_a_compiler_and_damage_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = tmp_path / "models", tmp_path / "cache"
    networks.tiny(root, "classify")
    compiling = ("models", "compile", MODEL, "--backend", "torch/f32", "--models", str(root), "--cache-dir", str(cache))
    done = squint(*compiling)
    assert done.returncode == 0, done.stderr
    assert f"{MODEL}: torch/f32, full, batch of 1" in done.stderr and "agrees" in done.stdout

    flags = ("--models", str(root), "--backend", "torch/f32", "--threads", "2", "--decoders", "1", "--grpc-port", "off")
    service = Service(tmp_path, *flags, fake=False)
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))  # where no compiler is
        without.setenv("CXX", "/nonexistent")
        service.start()
        service.wait_ready(START_SECONDS)
    (model,) = service.request("GET", "/v1/models").json()["models"]
    assert model["backend"] == "torch/f32"
    for level in ("full", "tome:3"):
        reply = service.request("POST", f"/classify?level={level}", PHOTO, {"content-type": "image/png"})
        assert reply.status == 200 and reply.json()["level"] == level, reply.body
    assert service.stop() == 0

    (library,) = cache.glob("artefacts/*/model.so")
    data = bytearray(library.read_bytes())
    data[len(data) // 2] ^= 1
    library.write_bytes(data)
    service.start()
    with pytest.raises(RuntimeError, match="the service ended with"):
        service.wait_ready(START_SECONDS)
    assert "a file was altered or damaged" in service.log_text()
    assert f"not compiled for this machine; squint models compile {MODEL} does that" in service.log_text()
    assert squint(*compiling).returncode == 0
    service.start()
    service.wait_ready(START_SECONDS)
    assert service.request("POST", "/classify", PHOTO, {"content-type": "image/png"}).status == 200
    assert service.stop() == 0
