"""Batches on a device with streams: here each stream is a thread that does what is put on it later, in order, so that a
copy which waits for nobody writes over what another still reads."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from service.backends.base import BackendError, Images, Inputs
from service.backends.pipeline import DEPTH, Pipeline
from service.backends.streamed import Card, Place, Streamed

SHAPE = (4, 4, 3)
SIZES = (1, 4)
LEVEL: Inputs = {"merge": np.array([1, 2])}
WAIT = 10.0


class Point:
    def __init__(self) -> None:
        self.reached = threading.Event()
        self.seconds = 0.0

    def pass_by(self) -> None:
        self.seconds = time.monotonic()
        self.reached.set()

    def wait(self) -> None:
        assert self.reached.wait(WAIT)

    def since(self, earlier: Point) -> float:
        assert self.reached.is_set() and earlier.reached.is_set()
        return self.seconds - earlier.seconds


class Later:
    """A stream whose work is done by a thread of its own."""

    def __init__(self) -> None:
        self._steps: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (step := self._steps.get()) is not None:
            step()

    def put(self, step: Callable[[], None]) -> None:
        self._steps.put(step)

    def mark(self) -> Point:
        point = Point()
        self._steps.put(point.pass_by)
        return point

    def after(self, mark: Point) -> None:
        self._steps.put(mark.wait)

    def end(self) -> None:
        self._steps.put(None)
        self._thread.join(WAIT)


class Sums(Card):
    """Answers the sum of each image's pixels, after `computing` has let it."""

    def __init__(self, computing: Callable[[int], None] = lambda number: None) -> None:
        self.streams: list[Later] = []
        self.brought = [threading.Event() for _ in range(DEPTH)]
        self.fetched = threading.Event()
        self.pinned: list[int] = []
        self.made = 0
        self._computing = computing
        self._runs = 0
        self._uploads = 0

    def stream(self) -> Later:
        self.streams.append(Later())
        return self.streams[-1]

    def begin(self) -> None: ...

    def place(self, inputs: Inputs, size: int) -> Place:
        self.made += 1
        images = np.zeros((size, *SHAPE), np.uint8)
        there, host = np.zeros(size, np.int64), np.zeros(size, np.int64)

        def bring(given: Images) -> None:
            images[:] = 0
            time.sleep(0.001)
            images[:] = given
            if self._uploads < DEPTH:
                self.brought[self._uploads].set()
            self._uploads += 1

        def compute() -> None:
            self._runs += 1
            self._computing(self._runs)
            there[:] = -1
            time.sleep(0.001)
            there[:] = images.reshape(size, -1).sum(1)

        def fetch() -> None:
            self.fetched.set()
            time.sleep(0.001)
            host[:] = there

        return Place({"sums": host}, bring, compute, fetch)

    def pin(self, memory: Images) -> None:
        self.pinned.append(memory.nbytes)

    def close(self) -> None:
        for stream in self.streams:
            stream.end()


def images(count: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def at_once(pipeline: Pipeline[Any]) -> list[list[int]]:
    """One image from each of as many callers as there are places, who have their memory before any of them begins."""
    together = threading.Barrier(DEPTH)

    def run(seed: int) -> list[int]:
        pipeline.staging(1)
        together.wait(WAIT)
        found: list[int] = pipeline.run(images(1, seed), LEVEL)["sums"].tolist()
        return found

    pipeline.prepare(LEVEL, 1)
    with ThreadPoolExecutor(DEPTH) as pool:
        return list(pool.map(run, range(DEPTH)))


def sums(of: Images) -> list[int]:
    return [int(image.sum()) for image in of]


@pytest.fixture
def opened() -> Iterator[Callable[[Sums], Pipeline[Any]]]:
    pipelines: list[Pipeline[Any]] = []

    def open_one(card: Sums) -> Pipeline[Any]:
        pipelines.append(Pipeline(Streamed(card), SHAPE, SIZES))
        return pipelines[-1]

    yield open_one
    for pipeline in pipelines:
        pipeline.close()


def test_every_caller_gets_its_own_answers(opened: Callable[[Sums], Pipeline[Any]]) -> None:
    pipeline = opened(Sums())
    given = [images(1 + k % 9, seed=k) for k in range(60)]

    def run(one: Images) -> list[int]:
        staged = pipeline.staging(min(len(one), SIZES[-1]))
        if len(one) <= SIZES[-1]:
            staged[:] = one
            one = staged
        found: list[int] = pipeline.run(one, LEVEL)["sums"].tolist()
        return found

    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(run, given))
    assert got == [sums(one) for one in given]


def test_uploads_and_downloads_go_on_while_a_batch_computes(opened: Callable[[Sums], Pipeline[Any]]) -> None:
    """The first computation ends when all other batches were uploaded, the second when the first was downloaded."""
    met: list[bool] = []

    def until(number: int) -> None:
        event = card.brought[-1] if number == 1 else card.fetched
        met.append(event.wait(WAIT))

    card = Sums(until)
    pipeline = opened(card)
    got = at_once(pipeline)
    assert met == [True] * DEPTH
    assert got == [sums(images(1, seed)) for seed in range(DEPTH)]


def test_the_next_batch_is_handed_over_before_the_last_has_computed() -> None:
    """So the device goes from one to the next without asking anybody."""
    go, waited = threading.Event(), list[bool]()
    card = Sums(lambda number: waited.append(go.wait(WAIT)))
    handed: list[int] = []

    class Watched(Streamed):
        def compute(self, place: Place) -> None:
            super().compute(place)
            handed.append(len(handed))
            if len(handed) == DEPTH:
                go.set()

    device = Watched(card)
    pipeline = Pipeline(device, SHAPE, SIZES)
    got = at_once(pipeline)
    assert waited == [True] * DEPTH and handed == list(range(DEPTH))
    assert got == [sums(images(1, seed)) for seed in range(DEPTH)]
    pipeline.close()


def test_a_run_tells_what_it_computed_by_the_devices_clock(opened: Callable[[Sums], Pipeline[Any]]) -> None:
    pipeline = opened(Sums(lambda number: time.sleep(0.2)))
    together = threading.Barrier(DEPTH)

    def run(seed: int) -> tuple[float, float]:
        pipeline.staging(1)
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


def test_batches_are_filled_up_to_the_sizes_that_there_are(opened: Callable[[Sums], Pipeline[Any]]) -> None:
    card = Sums()
    pipeline = opened(card)
    assert pipeline.run(images(2), LEVEL)["sums"].tolist() == sums(images(2))
    assert card.made == DEPTH and card.pinned == [SIZES[-1] * int(np.prod(SHAPE))]
    assert not pipeline.prepared(LEVEL)
    assert pipeline.run(images(9), LEVEL)["sums"].tolist() == sums(images(9))
    assert pipeline.prepared(LEVEL)


def test_what_the_library_says_comes_in_our_words(opened: Callable[[Sums], Pipeline[Any]]) -> None:
    class Short(Sums):
        def place(self, inputs: Inputs, size: int) -> Place:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(BackendError, match="out of memory") as found:
        opened(Short()).run(images(1), LEVEL)
    assert found.value.kind == "oom"
