"""What the machine is, and the rates that everything else is measured by: matrix products in bf16, and uploads."""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np

from loadtest import machine
from service.backends import nvidia
from tests.gpu.plan import Settings
from tests.walls import ROOT

PACKAGES = ("torch", "triton", "timm", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-cu13")
BATCH = 64
"""Images of an upload."""


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    """Describe, then measure."""
    data: dict[str, Any] = {
        **machine.describe(),
        "devices": [{"name": one.name, "compute": one.capability, "driver": one.driver} for one in nvidia.devices()],
        "gpu_memory_gib": [round(one.memory_bytes / 2**30, 1) for one in nvidia.devices()],
        "libraries": {name: version for name in PACKAGES if (version := _version(name))},
        "missing": missing(),
        "device": settings.device,
        "backend": settings.backend,
    }
    save(data)
    data["matmul"] = rates(settings)
    data["matmul_tflops"] = max(data["matmul"].values())
    save(data)
    data["upload_gb_per_second"] = uploads(settings)
    save(data)


def missing() -> list[str]:
    """What the service and its models would like to have and this environment has not, by name. Another build of a
    package, as ONNX Runtime's for GPUs, counts for it."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {re.split(r"[^A-Za-z0-9_-]", line, maxsplit=1)[0] for name in ("serve", "models") for line in extras[name]}
    return sorted(name for name in names if not _version(name) and not _version(f"{name}-gpu"))


def rates(settings: Settings) -> dict[str, float]:
    """TFLOP/s of products of two square matrices in bf16, by their side."""
    import torch

    found = {}
    for side in (256, 512) if settings.small else (4096, 8192, 16384):
        one = torch.randn(side, side, device=settings.device, dtype=torch.bfloat16)
        other = torch.randn(side, side, device=settings.device, dtype=torch.bfloat16)
        seconds = best(partial(torch.mm, one, other), settings, runs=10)
        found[f"{side}"] = round(2 * side**3 / seconds / 1e12, 3)
    return found


def uploads(settings: Settings) -> dict[str, float]:
    """GB/s of a batch of images from the host, from memory as it comes and from memory that the device can read."""
    import torch

    pixels = torch.zeros(BATCH, 224, 224, 3, dtype=torch.uint8)
    found = {}
    for name, source in (("pageable", pixels), ("pinned", pixels.pin_memory() if _cuda(settings) else pixels)):
        there = torch.empty_like(pixels, device=settings.device)
        seconds = best(partial(there.copy_, source), settings, runs=20)
        found[name] = round(pixels.numel() / seconds / 1e9, 2)
    return found


def best(work: Callable[[], Any], settings: Settings, runs: int) -> float:
    """Seconds of the best of three times `runs` runs, each time after one that does not count."""
    import torch

    def wait() -> None:
        if _cuda(settings):
            torch.cuda.synchronize(settings.device)

    taken = []
    for _ in range(3):
        work()
        wait()
        began = time.perf_counter()
        for _ in range(runs):
            work()
        wait()
        taken.append((time.perf_counter() - began) / runs)
    return float(np.min(taken))


def _cuda(settings: Settings) -> bool:
    return settings.device.startswith("cuda")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
