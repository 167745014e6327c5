"""JPEGs to pixels on the worker's device, by nvImageCodec: nvJPEG on a GPU, libjpeg-turbo on a CPU. The one file that
imports it, and only where `--decode-on device` asks for it.

The bytes are a stranger's, and nothing here holds a library that one of them takes over: see docs/security.md. Of the
library's readers the one that is used is loaded and no other.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from service.backends.failure import error_from_library
from service.config import CPU, variable
from service.errors import ConfigError
from service.wire.messages.decoder import Coded

_OPTIONS = ":fancy_upsampling=1 :enable_roi_fancy_upsampling=1"
"""Chroma is enlarged as libjpeg-turbo does it. nvJPEG before 13.2 may get the outermost pixels of a part wrong: the
decoder asks for one more than is needed on each side."""
_READERS = {"cpu": "libjpeg_turbo_ext.so*", "cuda": "libnvjpeg_ext.so*"}
_NVJPEG = "libnvjpeg.so.13"
_CPU_THREADS = 2
"""That feed a GPU: parts of some JPEGs are read on the CPU."""

_SOUND = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d"
    "3c3933383740485c4e404457453738506d51575f626768673e4d71797064785c656763ffdb0043011112121815182f1a1a2f63423842"
    "6363636363636363636363636363636363636363636363636363636363636363636363636363636363636363636363636363ffc00011"
    "080010001003012200021101031101ffc40014000100000000000000000000000000000000ffc4001410010000000000000000000000"
    "0000000000ffc40014010100000000000000000000000000000002ffc40014110100000000000000000000000000000000ffda000c03"
    "010002110311003f000060ffd9"
)
"""A JPEG of 16x16 pixels."""


class Codec:
    """Decodes on one device. Engine threads share it, one at a time.

    Raises ConfigError, in one line that says what is missing.
    """

    def __init__(self, device: str) -> None:
        kind, _, number = device.partition(":")
        try:
            with _reader(kind):
                from nvidia import nvimgcodec
            self._library: Any = nvimgcodec
            on_cpu = device == CPU
            backends = [nvimgcodec.CPU_ONLY] if on_cpu else [nvimgcodec.GPU_ONLY, nvimgcodec.HYBRID_CPU_GPU]
            self._decoder = nvimgcodec.Decoder(
                device_id=nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY if on_cpu else int(number or 0),
                max_num_cpu_threads=1 if on_cpu else _CPU_THREADS,
                backends=[nvimgcodec.Backend(kind) for kind in backends],
                options=_OPTIONS,
            )
        except (ImportError, OSError) as error:
            raise ConfigError(f"--decode-on device: {_one_line(error)}") from None
        except RuntimeError as error:
            raise ConfigError(f"--decode-on device: nvImageCodec cannot use {device}: {_one_line(error)}") from None
        self._params = nvimgcodec.DecodeParams(apply_exif_orientation=False)
        self._turn = threading.Lock()
        if not self.sound():
            raise ConfigError(f"--decode-on device: nvImageCodec does not decode on {device}")

    def decode(self, asked: Sequence[tuple[bytes, Coded]]) -> list[Any | None]:
        """The part that is needed of each JPEG, uint8 RGB [h, w, 3] on the device, by the protocols of numpy or DLPack;
        None for one that the library refuses, or that is not of the size it was said to be. Raises BackendError."""
        streams = [self._stream(data, coded) for data, coded in asked]
        there = [stream for stream in streams if stream is not None]
        found = iter(self._decoded(there))
        return [None if stream is None else next(found) for stream in streams]

    def sound(self) -> bool:
        """Whether an image is decoded that cannot be to blame. Raises BackendError."""
        return self._decoded([self._library.CodeStream(_SOUND)])[0] is not None

    def _stream(self, data: bytes, coded: Coded) -> Any | None:
        """What is to be decoded. The library's own view of a header counts, for memory is taken by it."""
        x0, y0, x1, y1 = coded.part
        try:
            whole = self._library.CodeStream(data)
            size = (whole.width, whole.height)
            if whole.codec_name != "jpeg" or whole.num_channels not in (1, 3) or size != (coded.width, coded.height):
                return None
            return whole.get_sub_code_stream(region=self._library.Region(y0, x0, y1, x1))
        except (RuntimeError, ValueError):
            return None

    def _decoded(self, streams: list[Any]) -> list[Any | None]:
        if not streams:
            return []
        try:
            with self._turn:
                return list(self._decoder.decode(streams, params=self._params))
        except Exception as error:  # the library's own derive from Exception only
            raise error_from_library(error) from error


@contextlib.contextmanager
def _reader(kind: str) -> Iterator[None]:
    """Show the library one of its readers, while it is loaded. Raises ImportError and OSError."""
    package = find_spec("nvidia.nvimgcodec") if find_spec("nvidia") else None
    if package is None or package.origin is None:
        raise ImportError("nvImageCodec is missing: install nvidia-nvimgcodec-cu13")
    if kind != CPU:
        _load_nvjpeg()
    with tempfile.TemporaryDirectory() as folder:
        for reader in (Path(package.origin).parent / "extensions").glob(_READERS[kind]):
            os.symlink(reader, os.path.join(folder, reader.name))
        with variable("NVIMGCODEC_EXTENSIONS_PATH", folder):
            yield


def _load_nvjpeg() -> None:
    """Load nvJPEG: beside a link the reader would not find the one that was installed with it. Raises OSError."""
    import nvidia

    installed = [Path(place) / part / _NVJPEG for place in nvidia.__path__ for part in ("cu13/lib", "nvjpeg/lib")]
    for name in (*map(str, filter(Path.exists, installed)), _NVJPEG, f"/usr/local/cuda/lib64/{_NVJPEG}"):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return
    raise OSError(f"nvJPEG ({_NVJPEG}) is missing: install nvidia-nvjpeg, or CUDA's libraries")


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
