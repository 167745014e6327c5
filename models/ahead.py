"""Networks compiled ahead of time by AOTInductor: a library per level and batch size, which runs without a compiler.

A library is called through its C interface, not through PyTorch's binding, which keeps the interpreter to itself while
the network runs: other engines, and whoever hands out work, could not go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.levels import Plan

LIBRARY, OUTPUTS = "model.so", "outputs"
_INSIDE = "data/aotinductor/model/"
_LEFT_OUT = (".cpp", "_metadata.json", "_compile_flags.json", "_linker_flags.json")
"""What a package has besides the library and the kernels that it reads."""


class CompileError(Exception):
    """A network cannot be compiled here; the message is one line."""


class AtLevel(nn.Module):
    """A network at one level, so that every shape in it is known: uint8 images [B, H, W, 3] to its outputs."""

    def __init__(self, network: nn.Module, level: Plan) -> None:
        super().__init__()
        self.network = network
        self.outputs: tuple[str, ...] = network.outputs
        self._arguments: dict[str, tuple[int, ...]] = network.arguments(level)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network(images, **self._arguments))


def options(device: torch.device) -> dict[str, Any]:
    """What Inductor is told: on a CPU weights are constants, packed for its matrix products. A GPU's kernels,
    hundreds where every block has other shapes, are compiled by as many processes as there are CPUs."""
    return {"freezing": True, "compile_threads": 1} if device.type == "cpu" else {"freezing": False}


def compile_ahead(network: AtLevel, images: Tensor, directory: Path) -> None:
    """Compile for batches of just this shape on the images' device; writes the library and what belongs to it.

    The library computes on as many threads as PyTorch is set to now. Raises CompileError.
    """
    own = {"aot_inductor.compile_wrapper_opt_level": "O0"}  # it only calls kernels, and is most of what is compiled
    try:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad(), compiling_in(_folder()):
            package = Path(folder) / "model.pt2"
            torch._inductor.aoti_compile_and_package(
                _exported(network, images),
                package_path=str(package),
                inductor_configs={**options(images.device), **own},
            )
            _unpack(package, directory)
    except CompileError:
        raise
    except Exception as error:  # of the compiler, and of those that it calls
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CompileError(f"the network cannot be compiled: {line[:200]}") from error
    (directory / OUTPUTS).write_text("\n".join(network.outputs))


def compiled_here(network: AtLevel, images: Tensor, folder: Path | None) -> Compiled:
    """Compile the same in this process, for its use alone; `folder` keeps what makes the next time quicker."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with torch.no_grad(), compiling_in(folder or _folder()):
        found = torch.compile(
            _exported(network, images).module(), fullgraph=True, dynamic=False, options=options(images.device)
        )
        found(images)
    return Compiled(network.outputs, found)


class Compiled:
    """A network that was compiled in this process."""

    def __init__(self, outputs: tuple[str, ...], call: Any) -> None:
        self.outputs = outputs
        self._call = call

    def __call__(self, images: Tensor) -> Sequence[Tensor]:
        return tuple(self._call(images))


def _exported(network: AtLevel, images: Tensor) -> Any:
    """The network as one graph, whose shapes are all known."""
    with torch.no_grad():
        return torch.export.export(network, (images,), strict=False)


def _unpack(package: Path, directory: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        names = [name for name in archive.namelist() if _INSIDE in name and not name.endswith(_LEFT_OUT)]
        libraries = [name for name in names if name.endswith(".so")]
        if len(libraries) != 1 or any(name.endswith(".json") for name in names):
            raise CompileError("the network has operators that a library cannot run by itself")
        for name in names:
            target = LIBRARY if name == libraries[0] else name.rpartition("/")[2]
            (directory / target).write_bytes(archive.read(name))


@functools.cache
def _folder() -> Path:
    """A directory of this process alone for what the compiler writes on its way; gone when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="squint-compile-")
    _kept.append(folder)
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


@contextlib.contextmanager
def compiling_in(folder: Path) -> Iterator[None]:
    """Have Inductor write into a directory of ours, in place of one below /tmp, and say nothing about itself."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    os.environ[name] = str(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def sources() -> str:
    """A digest of the code that networks are made by: a library made by other code is another one."""
    here, digest = Path(__file__).parent, hashlib.sha256()
    folders = ("backbones", "heads", "reduction")
    files = [file for folder in folders for file in (here / folder).glob("*.py")]
    files += [here / f"{name}.py" for name in ("ahead", "network", "precision", "restored", "served")]
    files += [here / "sources" / f"{name}.py" for name in ("pixels", "timm", "timm_graph")]
    files.append(here / "graph" / "weights.py")
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


class Library:
    """A compiled network, loaded. As many threads as it has `runners` may call it at once, others wait; on a GPU one.

    It is called with one tensor of just the shape, type and device that it was compiled for; nothing checks that.
    """

    def __init__(self, directory: Path, runners: int, device: torch.device) -> None:
        self._library = ctypes.CDLL(str(directory / LIBRARY))
        self._device = device
        self._container = ctypes.c_void_p()
        self._check(
            self._library.AOTInductorModelContainerCreateWithDevice(
                ctypes.byref(self._container),
                ctypes.c_size_t(runners),
                str(device).encode(),
                str(directory).encode(),
            )
        )
        count = ctypes.c_size_t()
        self._check(self._library.AOTInductorModelContainerGetNumOutputs(self._container, ctypes.byref(count)))
        self._count = count.value
        # What tells several runners apart on a GPU cannot be part of a CUDA graph; there one is called at a time.
        alone = device.type == "cuda"
        name = "AOTInductorModelContainerRunSingleThreaded" if alone else "AOTInductorModelContainerRun"
        self._run = getattr(self._library, name)
        self.outputs = tuple((directory / OUTPUTS).read_text().split())

    def __call__(self, images: Tensor) -> Sequence[Tensor]:
        """The outputs. Raises RuntimeError."""
        handles = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors([images])
        inputs = (ctypes.c_void_p * 1)(_pointer(handles[0], None))
        outputs = (ctypes.c_void_p * self._count)()
        stream = torch.cuda.current_stream(self._device).cuda_stream if self._device.type == "cuda" else None
        self._check(
            self._run(
                self._container,
                inputs,
                ctypes.c_size_t(1),
                outputs,
                ctypes.c_size_t(self._count),
                ctypes.c_void_p(stream),
                None,
            )
        )
        found: list[Tensor] = torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs(
            [_capsule(pointer, None, None) for pointer in outputs]
        )
        return found

    def close(self) -> None:
        """Give up what it holds; nobody may be calling it."""
        self._check(self._library.AOTInductorModelContainerDelete(self._container))

    def _check(self, status: int) -> None:
        if status:
            message = ctypes.c_char_p()
            self._library.AOTInductorGetLastError(ctypes.byref(message))
            raise RuntimeError((message.value or b"").decode(errors="replace") or "the compiled network failed")


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
