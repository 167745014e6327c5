"""Models of timm from `squint models add` to an answer over HTTP, one of each family; run where torch is installed.

Weights are random, but stirred so that every layer matters; what is compared is the service's own way of running them
with PyTorch's answers, which the model's directory keeps.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402

from models import manifest  # noqa: E402
from models.reference import read_reference  # noqa: E402
from squint.measure.backends import opened  # noqa: E402
from tests.e2e.service import ROOT, Service  # noqa: E402
from tests.models.lively import enliven  # noqa: E402

pytestmark = pytest.mark.bench

NEAR = 1e-3
"""How far logits may be from PyTorch's, in terms of the largest."""
FAMILIES = (
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "convnext_atto",
    "halonet26t",
    "tnt_s_legacy_patch16_224",
    "crossvit_9_240",
    "poolformer_s12",
    "caformer_s18",
    "mobilenetv2_050",
    "resnetrs50",
    "resnetv2_50d_evos",
    "regnety_320.seer_ft_in1k",
)
TRANSFORMERS = (
    "vit_small_patch16_224",
    "deit_small_distilled_patch16_224",
    "vit_small_patch16_dinov3",
    "vit_base_patch16_384",
)
FRESH = ("caformer_s18",)
"""Stirred, these amplify rounding so much that PyTorch's own float32 and float64 disagree: they keep timm's weights."""
LEVELS = ("full", "tome:1", "tome:7", "tome:8", "tome:13", "tome:16", "tome:16,-1")


def squint(*words: str) -> str:
    """What the command printed; it must not fail."""
    done = subprocess.run([sys.executable, "-m", "squint", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def added(timm_name: str, root: Path) -> tuple[Path, float]:
    """The model's directory and the seconds that adding it took."""
    torch.manual_seed(0)
    weights = root / "weights.safetensors"
    model = timm.create_model(timm_name, num_classes=1000)
    save_file((model if timm_name in FRESH else enliven(model)).state_dict(), weights)
    before = time.monotonic()
    squint("models", "add", f"timm/{timm_name}", "--weights", str(weights), "--name", "m", "--to", str(root / "zoo"))
    return root / "zoo" / "m" / "1", time.monotonic() - before


def away(directory: Path) -> float:
    """How far ONNX Runtime's logits are from PyTorch's, in terms of the largest."""
    described = manifest.load(directory)
    reference = read_reference(directory, described)
    backend = opened(directory, described, "onnxruntime/f32", "")
    given = backend.run(reference["images"], "full")["logits"]
    backend.close()
    return float(np.abs(given - reference["logits"]).max() / np.abs(reference["logits"]).max())


def answers(root: Path, levels: tuple[str, ...]) -> None:
    """Every level is answered over HTTP."""
    photo = (ROOT / "samples" / "classify.jpg").read_bytes()
    service = Service(root, "--models", str(root / "zoo"), "--backend", "onnxruntime", fake=False)
    service.start()
    try:
        service.wait_ready(300)
        for level in levels:
            reply = service.request("POST", f"/classify?level={level}", photo)
            assert reply.status == 200 and reply.json()["level"] == level, reply.body
    finally:
        service.stop()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family(name: str, tmp_path: Path) -> None:
    directory, seconds = added(name, tmp_path)
    found = away(directory)
    print(f"\n{name}: added in {seconds:.0f} s, {directory.joinpath('model.onnx').stat().st_size / 1e6:.0f} MB, "
          f"logits within {found:.1e} of PyTorch's")  # fmt: skip
    assert found <= NEAR
    squint("models", "verify", "m", "--models", str(tmp_path / "zoo"))
    answers(tmp_path, ("full",))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_plain_transformer_with_its_levels(name: str, tmp_path: Path) -> None:
    directory, seconds = added(name, tmp_path)
    found = away(directory)
    print(f"\n{name}: added in {seconds:.0f} s, logits within {found:.1e} of PyTorch's")
    assert found <= NEAR
    words = [word for level in LEVELS for word in ("--level", level)]
    print(squint("models", "verify", "m", "--models", str(tmp_path / "zoo"), *words))
    answers(tmp_path, LEVELS)
