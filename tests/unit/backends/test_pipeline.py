from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest

from service.backends.base import BackendError, Images, Inputs, Outputs
from service.backends.pipeline import BUCKETS, DEPTH, Device, Gate, Pipeline, bucket

SHAPE = (4, 4, 3)
LEVEL: Inputs = {"merge": np.array([1, 2])}
WAIT = 10.0


@dataclass
class Place:
    size: int
    images: Images = field(default_factory=lambda: np.zeros(0, np.uint8))
    sums: list[int] = field(default_factory=list)
    busy: bool = False


class Adder(Device[Place]):
    """Answers the sum of each image's pixels; remembers who did what where."""

    def __init__(self) -> None:
        self.threads: dict[str, set[int]] = {}
        self.sizes: list[int] = []
        self.pinned: list[int] = []
        self.closed = False
        self.fails: Exception | None = None

    def _seen(self, step: str) -> None:
        self.threads.setdefault(step, set()).add(threading.get_ident())

    def place(self, inputs: Inputs, size: int) -> Place:
        self._seen("place")
        self.sizes.append(size)
        return Place(size)

    def upload(self, place: Place, images: Images) -> None:
        self._seen("upload")
        assert not place.busy and len(images) == place.size
        place.busy = True
        place.images = images.copy()

    def compute(self, place: Place) -> None:
        self._seen("compute")
        if self.fails is not None:
            place.busy = False
            raise self.fails
        place.sums = [int(image.sum()) for image in place.images]

    def download(self, place: Place, items: int) -> Outputs:
        self._seen("download")
        place.busy = False
        return {"sums": np.array(place.sums[:items])}

    def pin(self, memory: Images) -> None:
        self.pinned.append(memory.nbytes)

    def close(self) -> None:
        self.closed = True


def images(count: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def sums(of: Images) -> list[int]:
    return [int(image.sum()) for image in of]


@pytest.mark.parametrize(("items", "size"), [(1, 1), (2, 2), (3, 4), (33, 64), (64, 64)])
def test_a_batch_is_padded_to_the_next_size(items: int, size: int) -> None:
    device = Adder()
    pipeline = Pipeline(device, SHAPE)
    assert pipeline.run(images(items), LEVEL)["sums"].tolist() == sums(images(items))
    assert device.sizes == [size] * DEPTH and bucket(items) == size
    pipeline.close()


def test_a_batch_larger_than_the_largest_runs_in_parts() -> None:
    device = Adder()
    pipeline = Pipeline(device, SHAPE)
    many = images(BUCKETS[-1] * 2 + 3)
    assert pipeline.run(many, LEVEL)["sums"].tolist() == sums(many)
    assert sorted(set(device.sizes)) == [4, BUCKETS[-1]]
    pipeline.close()


def test_callers_at_once_get_their_own_answers_from_places_of_their_own() -> None:
    device = Adder()
    pipeline = Pipeline(device, SHAPE)
    inputs = [images(1 + k % 5, seed=k) for k in range(60)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda one: pipeline.run(one, LEVEL)["sums"].tolist(), inputs))
    assert got == [sums(one) for one in inputs]
    assert len(device.threads["compute"]) == 1 and device.threads["compute"] == device.threads["place"]
    assert not device.threads["compute"] & device.threads["upload"]
    pipeline.close()


class Overlapping(Adder):
    """Ends the first computation when a second batch was uploaded, and the second when the first was downloaded."""

    def __init__(self) -> None:
        super().__init__()
        self.uploaded = [threading.Event() for _ in range(2)]
        self.downloaded = threading.Event()
        self._left = iter(self.uploaded)
        self._counting = threading.Lock()
        self._runs = 0
        self.met: list[bool] = []

    def upload(self, place: Place, images: Images) -> None:
        super().upload(place, images)
        with self._counting:
            next(self._left).set()

    def compute(self, place: Place) -> None:
        self._runs += 1
        self.met.append((self.uploaded[1] if self._runs == 1 else self.downloaded).wait(WAIT))
        super().compute(place)

    def download(self, place: Place, items: int) -> Outputs:
        self.downloaded.set()
        return super().download(place, items)


