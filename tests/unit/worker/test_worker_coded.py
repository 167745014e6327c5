"""A worker process that decodes on its device, here the CPU: batches of pixels and of JPEGs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from service.config import Config, Limits
from service.decoder import handing
from service.wire.messages.control import Failed
from service.wire.messages.decoder import Fitting
from service.wire.messages.worker import Done, Ran, Run, Undone
from tests.contract import models
from tests.unit.decoder.scenes import exif, save, with_exif
from tests.unit.worker.harness import WorkerProcess

SIDE = 32
FITTING = Fitting(fit="stretch", height=SIDE, width=SIDE, fill=(0, 0, 0))
COLOURS = [(number * 20, number * 20, number * 20) for number in range(8)]
"""Greys, which JPEG keeps exactly."""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("zoo")
    models.fake(root)
    return root


def config(zoo: Path, **changes: Any) -> Config:
    values: dict[str, Any] = {"backend": "fake", "allow_fake": True, "threads": 2, "log_level": "error"}
    return Config(models=(str(zoo),), **(values | changes))


def solid(colour: tuple[int, int, int], height: int = SIDE, width: int = SIDE) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((height, width, 3), colour, np.uint8)


def handed(worker: WorkerProcess, run: Run, position: int, data: bytes, cut: int = 0) -> Run:
    """The batch with one item as a decoder hands it on, its last `cut` bytes lost."""
    work = run.items[position]
    slot = worker.pixels.view(work.slot)
    slot[:] = bytes(len(slot))
    found = handing.hand_on(data, slot, FITTING, Limits())
    assert found is not None
    geometry, coded = found
    slot[coded.size - cut :] = bytes(len(slot) - coded.size + cut)
    items = list(run.items)
    items[position] = msgspec.structs.replace(work, geometry=geometry, coded=coded)
    return msgspec.structs.replace(run, items=items)


def loaded_readers(process: int) -> set[str]:
    """Files of the library that a process has mapped."""
    lines = Path(f"/proc/{process}/maps").read_text().splitlines()
    return {line.split("/")[-1] for line in lines if "nvimgcodec" in line or "_ext.so" in line}


def test_pixels_and_jpegs_in_one_batch_and_one_that_is_damaged(zoo: Path) -> None:
    with (
        WorkerProcess(config(zoo, decode_on="device")) as worker,
        contextlib.closing(worker.ready()) as gateway,
    ):
        run = worker.batch([solid(colour) for colour in COLOURS], "fake-classify")
        plain = gateway.run(run)
        assert isinstance(plain, Ran) and plain.decode == 0
        for position in (1, 4, 6):
            data = save(solid(COLOURS[position], 47, 90), "JPEG", quality=90)
            run = handed(worker, run, position, with_exif(data, exif(position)), cut=30 if position == 4 else 0)
        mixed = gateway.run(run)
        assert isinstance(mixed, Ran) and mixed.decode > 0
        expected = {one.id: one.result for one in plain.items if isinstance(one, Done)}
        got = {one.id: one.result if isinstance(one, Done) else one.code for one in mixed.items}
        damaged = run.items[4].id
        assert got.pop(damaged) == "undecodable_image"
        assert got == {number: result for number, result in expected.items() if number != damaged}
        assert worker.process.poll() is None
        assert any(name.startswith("libjpeg_turbo_ext") for name in loaded_readers(worker.process.pid))


def test_a_batch_of_which_every_image_is_damaged(zoo: Path) -> None:
    with (
        WorkerProcess(config(zoo, decode_on="device")) as worker,
        contextlib.closing(worker.ready()) as gateway,
    ):
        run = worker.batch([solid(colour) for colour in COLOURS[:2]], "fake-classify")
        for position in range(2):
            run = handed(worker, run, position, save(solid(COLOURS[position], 40, 40), "JPEG"), cut=30)
        answer = gateway.run(run)
        assert isinstance(answer, Ran)
        assert [one.code for one in answer.items if isinstance(one, Undone)] == ["undecodable_image"] * 2


def test_without_it_the_library_is_not_loaded_and_jpegs_are_refused(zoo: Path) -> None:
    with WorkerProcess(config(zoo)) as worker, contextlib.closing(worker.ready()) as gateway:
        run = worker.batch([solid(colour) for colour in COLOURS[:2]], "fake-classify")
        answer = gateway.run(handed(worker, run, 0, save(solid(COLOURS[0], 40, 40), "JPEG")))
        assert isinstance(answer, Ran)
        assert sorted(type(one).__name__ for one in answer.items) == ["Done", "Undone"]
        assert not loaded_readers(worker.process.pid)


def test_a_gpu_that_is_not_there_is_said_at_the_start(zoo: Path) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    with WorkerProcess(config(zoo, decode_on="device", devices=("cuda:0",))) as worker:
        told = worker.told()
        assert isinstance(told, Failed) and told.reason.startswith("--decode-on device: nv")
        assert worker.status() == 1
