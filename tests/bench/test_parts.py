"""Where a shipped graph's time goes: only the blocks get cheaper with fewer tokens (`make bench`)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from models import manifest
from models.levels import FULL, plan
from tests.e2e.service import ROOT

pytestmark = pytest.mark.bench

STEM_AND_HEAD = 0.20
RUNS = 120
IMAGE_WORK = ("Conv", "FusedConv", "Resize", "ArgMax", "MaxPool", "Pad", "ReorderInput", "ReorderOutput")


@pytest.mark.parametrize("task", ["classify", "detect", "segment"])
def test_stem_and_head_take_a_fifth_at_most(task: str, tmp_path: Path) -> None:
    """ONNX Runtime f32, one image, one thread. The blocks are what lies between the first and the last
    LayerNormalization."""
    directory = ROOT / "models" / "zoo" / f"toyscape-{task}" / "1"
    described = manifest.load(directory)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession((directory / described.graph).read_bytes(), options)
    side = described.transform.height
    feeds = {"images": np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)}
    if described.trunk is not None:
        feeds |= {name: np.array(given) for name, given in plan(FULL, described.trunk).inputs.items()}
    for _ in range(RUNS):
        session.run(None, feeds)
    shares = split(json.loads(Path(session.end_profiling()).read_text()))
    print(f"\n{task}: " + ", ".join(f"{part} {share:.1%}" for part, share in shares.items()))
    assert shares["stem"] + shares["head"] <= STEM_AND_HEAD


def split(events: list[dict[str, object]]) -> dict[str, float]:
    """Shares of the time of a run's nodes, in the order they ran; a node's time is its median over the runs."""
    spans = [event for event in events if event.get("cat") == "Node" and str(event["name"]).endswith("_kernel_time")]
    nodes = len(spans) // RUNS
    kinds = [str(span["args"]["op_name"]) for span in spans[:nodes]]  # type: ignore[index]
    durations = np.median(np.reshape([float(str(span["dur"])) for span in spans], (RUNS, nodes)), axis=0)
    norms = [at for at, kind in enumerate(kinds) if kind in ("LayerNormalization", "SkipLayerNormalization")]
    times = {"stem": 0.0, "blocks": 0.0, "head": 0.0}
    for at, (kind, duration) in enumerate(zip(kinds, durations, strict=True)):
        # The runtime may put a head's convolution of a stem map between two blocks.
        image_work = kind in IMAGE_WORK
        times["stem" if at < norms[0] else "head" if at > norms[-1] or image_work else "blocks"] += duration
    total = sum(times.values())
    return {part: time / total for part, time in times.items()}