def test_the_next_batch_is_uploaded_and_the_last_downloaded_while_one_computes() -> None:
    device = Overlapping()
    pipeline = Pipeline(device, SHAPE)
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda seed: pipeline.run(images(2, seed), LEVEL)["sums"].tolist(), range(2)))
    assert device.met == [True, True]
    assert sorted(got) == sorted(sums(images(2, seed)) for seed in range(2))
    pipeline.close()


class Slow(Adder):
    """Computes for a while."""

    def compute(self, place: Place) -> None:
        time.sleep(0.2)
        super().compute(place)


def test_a_run_tells_what_the_device_took_for_it_and_not_how_long_it_waited() -> None:
    pipeline = Pipeline(Slow(), SHAPE)
    together = threading.Barrier(DEPTH)

    def run(seed: int) -> tuple[float, float]:
        together.wait(WAIT)
        begin = time.monotonic()
        pipeline.run(images(1, seed), LEVEL)
        return pipeline.seconds(), time.monotonic() - begin

    pipeline.prepare(LEVEL, 1)
    with ThreadPoolExecutor(DEPTH) as pool:
        found = list(pool.map(run, range(DEPTH)))
    assert all(0.2 <= own <= whole for own, whole in found)
    # Who came last waited for all before, which may have begun a little earlier.
    assert max(whole - own for own, whole in found) >= 0.2 * (DEPTH - 1.5)
    pipeline.close()


def test_a_place_is_free_again_after_a_failure() -> None:
    device = Adder()
    pipeline = Pipeline(device, SHAPE)
    device.fails = BackendError("oom", "out of memory")
    for _ in range(DEPTH + 1):
        with pytest.raises(BackendError, match="out of memory"):
            pipeline.run(images(1), LEVEL)
    device.fails = None
    assert pipeline.run(images(1), LEVEL)["sums"].tolist() == sums(images(1))
    pipeline.close()


def test_a_place_that_cannot_be_made_is_tried_again_next_time() -> None:
    device = Adder()
    pipeline = Pipeline(device, SHAPE)
    made, device.place = device.place, _refuse  # type: ignore[method-assign]
    with pytest.raises(BackendError, match="no room"):
        pipeline.run(images(1), LEVEL)
    assert not pipeline.prepared(LEVEL)
    device.place = made  # type: ignore[method-assign]
    pipeline.run(images(1), LEVEL)
    assert pipeline.prepared(LEVEL) and not pipeline.prepared({"merge": np.array([9, 9])})
    pipeline.close()


def _refuse(inputs: Inputs, size: int) -> Place:
    raise BackendError("oom", "no room")


def test_what_is_put_together_in_the_threads_own_memory_is_not_copied_again() -> None:
    device = Adder()
    pipeline = Pipeline(device, SHAPE)
    staged = pipeline.staging(3)
    staged[:] = images(3)
    assert pipeline.run(staged, LEVEL)["sums"].tolist() == sums(images(3))
    assert np.shares_memory(pipeline.staging(2), staged)
    assert device.pinned == [4 * int(np.prod(SHAPE))]
    pipeline.staging(5)
    assert len(device.pinned) == 2
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(pipeline.staging, 3).result()
        assert not np.shares_memory(other, pipeline.staging(3))
    pipeline.close()


def test_closing_gives_the_device_up_and_ends_its_thread() -> None:
    device = Adder()
    before = threading.active_count()
    pipeline = Pipeline(device, SHAPE)
    pipeline.run(images(1), LEVEL)
    pipeline.close()
    assert device.closed and threading.active_count() == before


def test_who_prepares_something_is_alone_and_users_pass_together() -> None:
    gate = Gate()
    inside, order = threading.Semaphore(0), list[str]()
    leave = threading.Event()

    def use() -> None:
        with gate.using():
            inside.release()
            leave.wait(WAIT)
            order.append("used")

    def prepare() -> None:
        with gate.alone():
            order.append("prepared")

    users = [threading.Thread(target=use) for _ in range(2)]
    for thread in users:
        thread.start()
    assert all(inside.acquire(timeout=WAIT) for _ in users)  # both at once
    alone = threading.Thread(target=prepare)
    alone.start()
    time.sleep(0.05)
    assert order == []
    leave.set()
    for thread in [*users, alone]:
        thread.join(WAIT)
    assert order == ["used", "used", "prepared"]
