from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models import manifest
from service.backends import nvidia, tensorrt
from service.backends.base import Artefact, BackendError
from service.backends.nvidia import Device
from tests.contract import models

PROVIDERS = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
H200 = Device(0, "NVIDIA H200", "00" * 16, "9.0", 141 << 30, "13.2")


@pytest.mark.parametrize(
    ("providers", "device", "there", "says"),
    [
        (PROVIDERS[2:], "cuda:0", True, "needs ONNX Runtime's GPU build"),
        (PROVIDERS, "cpu", True, "needs a GPU: --devices cuda:0"),
        (PROVIDERS, "cuda:0", False, r"libraries are missing \(libnvinfer.so.11 or libnvinfer.so.10\): install"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(providers: list[str], device: str, there: bool, says: str) -> None:
    said = tensorrt.unusable(providers, device, lambda name: there)
    assert re.search(says, said) and "\n" not in said


def test_nothing_is_said_when_nothing_is_missing() -> None:
    assert tensorrt.unusable(PROVIDERS, "cuda:0", lambda name: name.endswith(".10")) == ""


def test_loading_it_here_says_what_is_missing(tmp_path: Path) -> None:
    directory = models.tiny(tmp_path, "classify")
    described = manifest.load(directory)
    with pytest.raises(BackendError, match=r"TensorRT('s libraries are missing| needs)") as caught:
        tensorrt.load(Artefact(manifest=described, graph=b"", device="cpu"), "f32")
    assert caught.value.kind == "batch" and "\n" not in str(caught.value)


class Library(SimpleNamespace):
    """ONNX Runtime, as far as it says which it is and starts sessions; TensorRT leaves files behind as it is told."""

    def __init__(self, leave: bool = True) -> None:
        super().__init__(__version__="1.31.1", started=[])
        self.leave = leave

    def SessionOptions(self) -> Any:
        return SimpleNamespace(add_session_config_entry=lambda key, value: None)

    def InferenceSession(self, contents: bytes | str, options: Any, providers: list[tuple[str, dict[str, str]]]) -> Any:
        name, given = providers[0]
        self.started.append((contents, given))
        if "trt_dump_ep_context_model" in given and self.leave:
            Path(given["trt_ep_context_file_path"]).write_bytes(b"context of " + bytes(contents))  # type: ignore[arg-type]
            (Path(given["trt_engine_cache_path"]) / "some.engine").write_bytes(b"engine")
        return SimpleNamespace(get_providers=lambda: [name], disable_fallback=lambda: None)


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Library], tensorrt.Engines]:
    monkeypatch.setattr(nvidia, "devices", lambda: [H200])
    monkeypatch.setattr(tensorrt, "_version", lambda: "110100")
    described = manifest.load(models.fake(tmp_path / "zoo", name="m"))
    artefact = Artefact(manifest=described, graph=b"", cache_dir=str(tmp_path / "cache"), device="cuda:0")
    (tmp_path / "cache").mkdir()
    return lambda library: tensorrt.Engines(library, artefact)


def test_an_engine_is_built_once_and_then_loaded(engines: Callable[[Library], tensorrt.Engines]) -> None:
    first, second = Library(), Library()
    engines(first).start(b"graph", first.SessionOptions(), 8)
    (built, building), (loaded, loading) = first.started
    assert built == b"graph" and building["trt_timing_cache_enable"] == "1"
    assert loaded.endswith("/context.onnx") and Path(loaded).read_bytes() == b"context of graph"
    assert loading["trt_engine_cache_path"] == str(Path(loaded).parent) and "trt_timing_cache_path" not in loading
    engines(second).start(b"graph", second.SessionOptions(), 8)
    assert [contents for contents, _ in second.started] == [loaded]


def test_an_engine_that_was_changed_is_built_again(engines: Callable[[Library], tensorrt.Engines]) -> None:
    first, second = Library(), Library()
    engines(first).start(b"graph", first.SessionOptions(), 8)
    Path(first.started[1][0]).with_name("some.engine").write_bytes(b"engime")
    engines(second).start(b"graph", second.SessionOptions(), 8)
    assert [contents == b"graph" for contents, _ in second.started] == [True, False]


def test_every_part_of_the_key_makes_another_engine(
    engines: Callable[[Library], tensorrt.Engines], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engines(Library())
    keys = [made.key(b"graph", 8), made.key(b"other", 8), made.key(b"graph", 4)]
    made.library.__version__ = "1.32.0"
    keys.append(made.key(b"graph", 8))
    monkeypatch.setattr(tensorrt, "_version", lambda: "110200")
    keys.append(made.key(b"graph", 8))
    for driver, name in (("13.4", H200.name), ("13.2", "NVIDIA H100")):
        other = Device(0, name, H200.uuid, H200.capability, H200.memory_bytes, driver)
        monkeypatch.setattr(nvidia, "devices", lambda other=other: [other])
        keys.append(engines(Library()).key(b"graph", 8))
    assert len({tuple(sorted(key.items())) for key in keys}) == len(keys)


def test_a_build_that_leaves_nothing_is_an_error(engines: Callable[[Library], tensorrt.Engines]) -> None:
    library = Library(leave=False)
    with pytest.raises(BackendError, match="left no engine behind"):
        engines(library).start(b"graph", library.SessionOptions(), 8)
