from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models import manifest
from service.backends import registry
from service.backends.base import Artefact
from service.errors import ConfigError
from tests.contract import models

ROOT = Path(__file__).resolve().parents[3]


def test_names_stand_for_variants() -> None:
    assert registry.variants("auto") == ("onnxruntime/f32", "openvino/f32", "openvino/bf16", "torch/f32", "torch/bf16")
    assert registry.variants("torch") == ("torch/f32", "torch/bf16"), "nothing that compiles while it is loaded"
    assert registry.variants("torch/jit/bf16") == ("torch/jit/bf16",)
    assert registry.variants("openvino") == ("openvino/f32", "openvino/bf16")
    assert registry.variants("openvino/bf16") == ("openvino/bf16",)
    assert registry.variants("onnxruntime") == ("onnxruntime/f32",)
    assert registry.variants("fake", allow_fake=True) == ("fake/none",)
    assert "fake/none" not in registry.variants("auto", allow_fake=True)


@pytest.mark.parametrize("name", ["tensorflow", "", "openvino/int8", "onnxruntime/bf16", "auto/f32", "torch/jit"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown backend .*accepted: auto, onnxruntime, openvino, torch, tensorrt$"):
        registry.variants(name)


def test_on_a_gpu_names_stand_for_what_runs_there() -> None:
    on_cuda = ("onnxruntime/cuda-f32", "onnxruntime/cuda-tf32")
    assert registry.variants("onnxruntime", device="cuda:1") == on_cuda
    assert registry.variants("auto", device="cuda:0") == (*on_cuda, "torch/f32", "torch/bf16", "tensorrt/f32")
    assert registry.variants("fake", allow_fake=True, device="cuda:0") == ("fake/none",)


@pytest.mark.parametrize(
    ("name", "device"),
    [("tensorrt", "cpu"), ("onnxruntime/cuda-f32", "cpu"), ("openvino", "cuda:0"), ("onnxruntime/f32", "cuda:0")],
)
def test_a_backend_is_refused_where_it_does_not_run(name: str, device: str) -> None:
    with pytest.raises(ConfigError, match=f"backend {name}: does not run on {device} "):
        registry.variants(name, device=device)


def test_a_missing_library_is_told_with_what_brings_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> None:
        raise ImportError(name="torch")

    monkeypatch.setattr(registry, "import_module", missing)
    artefact = Artefact(manifest=manifest.load(models.fake(tmp_path)), graph=b"")
    said = r"^backend torch: its library cannot be imported \(torch\); install the extra 'models'$"
    with pytest.raises(ConfigError, match=said):
        registry.open_backend("torch/f32", artefact)
    with pytest.raises(ConfigError, match=said):
        registry.build("torch/f32", artefact, lambda step: None)


def test_what_is_compiled_when() -> None:
    every = [*registry.variants("auto"), "fake/none", "torch/jit/f32"]
    assert [variant for variant in every if registry.is_made(variant)] == ["torch/f32", "torch/bf16"]
    assert [variant for variant in every if registry.is_compiling(variant)] == ["torch/jit/f32"]


def test_the_fake_has_to_be_allowed() -> None:
    with pytest.raises(ConfigError, match="for tests only"):
        registry.variants("fake")


def test_choosing_imports_no_runtime_library() -> None:
    program = (
        "import sys, service.backends.choose as c, service.backends.registry as r\n"
        "assert r.installed('openvino/f32') and r.installed('onnxruntime/f32') and r.installed('fake/none')\n"
        "print(sorted({'onnxruntime', 'openvino', 'torch', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("variant", "absent"),
    [("onnxruntime/f32", ["openvino"]), ("openvino/f32", ["onnxruntime", "openvino_telemetry", "openvino.tools.ovc"])],
)
def test_a_backend_loads_its_own_library_alone(variant: str, absent: list[str]) -> None:
    program = (
        "import sys, pathlib, tempfile\n"
        "from models import manifest\n"
        "from service.backends import registry\n"
        "from service.backends.base import Artefact\n"
        "from tests.contract import models\n"
        "d = models.tiny(pathlib.Path(tempfile.mkdtemp()), 'classify')\n"
        "m = manifest.load(d)\n"
        f"b = registry.open_backend({variant!r}, Artefact(manifest=m, graph=manifest.read_file(d, m, m.graph)))\n"
        f"print(sorted(set({absent!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
