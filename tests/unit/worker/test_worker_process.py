"""The worker as a process, over real sockets and shared memory, mostly with the fake backend."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models import manifest
from service.backends import fake
from service.config import Config, ModelConfig
from service.errors import WireError
from service.wire.messages.control import Drain, Failed, Ready, Unit
from service.wire.messages.results import Classification, Detections, Segmentation
from service.wire.messages.worker import (
    Done,
    Hello,
    Load,
    LoadDone,
    LoadFailed,
    Ran,
    RunFailed,
    Undone,
    Unload,
    Unloaded,
)
from service.wire.pulse import REST_LIMIT
from tests.contract import models
from tests.unit.worker.harness import Gateway, WorkerProcess

LABELS = len(models.LABELS)
CLASSIFY = "fake-classify"


def config(root: Path, **changes: Any) -> Config:
    values: dict[str, Any] = {"backend": "fake", "allow_fake": True, "threads": 2, "log_level": "error"}
    return Config(models=(str(root),), **(values | changes))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("zoo")
    for task in manifest.Task.__args__:  # type: ignore[attr-defined]
        models.fake(root, task)
    return root


@pytest.fixture
def worker(zoo: Path) -> Iterator[WorkerProcess]:
    with WorkerProcess(config(zoo)) as process:
        yield process


@pytest.fixture
def gateway(worker: WorkerProcess) -> Iterator[Gateway]:
    gateway = worker.ready()
    yield gateway
    gateway.close()


def solid(colour: fake.Colour) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return fake.solid(colour, 32, 32)


def pictures(count: int, seed: int = 0) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    return list(models.images(count, 32, seed))


def sleeping(seconds: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return solid((*fake.SLEEP_RED_GREEN, round(seconds / fake.SLEEP_STEP)))


# --- answers ------------------------------------------------------------------------------------------------------


def test_hello_tells_engines_and_models_with_their_profiles(gateway: Gateway) -> None:
    hello = gateway.hello
    assert hello is not None and (hello.engines, hello.max_batch) == (2, 32)
    assert [(one.model, one.backend) for one in hello.models] == [
        (f"fake-{task}", "fake/none") for task in ("classify", "detect", "segment")
    ]
    assert all([timing.level for timing in one.timings] == ["full"] for one in hello.models)


def test_every_item_gets_its_own_result(worker: WorkerProcess, gateway: Gateway) -> None:
    images = pictures(5)
    answer = gateway.run(worker.batch(images, CLASSIFY, top_k=1))
    assert isinstance(answer, Ran) and answer.infer >= 0 and answer.post >= 0
    assert [(one.id, one.generation) for one in answer.items] == [(100 + slot, 7) for slot in range(5)]
    for one, image in zip(answer.items, images, strict=True):
        assert isinstance(one, Done) and isinstance(one.result, Classification)
        assert [p.index for p in one.result.predictions] == [fake.checksum(image) % LABELS]


def test_the_tasks_answer_in_their_own_types(worker: WorkerProcess, gateway: Gateway) -> None:
    for model, kind in (("fake-detect", Detections), ("fake-segment", Segmentation)):
        answer = gateway.run(worker.batch(pictures(2), model))
        assert isinstance(answer, Ran)
        assert all(isinstance(one, Done) and isinstance(one.result, kind) for one in answer.items)


def test_batches_run_side_by_side_and_each_is_answered_once(worker: WorkerProcess, gateway: Gateway) -> None:
    runs = {}
    for number in range(20):
        images = pictures(1 + number % 3, seed=number)
        run = worker.batch(images, CLASSIFY, first_slot=3 * number, top_k=1)
        runs[run.batch] = [fake.checksum(image) % LABELS for image in images]
        gateway.send(run)
    for _ in range(20):
        answer = gateway.answer()
        assert isinstance(answer, Ran)
        found = [one.result.predictions[0].index for one in answer.items if isinstance(one, Done)]  # type: ignore[union-attr]
        assert runs.pop(answer.batch) == found
    assert not runs and gateway.silent(0.3)


def test_a_slow_batch_does_not_hold_up_the_other_engine(worker: WorkerProcess, gateway: Gateway) -> None:
    slow = worker.batch([sleeping(2.5)], CLASSIFY)
    quick = worker.batch(pictures(1), CLASSIFY, first_slot=8)
    gateway.send(slow)
    gateway.send(quick)
    assert [answer.batch for answer in (gateway.answer(), gateway.answer()) if isinstance(answer, Ran)] == [
        quick.batch,
        slow.batch,
    ]


# --- what goes wrong, and for whom --------------------------------------------------------------------------------


def test_items_that_an_error_names_fail_alone(worker: WorkerProcess, gateway: Gateway) -> None:
    first, last = pictures(2)
    answer = gateway.run(worker.batch([first, solid(fake.FAIL_ITEM), last, solid(fake.FAIL_ITEM)], CLASSIFY))
    assert isinstance(answer, Ran)
    assert {one.id: type(one) for one in answer.items} == {100: Done, 101: Undone, 102: Done, 103: Undone}
    assert {one.code for one in answer.items if isinstance(one, Undone)} == {"unprocessable_image"}
    alone = gateway.run(worker.batch([solid(fake.FAIL_ITEM)], CLASSIFY))
    assert isinstance(alone, Ran) and [type(one) for one in alone.items] == [Undone]


def test_a_result_that_cannot_be_made_fails_alone(worker: WorkerProcess, gateway: Gateway) -> None:
    answer = gateway.run(worker.batch([*pictures(2), solid(fake.STRAY)], CLASSIFY))
    assert isinstance(answer, Ran)
    assert [type(one) for one in answer.items] == [Done, Done, Undone]
    assert answer.items[2] == Undone(102, 7, "internal", "the model's answer cannot be read")


def test_a_slot_that_does_not_exist_fails_alone(worker: WorkerProcess, gateway: Gateway) -> None:
    run = worker.batch(pictures(2), CLASSIFY)
    stray = type(run.items[0])(999, 10_000, 7, run.items[0].geometry, run.items[0].options)
    answer = gateway.run(type(run)(run.batch, run.model, run.level, [*run.items, stray]))
    assert isinstance(answer, Ran)
    assert {one.id: type(one) for one in answer.items} == {100: Done, 101: Done, 999: Undone}


def test_a_model_or_level_that_is_not_served_is_answered(worker: WorkerProcess, gateway: Gateway) -> None:
    for run, code in (
        (worker.batch(pictures(2), "other"), "unknown_model"),
        (worker.batch(pictures(2), CLASSIFY, "fast"), "unknown_level"),
    ):
        answer = gateway.run(run)
        assert isinstance(answer, Ran)
        assert [one.code for one in answer.items if isinstance(one, Undone)] == [code, code]


def test_a_batch_that_fails_as_a_whole_is_told_as_a_whole(worker: WorkerProcess, gateway: Gateway) -> None:
    failed = gateway.run(worker.batch([*pictures(2), solid(fake.FAIL_BATCH)], CLASSIFY))
    assert failed == RunFailed(failed.batch, "batch")
    short = gateway.run(worker.batch([*pictures(fake.MEMORY_LIMIT), solid(fake.NO_MEMORY)], CLASSIFY))
    assert short == RunFailed(short.batch, "oom")
    assert isinstance(gateway.run(worker.batch([solid(fake.NO_MEMORY)], CLASSIFY)), Ran), "a smaller one succeeds"


def test_a_fatal_error_ends_the_process_at_once(worker: WorkerProcess, gateway: Gateway) -> None:
    gateway.send(worker.batch([solid(fake.FATAL)], CLASSIFY))
    assert worker.status() == 70
    with pytest.raises(WireError):
        gateway.answer()


def test_a_segfault_is_a_death_by_signal(worker: WorkerProcess, gateway: Gateway) -> None:
    gateway.send(worker.batch([solid(fake.SEGFAULT)], CLASSIFY))
    assert worker.status() == -signal.SIGSEGV


# --- the pulse ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", [fake.HANG_PYTHON, fake.HANG_C, fake.HANG_LOCKED])
def test_an_engine_that_hangs_is_late(colour: fake.Colour, worker: WorkerProcess, gateway: Gateway) -> None:
    gateway.send(worker.batch([solid(colour)], CLASSIFY))
    assert worker.becomes_overdue()


def test_a_stopped_process_is_late(worker: WorkerProcess, gateway: Gateway) -> None:
    worker.process.send_signal(signal.SIGSTOP)
    assert worker.becomes_overdue()


def test_every_engine_shows_life_while_it_rests(worker: WorkerProcess, gateway: Gateway) -> None:
    before = [pulse.read().at for pulse in worker.pulses]
    assert all(before)
    until = time.monotonic() + 30
    while time.monotonic() < until and any(
        pulse.read().at == at for pulse, at in zip(worker.pulses, before, strict=True)
    ):
        time.sleep(0.05)
    assert all(pulse.read().at > at for pulse, at in zip(worker.pulses, before, strict=True))


# --- gateways come and go -----------------------------------------------------------------------------------------


def test_a_new_gateway_finds_the_models_loaded_and_gets_no_old_answers(worker: WorkerProcess, gateway: Gateway) -> None:
    for slot in range(4):
        gateway.send(worker.batch([sleeping(0.5)], CLASSIFY, first_slot=slot))
    time.sleep(0.2)
    second = worker.attach()
    hello = second.answer()
    assert isinstance(hello, Hello) and len(hello.models) == 3
    assert second.silent(1.5), "what the former gateway asked for is not told to this one"
    assert isinstance(second.run(worker.batch(pictures(1), CLASSIFY)), Ran)
    second.close()


def test_a_gateway_that_dies_costs_the_worker_nothing(worker: WorkerProcess, gateway: Gateway) -> None:
    gateway.send(worker.batch([sleeping(0.3)], CLASSIFY))
    gateway.close()
    second = worker.attach()
    assert isinstance(second.answer(), Hello)
    assert isinstance(second.run(worker.batch(pictures(1), CLASSIFY)), Ran)
    second.close()


def test_a_gateway_that_talks_nonsense_is_cut_off(worker: WorkerProcess, gateway: Gateway) -> None:
    gateway.channel._socket.sendall(b"\xff" * 64)
    with pytest.raises(WireError):
        gateway.answer()
    second = worker.attach()
    assert isinstance(second.answer(), Hello)
    second.close()


def test_a_gateway_that_reads_no_answers_can_be_replaced(worker: WorkerProcess, gateway: Gateway) -> None:
    for _ in range(60):  # more than the socket holds
        gateway.send(worker.batch(pictures(32), "fake-segment", mask="png"))
    time.sleep(0.5)
    second = worker.attach()
    assert isinstance(second.answer(), Hello)
    assert isinstance(second.run(worker.batch(pictures(1), CLASSIFY)), Ran)
    second.close()


# --- the end ------------------------------------------------------------------------------------------------------


def test_drain_answers_what_is_queued_and_ends_well(worker: WorkerProcess, gateway: Gateway) -> None:
    first = worker.batch([sleeping(0.3)], CLASSIFY)
    gateway.send(first)
    runs = [worker.batch([sleeping(0.1)], CLASSIFY, first_slot=slot) for slot in range(1, 6)]
    for run in runs:
        gateway.send(run)
    answers = [gateway.answer()]
    worker.control.send(Drain(0.0))
    answers += [gateway.answer() for _ in runs]
    assert {one.batch for one in answers if isinstance(one, Ran)} == {run.batch for run in (first, *runs)}
    assert worker.status() == 0
    assert not worker.overdue(), "engines that have ended are not waited for"


def test_without_a_supervisor_the_worker_ends(worker: WorkerProcess, gateway: Gateway) -> None:
    worker.control.close()
    assert worker.status() == 0


def test_drain_before_a_gateway_came(worker: WorkerProcess) -> None:
    assert worker.told() == Ready()
    worker.control.send(Drain(0.0))
    assert worker.status() == 0


# --- the start ----------------------------------------------------------------------------------------------------


def failure(settings: Config, side: int = 32) -> str:
    with WorkerProcess(settings, side=side) as process:
        told = process.told()
        assert isinstance(told, Failed) and "\n" not in told.reason
        assert process.status() == 1
        return told.reason


def test_an_altered_file_stops_the_start(tmp_path: Path) -> None:
    directory = models.fake(tmp_path, name="m")
    (directory / "model.onnx").write_bytes(b"no grapH")
    assert failure(config(tmp_path)).startswith(f"{directory / 'model.onnx'}: does not match the sha256")


def test_a_missing_file_stops_the_start(tmp_path: Path) -> None:
    directory = models.fake(tmp_path, name="m")
    (directory / "reference.safetensors").unlink()
    assert failure(config(tmp_path)) == f"{directory / 'reference.safetensors'}: missing"


def test_a_graph_that_no_backend_takes_stops_the_start(tmp_path: Path) -> None:
    models.fake(tmp_path, name="m")
    reason = failure(config(tmp_path, backend="onnxruntime"))
    assert reason.startswith("model m: no backend can run it (onnxruntime/f32: ")


def test_a_backend_that_does_not_run_here_stops_the_start(tmp_path: Path) -> None:
    models.fake(tmp_path, name="m")
    assert failure(config(tmp_path, model={"m": ModelConfig(backend="tensorrt")})).startswith(
        "model m: backend tensorrt: does not run on cpu (--devices says where)"
    )
    assert "for tests only" in failure(config(tmp_path, allow_fake=False))


def test_images_that_do_not_fit_a_slot_stop_the_start(tmp_path: Path) -> None:
    models.fake(tmp_path, name="m", side=64)
    assert failure(config(tmp_path)) == "model m: an image takes 12288 bytes, a slot has 3072"


def test_real_models_beside_a_fake_one(tmp_path: Path) -> None:
    models.tiny(tmp_path / "zoo", "classify")
    models.fake(tmp_path / "zoo", side=64)
    settings = config(
        tmp_path / "zoo",
        backend="onnxruntime",
        cache_dir=str(tmp_path / "cache"),
        model={"fake-classify": ModelConfig(backend="fake")},
    )
    for _ in range(2):  # the second time from the cache
        with WorkerProcess(settings, side=64) as process:
            gateway = process.ready()
            assert gateway.hello is not None
            assert {one.model: one.backend for one in gateway.hello.models} == {
                "tiny-classify": "onnxruntime/f32",
                "fake-classify": "fake/none",
            }
            answer = gateway.run(process.batch(models.images(3, 64), "tiny-classify"))
            assert isinstance(answer, Ran) and all(isinstance(one, Done) for one in answer.items)
            gateway.close()
    assert any(path.name.startswith("choice-") for path in (tmp_path / "cache").iterdir())


# --- models that come and go --------------------------------------------------------------------------------------


def unit(directory: Path, key: str) -> Unit:
    return Unit(key, directory.parent.name, str(directory))


@pytest.mark.parametrize("asked", [False, True])
def test_wide_batches_and_others_are_answered_alike(tmp_path: Path, asked: bool) -> None:
    zoo = tmp_path / "zoo"
    models.measured(models.tiny(zoo, "classify"), "onnxruntime/f32", 2, 0.5, tmp_path / "cache")
    changes = {"backend": "onnxruntime", "cache_dir": str(tmp_path / "cache"), "wide": asked}
    with WorkerProcess(config(zoo, **changes), side=64) as process:
        gateway = process.ready()
        assert gateway.hello is not None
        assert [timing.wide for timing in gateway.hello.models[0].timings] == [0.5 if asked else 1.0]
        images = list(models.images(3, 64))
        results = []
        for wide in (True, False):
            run = process.batch(images, "tiny-classify", top_k=len(models.LABELS))
            ran = gateway.run(msgspec.structs.replace(run, wide=wide))
            assert isinstance(ran, Ran)
            results.append([done.result for done in ran.items if isinstance(done, Done)])
        assert len(results[0]) == 3
        assert [told(one) for one in results[0]] == [told(one) for one in results[1]]
        gateway.close()


def told(result: object) -> list[tuple[int, float]]:
    assert isinstance(result, Classification)
    return [(one.index, round(one.score, 5)) for one in result.predictions]


def test_a_model_comes_and_goes_while_others_run(worker: WorkerProcess, gateway: Gateway, tmp_path: Path) -> None:
    gateway.channel.send(Load(unit(models.fake(tmp_path, name="new"), "new@1:aa")))
    image = pictures(1)[0]
    assert isinstance(gateway.run(worker.batch([image], CLASSIFY)), Ran), "it does not wait for what is loaded"
    told = gateway.answer()
    assert isinstance(told, LoadDone)
    assert (told.loaded.key, told.loaded.model, told.loaded.backend) == ("new@1:aa", "new", "fake/none")
    ran = gateway.run(worker.batch([image], "new@1:aa", top_k=1))
    assert isinstance(ran, Ran) and isinstance(ran.items[0], Done)
    gateway.channel.send(Load(unit(tmp_path / "new" / "1", "new@1:aa")))
    assert isinstance(gateway.answer(), LoadDone), "asked for again, it is there"
    gateway.channel.send(Unload("new@1:aa"))
    assert gateway.answer() == Unloaded("new@1:aa")
    gone = gateway.run(worker.batch([image], "new@1:aa"))
    assert isinstance(gone, Ran) and isinstance(gone.items[0], Undone) and gone.items[0].code == "unknown_model"
    gateway.channel.send(Unload("never there"))
    assert gateway.answer() == Unloaded("never there")


@pytest.mark.parametrize(
    ("command", "reason"),
    [("load-fails", "told to fail"), ("load-crashes", "crashed (SIGSEGV)"), ("warm-fails", "told to fail")],
)
def test_what_cannot_be_loaded_harms_nobody(
    worker: WorkerProcess, gateway: Gateway, tmp_path: Path, command: str, reason: str
) -> None:
    directory = models.fake(tmp_path, name="new")
    manifest.write(directory, msgspec.structs.replace(manifest.load(directory), training={"fake": command}))
    gateway.channel.send(Load(unit(directory, "new@1:aa")))
    told = gateway.answer()
    assert isinstance(told, LoadFailed) and reason in told.reason and "\n" not in told.reason
    assert isinstance(gateway.run(worker.batch(pictures(1), CLASSIFY)), Ran)


def test_a_version_that_changed_since_it_was_looked_at_is_refused(gateway: Gateway, tmp_path: Path) -> None:
    directory = models.fake(tmp_path, name="new")
    gateway.channel.send(Load(Unit("new@1:aa", "new", str(directory), "another digest")))
    told = gateway.answer()
    assert isinstance(told, LoadFailed) and "has changed since" in told.reason


def test_a_batch_in_work_keeps_its_model(worker: WorkerProcess, gateway: Gateway) -> None:
    run = worker.batch([sleeping(1.0)], CLASSIFY)
    gateway.send(run)
    # An engine that has begun with it gives another limit than one that rests.
    end = time.monotonic() + 30
    while all(pulse.read().limit == REST_LIMIT for pulse in worker.pulses):
        assert time.monotonic() < end
        time.sleep(0.01)
    gateway.channel.send(Unload(CLASSIFY))
    first, second = gateway.answer(), gateway.answer()
    assert isinstance(first, Ran) and isinstance(first.items[0], Done)
    assert second == Unloaded(CLASSIFY)
