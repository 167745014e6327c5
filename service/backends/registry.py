"""Which backends there are. A backend's library is imported when it is opened, so that only the chosen one loads.

A *variant* is a backend with its precision: `onnxruntime/f32`, `openvino/f32`, `openvino/bf16`, `fake/none`; one that
needs a GPU says so (`onnxruntime/cuda-f32`), but for those of TensorRT, which all do. The bare name of a backend stands
for all its variants that run on the device in question, but those that compile while they are loaded (`torch/jit/f32`),
which are had by their own name alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from importlib import import_module, metadata

from service.backends.base import Artefact, Backend, BackendError
from service.errors import ConfigError

VARIANTS: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime/f32", "onnxruntime/cuda-f32", "onnxruntime/cuda-tf32"),
    "openvino": ("openvino/f32", "openvino/bf16"),
    "torch": ("torch/f32", "torch/bf16"),
    "tensorrt": ("tensorrt/f32",),
    "fake": ("fake/none",),
}
"""The variants of each backend; `auto` considers all but the fake."""

WIDE = ("onnxruntime/f32",)
"""Variants that can run a batch on the CPUs of idle engines, too."""
COMPILING = {"torch": ("torch/jit/f32", "torch/jit/bf16")}
"""Variants that compile while they are loaded, which takes minutes."""
MADE = ("torch",)
"""Backends that load what `squint models compile` made, and can do nothing without it."""

_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "torch": ("torch",),
    "tensorrt": ("onnxruntime-gpu", "onnxruntime"),
}
_ANYWHERE = ("torch", "fake")
"""Backends that run on a CPU and on a GPU alike."""


def runs_on(variant: str, device: str) -> bool:
    """Whether a variant is one for this device."""
    backend, _, precision = variant.partition("/")
    gpu = backend == "tensorrt" or precision.startswith("cuda-")
    return backend in _ANYWHERE or gpu == device.startswith("cuda")


def variants(name: str, *, allow_fake: bool = False, device: str = "cpu") -> tuple[str, ...]:
    """The variants that `auto`, a backend or a variant stands for on a device. Raises ConfigError."""
    known = tuple(backend for backend in VARIANTS if allow_fake or backend != "fake")
    if name == "auto":
        found = [variant for backend in known if backend != "fake" for variant in VARIANTS[backend]]
        return tuple(variant for variant in found if runs_on(variant, device))
    backend = name.partition("/")[0]
    if backend == "fake" and not allow_fake:
        raise ConfigError("backend fake: it answers nonsense and is for tests only; allow_fake permits it")
    if backend in known and name in (backend, *VARIANTS[backend], *COMPILING.get(backend, ())):
        wanted = VARIANTS[backend] if name == backend else (name,)
        fitting = tuple(variant for variant in wanted if runs_on(variant, device))
        if not fitting:
            raise ConfigError(f"backend {name}: does not run on {device} (--devices says where)")
        return fitting
    raise ConfigError(f"unknown backend {name!r}; accepted: auto, {', '.join(known)}")


def installed(variant: str) -> str:
    """The version of the variant's library; empty when it is not installed. Imports nothing."""
    backend = variant.partition("/")[0]
    if backend not in _DISTRIBUTIONS:
        return "ours"
    for distribution in _DISTRIBUTIONS[backend]:
        try:
            return f"{distribution} {metadata.version(distribution)}"
        except metadata.PackageNotFoundError:
            continue
    return ""


def prepare(variant: str) -> None:
    """Have the variant's library imported, so that what it takes is not counted as a model's; a missing one is told
    of by open_backend."""
    backend = variant.partition("/")[0]
    with contextlib.suppress(ImportError):
        import_module(f"service.backends.{backend}")


def open_backend(variant: str, artefact: Artefact, *, allow_fake: bool = False) -> Backend:
    """Load a model on a variant (a backend's bare name means its first one, in f32).

    Raises ConfigError for an unknown or missing variant, BackendError when the load fails.
    """
    backend, _, precision = variants(variant, allow_fake=allow_fake, device=artefact.device)[0].partition("/")
    try:
        factory: Callable[[Artefact, str], Backend] = import_module(f"service.backends.{backend}").load
        return factory(artefact, precision)
    except ImportError as error:
        raise _missing(backend, error) from None
    except MemoryError:
        raise BackendError("oom", "out of memory while loading") from None


def is_made(variant: str) -> bool:
    """Whether the variant loads what was compiled before."""
    return variant.partition("/")[0] in MADE and not is_compiling(variant)


def is_compiling(variant: str) -> bool:
    """Whether loading the variant compiles."""
    return variant in COMPILING.get(variant.partition("/")[0], ())


def build(variant: str, artefact: Artefact, progress: Callable[[str], None], sizes: Collection[int] = ()) -> None:
    """Compile for a variant that `is_made` all that it lacks, or what it lacks for these batch sizes alone; `progress`
    is told of every step before.

    Raises ConfigError where its library is missing, BackendError when something cannot be compiled.
    """
    backend, _, precision = variant.partition("/")
    try:
        builder: Callable[[Artefact, str, Callable[[str], None], Collection[int]], None] = import_module(
            f"service.backends.{backend}"
        ).build
    except ImportError as error:
        raise _missing(backend, error) from None
    builder(artefact, precision, progress, sizes)


def _missing(backend: str, error: ImportError) -> ConfigError:
    more = "; install the extra 'models'" if backend == "torch" else ""
    return ConfigError(f"backend {backend}: its library cannot be imported ({error.name or 'broken'}){more}")
