"""Each server under test: how it is started, what it is sent, when it is ready, and how it is stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loadtest.bodies import Kserve
from loadtest.peers import environments
from loadtest.peers.places import APPS, CACHE, ROOT, python_of
from loadtest.peers.plan import Plan

PYTHON = ".".join(str(part) for part in sys.version_info[:2])
KSERVE = Kserve(input="IMAGE")
TRITON = """\
name: "classify"
backend: "python"
max_batch_size: {batch}
input [ {{ name: "IMAGE" data_type: TYPE_STRING dims: [ 1 ] }} ]
output [ {{ name: "ANSWER" data_type: TYPE_STRING dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: {workers} }} ]
dynamic_batching {{
  max_queue_delay_microseconds: {wait}
{policy}}}
"""
TRITON_POLICY = """\
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {deadline}
    max_queue_size: {queue}
  }}
"""


def best_of(answer: Any) -> list[int]:
    """Indices of the classes in an answer, best first, whichever server gave it."""
    if isinstance(answer, list):  # BentoML answers a batch of one
        answer = answer[0]
    if "outputs" in answer:
        answer = json.loads(answer["outputs"][0]["data"][0])
    return [int(prediction["index"]) for prediction in answer["predictions"]]


@dataclass(frozen=True)
class Server:
    """What is known of a server before it is started."""

    name: str
    title: str
    package: str
    """The distribution whose version a table shows."""
    command: Callable[[Plan, Path], list[str]]
    """From the plan and an empty folder of its own to what is run."""
    path: str = "/classify"
    encoding: str = "raw"
    """How a photo travels, as loadtest.bodies names it."""
    variables: dict[str, str] = field(default_factory=dict)
    """Environment, beside ours and the plan."""
    setting: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By kind of model: fields of the plan in which it differs from the common ones."""
    stop: signal.Signals = signal.SIGTERM
    says_version: str = ""
    """Where it says its own version, if that is not the package's."""

    @property
    def ours(self) -> bool:
        """Whether it is Squint, in one set-up or another."""
        return self.name.startswith("squint")

    def planned(self, kind: str, port: int, **more: Any) -> Plan:
        """Its plan for a model."""
        model = environments.ours(kind) if self.ours else environments.plain(kind)
        return replace(Plan(model=str(model), port=port), **(self.setting.get(kind.partition("-")[0], {}) | more))


def _module(name: str) -> Callable[[Plan, Path], list[str]]:
    return lambda plan, folder: [str(python_of(name)), "-m", f"loadtest.peers.{name}_app"]


def _mosec(plan: Plan, folder: Path) -> list[str]:
    limits = ["--timeout", str(plan.deadline_ms), "--capacity", str(plan.queue)] if plan.deadline_ms else []
    address = ["--address", "127.0.0.1", "--port", str(plan.port), "--log-level", "warning"]
    return [*_module("mosec")(plan, folder), *address, *limits]


def _bentoml(plan: Plan, folder: Path) -> list[str]:
    address = ["--host", "127.0.0.1", "--port", str(plan.port)]
    start = [str(python_of("bentoml")), "-m", "bentoml", "serve", "loadtest.peers.bentoml_app:Classify"]
    return [*start, *address, "--working-dir", str(ROOT)]


def triton_config(plan: Plan) -> str:
    """A model's configuration for Triton; with a deadline also the limits of its queue."""
    policy = ""
    if plan.deadline_ms:
        policy = TRITON_POLICY.format(deadline=plan.deadline_ms * 1000, queue=plan.queue)
    return TRITON.format(batch=plan.batch, workers=plan.workers, wait=round(plan.wait_ms * 1000), policy=policy)


def _triton(plan: Plan, folder: Path) -> list[str]:
    home = _site("triton") / "pytriton" / "tritonserver"
    version = folder / "models" / "classify" / "1"
    version.mkdir(parents=True)
    shutil.copy2(APPS / "triton_app.py", version / "model.py")
    (version.parent / "config.pbtxt").write_text(triton_config(plan))
    # The wheel has a stub for each version of Python; the right one goes beside the backend, as pytriton does it.
    backend = folder / "backends" / "python"
    shutil.copytree(home / "backends" / "python", backend)
    shutil.copy2(home / "python_backend_stubs" / PYTHON / "triton_python_backend_stub", backend)
    return [
        str(home / "bin" / "tritonserver"),
        *("--model-repository", str(folder / "models"), "--backend-directory", str(backend.parent)),
        *("--http-address", "127.0.0.1", "--http-port", str(plan.port), "--allow-grpc", "false"),
        *("--metrics-address", "127.0.0.1", "--metrics-port", str(plan.port + 1)),
    ]


def _triton_variables() -> dict[str, str]:
    """The stub finds Python and the packages of Triton's environment by these."""
    site = _site("triton")
    libraries = [str(site / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    return {
        "PYTHONPATH": f"{ROOT}:{site}",
        "PATH": f"{CACHE / 'triton' / 'bin'}:{os.environ.get('PATH', '')}",
        "LD_LIBRARY_PATH": ":".join(libraries),
    }


def _site(name: str) -> Path:
    return CACHE / name / "lib" / f"python{PYTHON}" / "site-packages"


def _squint(*flags: str) -> Callable[[Plan, Path], list[str]]:
    def command(plan: Plan, folder: Path) -> list[str]:
        zoo = Path(plan.model).parents[1]
        return [
            *(str(ROOT / ".venv" / "bin" / "python"), "-m", "squint", "serve", "--http-port", str(plan.port)),
            *("--models", str(zoo), "--cache-dir", str(CACHE / "squint"), *flags),
        ]

    return command


SQUINT = Server("squint", "Squint", "squint", _squint("--backend", "onnxruntime"))
FASTEST = Server("squint-fastest", "Squint, `--backend auto`", "squint", _squint())
"""As it comes: on the backend and precision that it finds fastest, of those that agree."""
RIVALS = (
    Server(
        "triton",
        "Triton, Python backend",
        "nvidia-pytriton",
        _triton,
        path="/v2/models/classify/infer",
        encoding="kserve",
        variables=_triton_variables(),
        says_version="/v2",
        setting={"free": {"wait_ms": 2.0}, "vit": {"wait_ms": 2.0, "batch": 2}},
    ),
    Server("mosec", "mosec", "mosec", _mosec, setting={"free": {"workers": 1}, "vit": {"batch": 2}}),
    Server(
        "bentoml",
        "BentoML",
        "bentoml",
        _bentoml,
        encoding="multipart",
        variables={"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(CACHE / "bentoml-home")},
        setting={"free": {"batch": 1}, "vit": {"batch": 1}},
    ),
    Server(
        "litserve",
        "LitServe",
        "litserve",
        _module("litserve"),
        encoding="multipart",
        setting={"vit": {"batch": 2}},
        stop=signal.SIGINT,
    ),
    Server(
        "ray",
        "Ray Serve",
        "ray",
        _module("ray"),
        variables={"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
        setting={"vit": {"batch": 2}},
    ),
)
SERVERS = {server.name: server for server in (SQUINT, FASTEST, *RIVALS)}
