"""What each worker has loaded, and getting one unit more into all of them.

A unit counts as loaded once every worker that is attached has it; a worker that comes back is brought to the same
state. What fails in one worker is given up in all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from service.wire.messages.control import Unit
from service.wire.messages.worker import Load, LoadDone, LoadFailed, Unload, Unloaded

_TURN = 0.02
STRIKES = 2
"""Workers that died while they loaded a unit, after which it is taken to be the reason."""


class LoadError(Exception):
    """A unit cannot be served. `outcome` is a word for metrics; the message is for the operator's log."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class _Loading:
    """A unit on its way into the workers."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.strikes = 0

    def fail(self, outcome: str, message: str) -> None:
        if not self.done.done():
            self.done.set_exception(LoadError(outcome, message))


class Holdings:
    """`send` sends a message to a worker; `wanted` is what workers are started with."""

    def __init__(self, send: Callable[[int, Load | Unload], None], wanted: Iterable[Unit] = ()) -> None:
        self._send = send
        self.missed: Callable[[str], None] = lambda key: None
        """Told of a unit that served and that no worker can load again."""
        self.greeted: Callable[[], None] = lambda: None
        """Told when a worker has said what it has."""
        self._wanted = {unit.key: unit for unit in wanted if not unit.resting}
        self._loading: dict[str, _Loading] = {}
        self._held: dict[int, set[str]] = {}
        self._early: dict[int, set[str]] = {}
        self._leaving: dict[str, set[int]] = {}
        """Units that workers were told to give up, and the workers that have not done so yet."""

    # -- what the repository wants -----------------------------------------------------------------------------

    def loading(self, key: str) -> bool:
        """The unit is on its way into the workers."""
        return key in self._loading

    def everywhere(self, key: str) -> bool:
        """Every worker has it, and there is one."""
        return bool(self._held) and all(key in held for held in self._held.values())

    async def load(self, unit: Unit, seconds: float) -> None:
        """Have every worker load it, in so many seconds. Raises LoadError; then no worker has it."""
        self._wanted[unit.key] = unit
        loading = self._loading[unit.key] = _Loading()
        try:
            for worker, held in self._held.items():
                if unit.key not in held:
                    self._send(worker, Load(unit))
            self._look(unit.key)
            await asyncio.wait_for(asyncio.shield(loading.done), seconds)
        except TimeoutError:
            self._give_up(unit.key)
            raise LoadError("timeout", f"not loaded within {seconds:g} s") from None
        except BaseException:
            self._give_up(unit.key)
            raise
        finally:
            del self._loading[unit.key]
            if loading.done.done():
                loading.done.exception()

    async def unload(self, key: str, seconds: float) -> None:
        """Have every worker give it up, and wait until they have, for so many seconds at most."""
        self._give_up(key)
        until = asyncio.get_running_loop().time() + seconds
        while key in self._leaving and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(_TURN)

    # -- what workers say --------------------------------------------------------------------------------------

    def hello(self, worker: int, keys: Iterable[str]) -> None:
        """A worker is attached and has these units."""
        self._forget(worker)
        held = self._held[worker] = set(keys)
        for key, unit in self._wanted.items():
            if key not in held:
                self._send(worker, Load(unit))
        for key in (held | self._early.pop(worker, set())) - self._wanted.keys():
            held.discard(key)
            self._tell_to_leave(worker, key)
        for key in [*self._loading]:
            self._look(key)
        self.greeted()

    def lost(self, worker: int) -> None:
        """A worker is gone; what it was loading may be why."""
        held = self._held.pop(worker, None)
        self._early.pop(worker, None)
        self._forget(worker)
        if held is None:
            return
        for key, loading in [*self._loading.items()]:
            loading.strikes += key not in held
            if loading.strikes >= STRIKES:
                loading.fail("crashed", "workers died while they loaded it")
            self._look(key)

    def said(self, worker: int, message: LoadDone | LoadFailed | Unloaded) -> bool:
        """What came of a Load or Unload; true when the worker serves one unit more."""
        if isinstance(message, LoadDone):
            return self._loaded(worker, message.loaded.key)
        if isinstance(message, LoadFailed):
            loading = self._loading.get(message.key)
            if loading is not None:
                loading.fail("load", message.reason)
            elif message.key in self._wanted and not any(message.key in held for held in self._held.values()):
                self._give_up(message.key)
                self.missed(message.key)
        else:
            self._has_left(worker, message.key)
        return False

    # -- inside ------------------------------------------------------------------------------------------------

    def _loaded(self, worker: int, key: str) -> bool:
        held = self._held.get(worker)
        if held is None:
            # It was loaded while whoever dispatches changed; the worker's Hello is yet to come.
            self._early.setdefault(worker, set()).add(key)
            return False
        if worker in self._leaving.get(key, ()):
            return False
        if key not in self._wanted:
            self._tell_to_leave(worker, key)
            return False
        held.add(key)
        self._look(key)
        return True

    def _look(self, key: str) -> None:
        """Whether it is loaded by now."""
        loading = self._loading.get(key)
        if loading is not None and not loading.done.done() and self.everywhere(key):
            loading.done.set_result(None)

    def _give_up(self, key: str) -> None:
        """It is not wanted any more. A worker that is still loading it gives it up when it has it."""
        self._wanted.pop(key, None)
        for worker, held in self._held.items():
            if key in held:
                held.discard(key)
                self._tell_to_leave(worker, key)

    def _tell_to_leave(self, worker: int, key: str) -> None:
        """What it says of the unit before it says that it has given it up is out of date."""
        self._leaving.setdefault(key, set()).add(worker)
        self._send(worker, Unload(key))

    def _has_left(self, worker: int, key: str) -> None:
        workers = self._leaving.get(key, set())
        workers.discard(worker)
        if not workers:
            self._leaving.pop(key, None)

    def _forget(self, worker: int) -> None:
        for key in [*self._leaving]:
            self._has_left(worker, key)
