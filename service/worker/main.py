"""The worker: batches of decoded images in, results out.

The main thread reads the control channel and the data channel and queues batches; each engine thread takes one at a
time, gathers its images from their slots, runs the model, and answers. Nothing in here decides what runs when: that
is up to whoever dispatches.
"""

from __future__ import annotations

import queue
import select
import threading
from typing import NamedTuple

from models.manifest import ManifestError
from service import child, log
from service.backends import arrays
from service.backends.base import BackendError
from service.config import CPU
from service.errors import ConfigError, WireError
from service.wire.messages.control import Attach, Drain, Failed, Ready
from service.wire.messages.worker import Hello, Run
from service.wire.pulse import REST
from service.worker.batch import Bench
from service.worker.codec import Codec
from service.worker.coded import Unpacker
from service.worker.guard import Guard
from service.worker.link import Link
from service.worker.load import load_all
from service.worker.loading import Loader, Told
from service.worker.shelf import Shelf

AHEAD = 1
"""Batches that a device has besides the one that runs: without, it waits; a second adds nothing but latency
(`python -m tests.bench.ahead`)."""
FATAL_STATUS = 70
"""Exit status after a failure that has spoilt the process."""


class Job(NamedTuple):
    """A batch and the link it came by."""

    link: Link
    run: Run


class Worker:
    """The process's state; `serve` is its main thread."""

    def __init__(self, birth: child.Birth) -> None:
        self._birth = birth
        self._device = birth.config.device(birth.start.index)
        self._guards = [Guard(birth.pulse(number)) for number in range(birth.config.threads)]
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._link: Link | None = None
        self._link_number = -1
        self._control_number = birth.control.fileno()
        self._poll = select.poll()
        self._poll.register(self._control_number, select.POLLIN)
        self._shelf = Shelf()
        self._loader: Loader | None = None
        self._unpacker: Unpacker | None = None

    def load(self) -> None:
        """Load every model; raises ConfigError or ManifestError."""
        start, config = self._birth.start, self._birth.config
        if config.decode_on == "device":
            self._loading()
            self._unpacker = _unpacker(self._device)
        self._shelf = Shelf(
            load_all(
                config,
                start.units,
                start.pixel_slot_bytes,
                self._loading,
                again=start.again,
                device=self._device,
            )
        )

    def serve(self) -> None:
        """Serve until told to drain; raises WireError when the supervisor is gone."""
        bench = Bench(self._birth.pixels, self._shelf, self._unpacker)
        self._loader = Loader(
            self._birth.config, self._device, self._birth.start.pixel_slot_bytes, self._shelf, self._tell
        )
        threads = [
            threading.Thread(target=self._engine, args=(guard, bench), name=f"engine {number}", daemon=True)
            for number, guard in enumerate(self._guards)
        ]
        for thread in threads:
            thread.start()
        self._birth.control.send(Ready())
        while self._turn():
            pass
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            thread.join()

    def _turn(self) -> bool:
        """Wait for messages and take them; False when told to drain."""
        control, link = self._birth.control, self._link
        readable = {descriptor for descriptor, _ in self._poll.poll()}
        if link is not None and self._link_number in readable:
            self._receive(link)
        if self._control_number in readable and (received := control.receive()) is not None:
            message, descriptors = received
            if isinstance(message, Drain):
                return False
            if isinstance(message, Attach) and len(descriptors) == 1:
                self._attach(descriptors[0])
        return True

    def _receive(self, link: Link) -> None:
        try:
            for message in link.receive():
                if isinstance(message, Run):
                    self._jobs.put(Job(link, message))
                elif self._loader is not None:
                    self._loader.add(message)
        except WireError as error:
            # It is so at every clean stop too; of a death the supervisor tells.
            log.event("gateway_lost", severity="debug", reason=str(error))
            self._detach(link)

    def _detach(self, link: Link) -> None:
        self._poll.unregister(self._link_number)
        link.cut()
        self._link = None

    def _attach(self, descriptor: int) -> None:
        if self._link is not None:
            self._detach(self._link)
        self._link = Link(descriptor)
        self._link_number = self._link.fileno()
        self._poll.register(self._link_number, select.POLLIN)
        config = self._birth.config
        loaded = [model.loaded() for model in self._shelf.all()]
        # On a device the threads take turns: what is sent ahead is uploaded while the batch before it computes.
        engines, ahead = (config.threads, 0) if self._device == CPU else (1, AHEAD)
        self._link.send(Hello(engines, config.max_batch, loaded, ahead))

    def _tell(self, told: Told) -> None:
        """Tell whoever dispatches now what came of a Load or Unload."""
        link = self._link
        if link is not None:
            link.send(told)

    def _loading(self) -> None:
        """Between two steps of loading: show life, and hear the supervisor."""
        for guard in self._guards:
            guard.load(self._birth.config.load_seconds)
        received = self._birth.control.receive(timeout=0)
        if received is not None and isinstance(received[0], Drain):
            child.leave()

    def _engine(self, guard: Guard, bench: Bench) -> None:
        """One engine thread. Whatever ends it ends the process, for nobody would answer what it has taken."""
        try:
            self._serve(guard, bench)
        except BaseException as error:
            log.event("engine_died", severity="error", trace=log.frames(error))
            child.leave(FATAL_STATUS)

    def _serve(self, guard: Guard, bench: Bench) -> None:
        """Batch after batch, until told to end."""
        while True:
            guard.rest()
            try:
                job = self._jobs.get(timeout=REST)
            except queue.Empty:
                continue
            if job is None:
                guard.done()
                return
            if job.link.cut_off:
                continue
            try:
                answer = bench.run(job.run, guard)
            except BackendError as error:
                log.event("fatal", severity="error", model=job.run.model, reason=str(error))
                child.leave(FATAL_STATUS)
            guard.send()
            job.link.send(answer)


def _unpacker(device: str) -> Unpacker:
    """What decodes images on the device. Raises ConfigError."""
    codec, there = Codec(device), arrays.on(device)
    # What a GPU has decoded, and the CPU resamples, is slower than it was without.
    slow = device != CPU and not there.on_device
    severity: log.Severity = "warning" if slow else "info"
    log.event("decoding_on_device", severity=severity, device=device, resampled_by=there.name)
    return Unpacker(codec, there)


def main() -> None:
    """The process."""
    birth = child.begin(pixels_writable=False, bodies_writable=False)
    log.configure(birth.config.log_level, process=f"worker {birth.start.index}")
    worker = Worker(birth)
    try:
        try:
            worker.load()
        except (ConfigError, ManifestError) as error:
            birth.control.send(Failed(str(error)))
            child.leave(1)
        worker.serve()
    except WireError:
        child.leave()
    child.leave()


if __name__ == "__main__":
    main()
