"""A device that takes its work by streams: whoever has something done there waits for nothing but the answers.

There are three streams, for uploads, for computing and for downloads; what is put on one happens in order, and beside
the others. A mark on one holds another back where a batch goes over. So a batch is put behind the one that computes as
soon as its pixels are on their way, and between two batches the device waits for nobody.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.backends.base import Images, Inputs, Outputs
from service.backends.failure import in_our_words
from service.backends.pipeline import Device


class Mark(Protocol):
    """A point on a stream, reached when all that was put there before is done."""

    def wait(self) -> None:
        """Until it is reached, without keeping other threads from running."""

    def since(self, earlier: Any) -> float:
        """Seconds from an earlier mark on the same stream to this one, both reached."""


class Stream(Protocol):
    """Work on a device in order. Nothing here waits."""

    def put(self, step: Callable[[], None]) -> None:
        """Have a step done behind what was put here before."""

    def mark(self) -> Any:
        """A Mark: the point behind all that was put here so far."""

    def after(self, mark: Any) -> None:
        """What is put here from now on begins when the mark is reached."""


@dataclass(slots=True)
class Place:
    """What a batch of one size and level has: `images` and what `compute` makes of them on the device, and `host`, the
    memory that outputs come down to, by name [size, ...]. `bring(images)` is the upload, `compute()` the network,
    `fetch()` the download; each is put on a stream."""

    host: dict[str, NDArray[Any]]
    bring: Callable[[Images], None]
    compute: Callable[[], None]
    fetch: Callable[[], None]
    marks: dict[str, Any] = field(default_factory=dict)


class Card(ABC):
    """What has streams, and places for batches."""

    @abstractmethod
    def stream(self) -> Stream:
        """Another one."""

    @abstractmethod
    def place(self, inputs: Inputs, size: int) -> Place:
        """Buffers for a batch, with everything captured. Raises BackendError, or what the library raises."""

    @abstractmethod
    def begin(self) -> None:
        """Have the calling thread's work go to this device."""

    @abstractmethod
    def pin(self, memory: Images) -> None:
        """As Device.pin."""

    @abstractmethod
    def close(self) -> None:
        """As Device.close."""


class Streamed(Device[Place]):
    """A card as a device of the pipeline."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._streams: dict[str, Stream] = {}

    def place(self, inputs: Inputs, size: int) -> Place:
        """One more, on the computing thread."""
        with in_our_words():
            self._card.begin()
            for name in ("up", "compute", "down"):
                if name not in self._streams:
                    self._streams[name] = self._card.stream()
            return self._card.place(inputs, size)

    def upload(self, place: Place, images: Images) -> None:
        """Returns before it is done, if the device can read the images by itself."""
        with in_our_words():
            self._card.begin()
            up = self._streams["up"]
            up.put(lambda: place.bring(images))
            place.marks["uploaded"] = up.mark()

    def compute(self, place: Place) -> None:
        """Returns at once: the next batch is put behind this one. The download is, too, here, where batches come in the
        order in which they compute: else it could stand behind that of a later one."""
        with in_our_words():
            stream, down = self._streams["compute"], self._streams["down"]
            stream.after(place.marks["uploaded"])
            place.marks["began"] = stream.mark()
            stream.put(place.compute)
            place.marks["computed"] = stream.mark()
            down.after(place.marks["computed"])
            down.put(place.fetch)
            place.marks["fetched"] = down.mark()

    def download(self, place: Place, items: int) -> Outputs:
        """Waits for the batch, and copies: the memory is written again by the next one."""
        with in_our_words():
            place.marks["fetched"].wait()
            return {name: np.array(values[:items]) for name, values in place.host.items()}

    def seconds(self, place: Place) -> float:
        """By the device's own clock."""
        with in_our_words():
            taken: float = place.marks["computed"].since(place.marks["began"])
            return taken

    def pin(self, memory: Images) -> None:
        """As the card does."""
        self._card.pin(memory)

    def close(self) -> None:
        """As the card does."""
        self._streams.clear()
        self._card.close()
