from __future__ import annotations

from pathlib import Path

import pytest

from models import manifest
from models.manifest import ManifestError
from service.backends.base import Images, Inputs, Outputs
from service.backends.fake import Fake
from service.config import Config
from service.errors import ConfigError
from service.tasks.registry import TASKS
from service.wire.messages.control import Unit
from service.wire.messages.worker import Timing
from service.worker import load
from tests.contract import models


class Recorder(Fake):
    """Remembers the sizes of its batches."""

    ran: list[int]

    def _run(self, images: Images, inputs: Inputs, wide: bool) -> Outputs:
        self.ran.append(len(images))
        return super()._run(images, inputs, wide)


def test_every_engine_runs_one_and_the_largest_batch(tmp_path: Path) -> None:
    described = manifest.load(models.fake(tmp_path))
    backend = Recorder(described)
    backend.ran = []
    model = load.Model(described, backend, TASKS["classify"], {"full": Timing("full", 0.01, 0.01)}, 0.0)
    steps: list[int] = []
    load.warm(model, engines=3, max_batch=32, progress=lambda: steps.append(1))
    assert sorted(backend.ran) == [1, 1, 1, 7, 7, 7] and len(steps) == 2
    backend.ran = []
    load.warm(model, engines=1, max_batch=2, progress=lambda: None)
    assert backend.ran == [1, 2]


def test_a_device_is_made_ready_for_every_size_at_every_level(tmp_path: Path) -> None:
    described = manifest.load(models.fake(tmp_path, levels={"fast": "tome:8"}))
    backend = Recorder(described)
    backend.ran, backend.pipelined, backend.sizes = [], True, (1, 2, 4, 8, 16)
    timings = {name: Timing(name, 0.01, 0.01) for name in ("full", "fast")}
    load.warm(load.Model(described, backend, TASKS["classify"], timings, 0.0), 1, 32, lambda: None)
    assert backend.ran == [1, 2, 4, 8, 1, 2, 4, 8], "the largest that pays is 7, which runs as 8"
    backend.ran, backend.sizes = [], (4, 16)
    load.warm(load.Model(described, backend, TASKS["classify"], timings, 0.0), 1, 32, lambda: None)
    assert backend.ran == [4, 16, 4, 16]


def test_a_gpu_on_which_nothing_can_be_loaded_any_more_has_failed(tmp_path: Path) -> None:
    config = Config(
        models=(str(tmp_path),), backend="fake", allow_fake=True, log_level="error", cache_dir=str(tmp_path / "cache")
    )
    there = Unit("there", "m", str(models.fake(tmp_path / "zoo", name="m")))
    gone = Unit("gone", "n", str(tmp_path / "zoo" / "n" / "1"))
    assert list(load.load_all(config, [gone, there], 1 << 20, lambda: None, again=True, device="cuda:0")) == ["there"]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "lost-cuda:0").touch()
    with pytest.raises(ConfigError, match=r"^cuda:0: model m: fake cannot run it: told that the device is gone$"):
        load.load_all(config, [gone, there], 1 << 20, lambda: None, again=True, device="cuda:0")
    assert list(load.load_all(config, [there], 1 << 20, lambda: None, again=True, device="cuda:1")) == ["there"]


def test_the_fakes_profile_is_its_cost(tmp_path: Path) -> None:
    directory = models.fake(tmp_path)
    config = Config(
        models=(str(tmp_path),), backend="fake", allow_fake=True, fake_batch_ms=2.0, fake_item_ms=1.0, log_level="error"
    )
    (model,) = load.load_all(config, [Unit("toy", "fake-classify", str(directory))], 32 * 32 * 3, lambda: None).values()
    assert model.loaded().timings == [Timing("full", 0.002, 0.001)]


def test_a_folder_of_another_name_is_refused(tmp_path: Path) -> None:
    directory = models.fake(tmp_path, name="right")
    directory.parent.rename(tmp_path / "wrong")
    config = Config(models=(str(tmp_path),), backend="fake", allow_fake=True)
    with pytest.raises(ManifestError, match="holds the model 'right', expected 'wrong'"):
        load.load_all(config, [Unit("toy", "wrong", str(tmp_path / "wrong" / "1"))], 1 << 20, lambda: None)
