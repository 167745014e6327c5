"""What `make gpu-check` does: its steps, how long each may take, and what is asked of a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

Status = Literal["done", "cannot", "failed", "late"]


class Cannot(Exception):
    """A step cannot be carried out here; the message is one line that says why."""


class Network(msgspec.Struct, frozen=True):
    """A timm network as it is measured: `name` is what its artefact is called, `levels` named ones below `full`."""

    name: str
    timm: str
    side: int
    levels: dict[str, str]
    batches: tuple[int, ...]
    """Of the bare engine."""
    served: bool = True


class Settings(msgspec.Struct, frozen=True):
    """One run. `small` carries everything out with tiny networks in seconds: so the script itself is tested."""

    out: str
    device: str
    backend: str
    small: bool = False
    serve: tuple[str, ...] = ()
    """Further flags for `squint serve`."""
    work: str = ""
    """Where what is made on the way is kept, if not where the report goes."""
    models: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    """These alone, of all that there are; `full` is always measured."""
    limit: float = 0.0
    """Seconds that a step may take, if less than its own."""

    @property
    def folder(self) -> Path:
        """Where what is made on the way goes: artefacts, caches, logs, what came of each step."""
        return Path(self.work or self.out)

    def chosen(self, name: str) -> bool:
        """Whether a model is among those that this run is about."""
        return not self.models or name in self.models

    def remembered(self, step: str) -> dict[str, Any]:
        """What an earlier run of a step, with the same sources on the same device, came to know."""
        try:
            found: dict[str, Any] = msgspec.json.decode((self.folder / f"{step}.answer.json").read_bytes(), type=dict)
        except (OSError, msgspec.MsgspecError):
            return {}
        return found

    @property
    def zoo(self) -> Path:
        """The artefacts of the networks."""
        return self.folder / "zoo"

    @property
    def networks(self) -> tuple[Network, ...]:
        """What is measured."""
        return tuple(self._narrowed(one) for one in (TINY if self.small else LARGE) if self.chosen(one.name))

    def _narrowed(self, network: Network) -> Network:
        levels = {name: at for name, at in network.levels.items() if not self.levels or name in self.levels}
        return msgspec.structs.replace(network, levels=levels, batches=self.batches or network.batches)

    @property
    def seconds(self) -> float:
        """Of one point under load."""
        return 2.0 if self.small else 20.0

    @property
    def scenes(self) -> int:
        """Images that PyTorch is asked about."""
        return 6 if self.small else 64


LARGE = (
    Network(
        name="vit-b",
        timm="vit_base_patch16_224",
        side=224,
        levels={"high": "tome:8", "balanced": "tome:13", "fast": "tome:16"},
        batches=(1, 8, 64, 256),
    ),
    Network(
        name="vit-l",
        timm="vit_large_patch16_224",
        side=224,
        levels={"balanced": "tome:4", "fast": "tome:8"},
        batches=(1, 8, 64, 128),
    ),
)
TINY = (Network(name="vit-tiny", timm="test_vit", side=160, levels={"fast": "tome:12"}, batches=(2,)),)


@dataclass(frozen=True, slots=True)
class Step:
    """`module` has a function `run` that takes Settings and answers what goes into the report; it may raise Cannot.
    `seconds` is how long it may take, at most, and `small` the same of a small run."""

    name: str
    title: str
    module: str
    seconds: float
    small: float = 600.0


STEPS = (
    Step("machine", "The machine, and what its card can do", "tests.gpu.machine", 300),
    Step("contract", "The contract suite on the device", "tests.gpu.contract", 1800),
    Step("artefacts", "The networks as artefacts with levels", "tests.gpu.artefacts", 1800),
    Step("compile", "Networks compiled ahead of time by PyTorch", "tests.gpu.compiled", 3600),
    Step("agreement", "Every level of every model against PyTorch in fp32", "tests.gpu.agreement", 1800),
    Step("placement", "No node of any level on the CPU", "tests.gpu.nodes", 900),
    Step("decoding", "JPEGs decoded on the device against the decoder's pixels", "tests.gpu.decoding", 600),
    Step("engine", "The bare engine: compiled and eager, and what merging saves", "tests.gpu.engine", 3600),
    Step("served", "Served from JPEG over HTTP, against the bare engine", "tests.gpu.served", 2700),
    Step("start", "From start to ready, with what was kept", "tests.gpu.start", 900),
)


class Result(msgspec.Struct, frozen=True):
    """What came of a step. `run` says what it was carried out with: another run does not take it for its own."""

    step: str
    status: Status
    run: str
    seconds: float
    date: str
    why: str = ""
    data: dict[str, Any] = {}
