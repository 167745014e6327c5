"""Which variant a model runs on: the fastest one here whose answers agree with the model's reference.

Every candidate is tried in a process of its own (see measure.py). What came of it is kept in the cache directory
under a name that depends on the model, the libraries, the CPU and the number of engines, so that it is done once; the
next start imports nothing but the library that was chosen.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from models.manifest import Manifest
from service.backends import cache, nvidia, registry
from service.backends.store import FOLDER, Store, name_of
from service.backends.trial import Measured, Trial
from service.errors import ConfigError
from service.wire.messages.worker import Timing

TRIAL_SECONDS = 120.0
"""A trial that takes longer is given up."""
GENTLE_SECONDS = 240.0
COMPILING_SECONDS = 1800.0
"""The same for a variant that compiles while it is loaded, and on a GPU, where engines may have to be built."""
GENTLENESS = 5
"""Steps by which a gentle trial is nicer than those who serve: a third of the CPU where they want all of it."""
FORMAT = 4
_BF16_FLAGS = frozenset(("avx512_bf16", "amx_bf16", "bf16"))


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was chosen for a model, and all that was measured to choose it. `cached` says that it was measured before
    now."""

    model: str
    chosen: str
    measured: tuple[Measured, ...]
    format: int = FORMAT
    cached: bool = False

    @property
    def timings(self) -> list[Timing]:
        """The profiles of the chosen variant."""
        return [timing for one in self.measured if one.variant == self.chosen for timing in one.timings]

    @property
    def why(self) -> str:
        """All candidates in one line: images per second, or why not."""
        return "; ".join(
            f"{one.variant}: {one.refused or f'{one.images_per_second:.1f} images/s'}{_wide(one)}{_without(one)}"
            for one in self.measured
        )


def _wide(one: Measured) -> str:
    share = one.timings[0].wide if one.timings else 1.0
    return f", wide in {share:.2f} of the time" if share < 1 else ""


def _without(one: Measured) -> str:
    return "".join(f", without {level} ({reason})" for level, reason in one.left_out.items())


Attempt = Callable[[Trial], Measured]


def choose(
    directory: Path,
    described: Manifest,
    name: str,
    *,
    engines: int,
    cache_dir: str,
    device: str = "cpu",
    progress: Callable[[], None] = lambda: None,
    attempt: Attempt | None = None,
    keep: bool = True,
) -> Report:
    """Choose among the variants that `name` (`auto`, a backend, or a variant) stands for.

    `progress` is called before each trial, which takes at most TRIAL_SECONDS. The outcome is remembered if it is to be
    kept. Raises ConfigError, in one line that names the model, when none can be used.
    """
    compiled = made(described, cache_dir)
    candidates, missing = _candidates(name, compiled, device)
    told = [*candidates, *(f"{one.variant} {one.refused}" for one in missing)]
    store = f"choice-{_key(described, told, [*compiled.values()], engines, device)}.json"
    known = _read(cache_dir, store, described, candidates)
    if known is not None:
        return known
    measured = list(missing)
    for variant in candidates:
        progress()
        measured.append((attempt or try_apart)(Trial(str(directory), variant, engines, cache_dir, True, device=device)))
    usable = [one for one in measured if not one.refused]
    if not usable:
        reasons = "; ".join(f"{one.variant}: {one.refused}" for one in measured)
        raise ConfigError(f"model {described.name}: no backend can run it ({reasons})")
    best = max(usable, key=lambda one: one.images_per_second)
    report = Report(described.name, best.variant, tuple(measured))
    if keep and not any(one.transient for one in measured):
        cache.write(cache_dir, store, msgspec.json.encode(report))
    return report


def made(described: Manifest, cache_dir: str) -> dict[str, str]:
    """Variant -> what was compiled for it before, in one word; not verified."""
    found: dict[str, list[str]] = {}
    graph = described.files[described.graph].sha256
    for key in Store(Path(cache_dir) / FOLDER).keys() if cache_dir else ():
        if key.get("graph") == graph:
            found.setdefault(key.get("backend", ""), []).append(name_of(key))
    return {variant: cache.key(*sorted(names)) for variant, names in sorted(found.items())}


