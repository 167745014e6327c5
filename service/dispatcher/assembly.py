"""The dispatching side of the service, put together: core and engine, the models, and all that is counted.

With one gateway it is in that gateway's process, and reached by plain calls; with several it is a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from service import child
from service.core.dispatch import Dispatcher
from service.dispatcher.catalogue import Catalogue
from service.dispatcher.counting import Counting
from service.dispatcher.engine import Engine
from service.dispatcher.pool import Pool
from service.dispatcher.repository import Repository
from service.dispatcher.triton_metrics import Named, TritonMetrics
from service.dispatcher.turnover import Notes, Turnover
from service.metrics import Metrics, Now
from service.version import VERSION
from service.wire.messages.control import Attach, Control, Current, Late, Lost, Reload, Restarts, Role


class Assembly:
    """See the module."""

    def __init__(self, birth: child.Birth) -> None:
        config = birth.config
        self._config = config
        self._control = birth.control
        self.leaving: Callable[[], bool] = lambda: False
        """The service is shutting down."""
        self.changed: Callable[[], None] = lambda: None
        """Told when something else is served."""
        self.metrics = Metrics(VERSION)
        notes = Notes.read(birth.start.notes)
        self.catalogue = Catalogue(config, birth.start.units, notes.policies)
        self.pool = Pool(self._replace)
        slot_bytes = birth.start.pixel_slot_bytes
        self.engine = Engine(
            Dispatcher(config.limits.in_flight),
            self.catalogue,
            self.pool,
            birth.pixels,
            birth.bodies,
            self.metrics,
            config.limits,
            slot_bytes if config.decode_on == "device" else 0,
        )
        self.turnover = Turnover(config, self.catalogue, self.engine, self.metrics, slot_bytes, self._current, notes)
        self.repository = Repository(config, self.catalogue, self.engine, self.metrics, self.turnover)
        self.triton: TritonMetrics | None = None
        if config.metrics_compat == "triton":
            self.triton = TritonMetrics(self.engine.statistics, self._pending)
            self.metrics.add(self.triton.render)
        self.counting = Counting(self.metrics, self.engine.statistics, self.triton, self.catalogue)
        self.ledger = self.counting
        self.metrics.watch(self._now)

    def begin(self) -> None:
        """From here on the models on disk are looked at."""
        self.repository.begin()

    async def connected(self) -> None:
        """Nothing is waited for: what is asked before a worker is there is refused."""

    async def attach(self, message: Attach, descriptor: int) -> None:
        """A data channel to a decoder or worker."""
        await self.engine.attach(message.role, message.index, descriptor)

    def heed(self, message: Control) -> None:
        """What the supervisor tells of the other processes, or of the models."""
        if isinstance(message, Restarts):
            self.metrics.restarted(message.counts)
        elif isinstance(message, Late):
            self.engine.late = frozenset(message.workers)
        elif isinstance(message, Reload):
            self.repository.look_again()

    def leave(self) -> None:
        """The service is shutting down; whatever is asked from here on reads `leaving`."""

    def _replace(self, role: Role, index: int) -> None:
        """Have the supervisor end a peer that cannot be trusted any more; another takes its place."""
        self._control.send(Lost(role, index))

    def _current(self, current: Current) -> None:
        self.changed()
        self._control.send(current)

    def _pending(self) -> dict[Named, int]:
        """Every version that is loaded, and its images that no engine has begun with."""
        pending = self.engine.pending()
        return {
            (entry.manifest.name, entry.manifest.version): pending.get(entry.key, 0)
            for entry in self.catalogue.all_entries()
            if entry.loaded is not None
        }

    def _now(self) -> Now:
        engine, config = self.engine, self._config
        return Now(
            ready=not self.leaving() and self.catalogue.complete() and engine.ready(),
            in_flight=engine.in_flight,
            queued=engine.queued,
            engines=engine.engines,
            decoders=engine.decoders,
            workers={(f"{index}", config.device(index)): index in engine.workers for index in range(config.workers)},
            delays={name: engine.queue_delay(entry) for name, entry in self.catalogue.entries.items()},
            steps_down=engine.steps_down(),
            traces=self.counting.all_traces(),
        )
