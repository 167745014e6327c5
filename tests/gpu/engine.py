"""The bare engine: our networks in bf16 with nothing around them, compiled and eager, at every level.

Images are on the device as uint8. The share is that of the rate of matrix products which the same card reached minutes
before; the work of an image is what the levels' own count says, in multiply-accumulates.
"""

# mypy: disable-error-code="misc"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from models.levels import plan
from tests.gpu import machine
from tests.gpu.plan import Network, Settings

LEVELS_AT = 2
"""Of a network's batches the largest so many, where levels below `full` and eager runs are measured."""


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    """One row for each network, level, way and batch."""
    rates = machine.rates(settings)
    peak = max(rates.values())
    rows = [row for row in settings.remembered("engine").get("rows", []) if "error" not in row]
    for network in settings.networks:
        for row in measured(network, settings, {_key(row) for row in rows}):
            if "images_per_second" in row:
                row["share"] = round(row["images_per_second"] * 2 * row["gmacs"] / 1000 / peak, 4)
            rows.append(row)
            save({"matmul_tflops": peak, "rows": rows, "speedups": speedups(rows)})


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("network", "explicit", "compiled", "batch"))


def measured(network: Network, settings: Settings, known: set[tuple[Any, ...]]) -> Any:
    """Rows of one network that are not known."""
    import torch

    device = settings.device
    model, trunk = built(network)
    model = model.to(device=device, dtype=torch.bfloat16)
    for name, explicit in {"full": "full", **network.levels}.items():
        found = plan(explicit, trunk)
        counts = None if name == "full" else found.inputs["merge"]
        for compiled in (True, False):
            last = network.batches[-LEVELS_AT:]
            for batch in network.batches if compiled and name == "full" else last:
                row = {"network": network.name, "level": name, "explicit": explicit, "gmacs": found.gmacs}
                row |= {"compiled": compiled, "batch": batch}
                if _key(row) in known:
                    continue
                try:
                    found_rate = rate(model, counts, batch, compiled, network, settings)
                    yield {**row, "images_per_second": round(found_rate, 1)}
                except Exception as error:  # one way that does not work is a row that says so
                    yield {**row, "error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
                torch.compiler.reset()


def built(network: Network) -> tuple[Any, Any]:
    """The network in two halves per block, and what its levels depend on."""
    import timm
    import torch

    from models.backbones.timm_vit import TimmVit, trunk_of

    torch.manual_seed(0)
    source = timm.create_model(network.timm, exportable=True).eval().requires_grad_(False)
    stem = source.patch_embed.num_patches * source.patch_embed.proj.weight.numel()
    head = source.embed_dim * source.num_classes
    model = TimmVit(source).eval()
    return model, msgspec.structs.replace(trunk_of(model, 0), fixed=stem + head)


def rate(model: Any, counts: Any, batch: int, compiled: bool, network: Network, settings: Settings) -> float:
    """Images per second of one way, the best of three."""
    import torch

    def forward(images: Any) -> Any:
        return model((images.permute(0, 3, 1, 2).to(torch.bfloat16) - 127.5) / 127.5, counts).logits

    step = forward
    if compiled:
        mode = "reduce-overhead" if settings.device.startswith("cuda") else "default"
        step = torch.compile(forward, fullgraph=True, dynamic=False, mode=mode)
    side = network.side
    images = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, device=settings.device)
    with torch.inference_mode():
        for _ in range(3):
            step(images)
        return batch / machine.best(lambda: step(images), settings, runs=2 if settings.small else 20)


def speedups(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each level below `full` and way: how much faster at the best batch of each, beside the ratio of the work."""
    best: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for row in rows:
        key = (row["network"], row["level"], row["compiled"])
        if row.get("images_per_second", 0.0) > best.get(key, {}).get("images_per_second", 0.0):
            best[key] = row
    return [
        {
            "network": network,
            "level": level,
            "explicit": row["explicit"],
            "compiled": compiled,
            "speedup": round(row["images_per_second"] / full["images_per_second"], 3),
            "macs_ratio": round(full["gmacs"] / row["gmacs"], 3),
        }
        for (network, level, compiled), row in best.items()
        if level != "full" and (full := best.get((network, "full", compiled)))
    ]
