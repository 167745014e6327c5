"""`python -m tests.gpu`: everything that needs a GPU, in one go, into one report (docs/gpu.md)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from service.backends import nvidia
from tests.gpu import report, runner
from tests.gpu.machine import missing
from tests.gpu.plan import STEPS, Result, Settings, Step


def main() -> int:
    """The command; its exit status is 1 when a step failed or took too long."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of results (default .cache/gpu, or .cache/gpu-small)")
    parser.add_argument(
        "--work", type=Path, help="folder of what is made on the way, many GB (default: that of results)"
    )
    parser.add_argument("--device", help="default: cuda:0 where there is a GPU, else cpu")
    parser.add_argument("--backend", default="auto", help="what serves (default: the fastest that agrees)")
    parser.add_argument("--serve", default="", help="more flags for `squint serve`, such as '--decoders 12'")
    parser.add_argument("--small", action="store_true", help="tiny networks, seconds: to test the script itself")
    parser.add_argument("--fresh", action="store_true", help="repeat steps that are done")
    parser.add_argument("--only", nargs="*", choices=[step.name for step in STEPS], help="these steps alone")
    parser.add_argument("--models", nargs="*", default=[], metavar="M", help="these alone, such as vit-l")
    parser.add_argument("--levels", nargs="*", default=[], metavar="L", help="of their levels `full` and these alone")
    parser.add_argument("--batches", nargs="*", default=[], type=int, metavar="N", help="these batch sizes alone")
    parser.add_argument("--seconds", type=float, default=0.0, help="that a step may take; again, it goes on from there")
    options = parser.parse_args()
    out = options.out or Path(".cache") / ("gpu-small" if options.small else "gpu")
    device = options.device or ("cuda:0" if nvidia.devices() else "cpu")
    if device == "cpu" and not options.small:
        print("gpu-check: no GPU is here (NVIDIA's driver does not answer); --small tests the script on a CPU")
        return 1
    settings = Settings(
        str(out.resolve()),
        device,
        options.backend,
        options.small,
        tuple(options.serve.split()),
        str((options.work or out).resolve()),
        tuple(options.models),
        tuple(options.levels),
        tuple(options.batches),
        options.seconds,
    )
    settings.folder.mkdir(parents=True, exist_ok=True)
    if lacks := missing():
        print(f"gpu-check: not installed, so what needs it cannot be carried out: {', '.join(lacks)}", flush=True)
    steps = [step for step in STEPS if not options.only or step.name in options.only]
    known = {step.name: found for step in STEPS if (found := runner.kept(settings, step))}

    def told(step: Step, result: Result) -> None:
        known[step.name] = result
        why = f": {result.why}" if result.why else ""
        print(f"{step.name}: {result.status}, {result.seconds:g} s{why}", flush=True)
        report.write(settings, STEPS, [known[one.name] for one in STEPS if one.name in known])

    results = runner.carry_out(settings, steps, again=options.fresh, told=told)
    print(f"report: {Path(settings.out) / report.PAGE}")
    return int(any(result.status in ("failed", "late") for result in results))


if __name__ == "__main__":
    sys.exit(main())
