"""One batch: from slots through the backend and the task to an answer for each item."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from service import log
from service.backends.base import BackendError, Images, Outputs
from service.tasks import raw, tokens
from service.wire.messages.decoder import Coded
from service.wire.messages.worker import Done, Ran, Run, RunFailed, Timing, Undone, Work
from service.wire.slots import Arena
from service.worker.coded import Unpacker
from service.worker.doubt import Doubt
from service.worker.guard import Guard
from service.worker.load import Model
from service.worker.shelf import Shelf

PREPARE_SECONDS = 60.0
"""For the first batch at a level that the backend is not prepared for, which compiles."""

Answered = Done | Undone


class Bench:
    """What engine threads work with."""

    def __init__(self, pixels: Arena, shelf: Shelf, unpacker: Unpacker | None = None) -> None:
        self._pixels = pixels
        self._shelf = shelf
        self._unpacker = unpacker
        self._doubt = Doubt()

    def run(self, run: Run, guard: Guard) -> Ran | RunFailed:
        """Run one batch. An item that fails alone is undone alone.

        Raises BackendError of kind `fatal` only, after which the process must end.
        """
        with self._shelf.use(run.model) as model:
            return self._run_on(model, run, guard)

    def _run_on(self, model: Model | None, run: Run, guard: Guard) -> Ran | RunFailed:
        timing = model.timing(run.level) if model else None
        if model is None or timing is None:
            code = "unknown_model" if model is None else "unknown_level"
            undone = [_undone(work, code, "this worker does not serve it") for work in run.items]
            return Ran(run.batch, [*undone], 0.0, 0.0)
        if model.backend.prepared(run.level):
            guard.run(timing, len(run.items))
        else:
            guard.load(PREPARE_SECONDS)
        try:
            return self._computed(run, model, timing, guard)
        except MemoryError:
            return RunFailed(run.batch, "oom")
        except BackendError as error:
            if error.kind == "fatal":
                raise
            log.event("batch_failed", severity="warning", model=run.model, items=len(run.items), reason=str(error))
            if error.kind == "oom":
                return RunFailed(run.batch, "oom")
        except Exception as error:  # a bug of ours: whoever dispatches finds the item that brings it out
            name = type(error).__name__
            log.event(
                "batch_failed", severity="error", model=run.model, items=len(run.items), error=name, reason=str(error)
            )
        self._doubt.failed(run.model, model, run.level, guard)
        return RunFailed(run.batch, "batch")

    def _computed(self, run: Run, model: Model, timing: Timing, guard: Guard) -> Ran:
        begun = time.monotonic()
        coded = sum(work.coded is not None for work in run.items)
        if coded:
            guard.decode(coded)
        works, images, answers = self._gather(run.items, model)
        infer = post = decode = 0.0
        if coded:
            decode = time.monotonic() - begun
            guard.run(timing, len(works))
        while works:
            before = time.monotonic()
            try:
                outputs = model.backend.run(images, run.level, wide=run.wide)
            except BackendError as error:
                infer += model.backend.seconds(time.monotonic() - before)
                works, images = _without_guilty(error, works, images, answers)
                guard.run(timing, len(works))
                continue
            ran = time.monotonic()
            self._doubt.passed(run.model)
            for number, work in enumerate(works):
                guard.result()
                answers.append(_result(model, work, outputs, number))
            infer += model.backend.seconds(ran - before)
            post = time.monotonic() - ran
            break
        return Ran(run.batch, answers, infer, post, decode)

    def _gather(self, items: Sequence[Work], model: Model) -> tuple[list[Work], Images, list[Answered]]:
        """The items that have an image, their images [n, H, W, 3], and the answers of those that have none."""
        transform = model.manifest.transform
        shape = (transform.height, transform.width, 3)
        works: list[Work] = []
        views: list[memoryview] = []
        answers: list[Answered] = []
        for work in items:
            try:
                views.append(self._pixels.view(work.slot))
            except IndexError:
                answers.append(_undone(work, "internal", "the image was lost"))
                continue
            works.append(work)
        decoded = self._decoded(works, views)
        refused = [work for work in works if work.coded is not None and decoded.get(work.id) is None]
        answers += [_undone(work, "undecodable_image", "the image is corrupt or incomplete") for work in refused]
        pixels = [
            None if work.coded else np.frombuffer(view[: model.image_bytes], np.uint8).reshape(shape)
            for work, view in zip(works, views, strict=True)
            if work not in refused
        ]
        works = [work for work in works if work not in refused]
        if len(pixels) == 1 and pixels[0] is not None:
            # Read where it lies: nobody is given the slot before this batch is answered.
            return works, pixels[0][None], answers
        images = model.backend.staging(len(pixels))
        for canvas, one in zip(images, pixels, strict=True):
            if one is not None:
                canvas[:] = one
        if self._unpacker is not None and decoded:
            placed = zip(works, images, strict=True)
            coded = [(decoded[work.id], work.coded, canvas) for work, canvas in placed if work.coded]
            self._unpacker.fit(coded, transform)
        return works, images, answers

    def _decoded(self, works: Sequence[Work], views: Sequence[memoryview]) -> dict[int, Any]:
        """By item, the pixels on the device of images that came coded; None for those that it refuses."""
        ids: list[int] = []
        asked: list[tuple[bytes, Coded]] = []
        for work, view in zip(works, views, strict=True):
            if work.coded is not None:
                ids.append(work.id)
                # A copy: what was judged must not change while it is decoded.
                asked.append((bytes(view[: work.coded.size]), work.coded))
        if not asked or self._unpacker is None:
            return {}
        return dict(zip(ids, self._unpacker.decode(asked), strict=True))


def _without_guilty(
    error: BackendError, works: list[Work], images: Images, answers: list[Answered]
) -> tuple[list[Work], Images]:
    """The batch without the items an error names, which are answered; any other error is raised again."""
    guilty = {index for index in error.items if 0 <= index < len(works)}
    if error.kind != "item" or not guilty:
        raise error
    answers.extend(
        _undone(works[index], "unprocessable_image", "the model cannot process this image") for index in sorted(guilty)
    )
    kept = [index for index in range(len(works)) if index not in guilty]
    return [works[index] for index in kept], images[kept]


def _result(model: Model, work: Work, outputs: Outputs, number: int) -> Answered:
    try:
        own = {name: outputs[name][number] for name in model.task.outputs}
        result = model.task.result(own, work.geometry, work.options)
        groups = None
        if work.options.explain:
            groups = tokens.token_map(outputs[tokens.OUTPUT][number], model.manifest.transform)
        return Done(work.id, work.generation, result, groups, raw.tensors(outputs, number, work.options.raw))
    except MemoryError:
        raise
    except Exception as error:  # whatever one image's outputs do to a task, its neighbours get their answers
        name = type(error).__name__
        log.event("item_failed", severity="error", model=model.manifest.name, error=name, reason=str(error))
        return _undone(work, "internal", "the model's answer cannot be read")


def _undone(work: Work, code: str, message: str) -> Undone:
    return Undone(work.id, work.generation, code, message)