def _candidates(name: str, compiled: Mapping[str, str], device: str) -> tuple[list[str], list[Measured]]:
    """The variants worth trying here, and those that are not, with the reason; of those that load what was compiled
    before, `auto` knows only what was."""
    _, flags = cache.cpu()
    there = {f"cuda:{gpu.index}" for gpu in nvidia.devices()} if device != "cpu" else ()
    candidates, refused = [], []
    for variant in registry.variants(name, device=device):
        if name == "auto" and registry.is_made(variant) and variant not in compiled:
            continue
        if device != "cpu" and device not in there:
            refused.append(Measured(variant, refused=f"{device} is not there, or NVIDIA's driver does not answer"))
        elif not registry.installed(variant):
            refused.append(Measured(variant, refused="not installed"))
        elif variant.startswith("openvino/bf16") and not flags & _BF16_FLAGS:
            refused.append(Measured(variant, refused="this CPU has no bf16"))
        elif registry.is_made(variant) and variant not in compiled:
            refused.append(Measured(variant, refused="not compiled; squint models compile does that"))
        else:
            candidates.append(variant)
    return candidates, refused


def _key(described: Manifest, variants: Sequence[str], made: Sequence[str], engines: int, device: str) -> str:
    """The manifest's digest covers its files' sha256, its tolerance and its levels."""
    model, flags = cache.cpu()
    versions = [f"{variant} {registry.installed(variant)}" for variant in variants]
    parts = [f"{FORMAT}", described.digest, *versions, *made, model, " ".join(sorted(flags)), f"{engines}"]
    if device != "cpu":
        # What was measured on one GPU holds for another of its make.
        parts += [gpu.make for gpu in nvidia.devices() if f"cuda:{gpu.index}" == device] or [device]
    return cache.key(*parts)


def _read(cache_dir: str, store: str, described: Manifest, candidates: Sequence[str]) -> Report | None:
    """What was measured before, if it is whole and makes sense."""
    data = cache.read(cache_dir, store)
    if data is None:
        return None
    try:
        report = msgspec.json.decode(data, type=Report)
    except msgspec.MsgspecError:
        return None
    fits = report.format == FORMAT and report.model == described.name and report.chosen in candidates
    if not fits or not _covers(report, [level.name for level in described.levels]):
        return None
    return msgspec.structs.replace(report, cached=True)


def _covers(report: Report, levels: list[str]) -> bool:
    """Whether it says of every level how fast it is or why it is left out; the highest cannot be."""
    timed = [timing.level for timing in report.timings if timing.a >= 0 and timing.b > 0 and 0 < timing.wide <= 1]
    left_out = [level for one in report.measured if one.variant == report.chosen for level in one.left_out]
    return timed[:1] == levels[:1] and sorted([*timed, *left_out]) == sorted(levels)


def try_apart(trial: Trial, *, gently: bool = False) -> Measured:
    """One trial in a process of its own; whatever becomes of that process is an answer. `gently` leaves the CPU to
    whoever else needs it, and takes longer."""
    seconds = GENTLE_SECONDS if gently else TRIAL_SECONDS
    if registry.is_compiling(trial.variant) or trial.device != "cpu":
        seconds = COMPILING_SECONDS
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.backends.measure"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        return Measured(trial.variant, refused=f"could not be tried ({error.strerror})", transient=True)
    with process:
        if gently:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, GENTLENESS)
        try:
            written, _ = process.communicate(msgspec.json.encode(trial), seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return Measured(trial.variant, refused=f"took longer than {seconds:.0f} s", transient=True)
    if process.returncode < 0:
        number = -process.returncode
        killed = number == signal.SIGKILL  # by the kernel, when memory is short
        return Measured(trial.variant, refused=f"crashed ({_signal_name(number)})", transient=killed)
    try:
        return msgspec.json.decode(written.strip().rpartition(b"\n")[2], type=Measured)
    except msgspec.MsgspecError:
        return Measured(trial.variant, refused=f"failed (exit status {process.returncode})")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
