"""The walls of the architecture as checks on source text; test_architecture.py applies them.

Each check takes one source and answers a list of breaches, one line each, so that a test can show both that the tree
keeps a wall and that the check would see it broken.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("squint", "service", "models", "loadtest")

HTTP = {
    "fastapi",
    "starlette",
    "pydantic",
    "uvicorn",
    "uvloop",
    "httptools",
    "prometheus_client",
    "python_multipart",
    "fastapi_swagger",
}
GRPC = {"grpc", "grpc_health", "grpc_reflection", "google"}
IMAGES = {"PIL", "simplejpeg", "kornia_rs", "cv2", "turbojpeg", "pyvips"}
TRAINING = {"torch", "torchvision", "timm", "transformers", "onnx", "onnxscript", "onnx_ir"}
BASICS = {"service.errors", "service.config", "service.settings", "service.log", "service.version"}
CHILD = BASICS | {"service.child", "service.wire"}
ARTEFACT = {"models.manifest", "models.levels"}
ANY = {"*"}


@dataclass(frozen=True)
class Room:
    """What a folder (or a file, which goes first) may import beside the standard library and itself."""

    ours: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)


RPC = Room(
    CHILD | {f"service.{name}" for name in ("core", "dispatcher", "gateway", "metrics", "proto")} | ARTEFACT,
    {"msgspec"} | GRPC,
)
"""What speaks gRPC: loaded only when the port is open."""

ROOMS: dict[str, Room] = {
    "service/core": Room({"service.errors"}, {"msgspec"}),
    "service/wire": Room({"service.errors"}, {"msgspec"}),
    "service/dispatcher": Room(
        CHILD | {"service.artefacts", "service.core", "service.families", "service.metrics"} | ARTEFACT,
        {"msgspec", "setproctitle", "uvloop"},
    ),
    "service/gateway": Room(
        CHILD | {"service.core", "service.dispatcher", "service.metrics"} | ARTEFACT,
        {"msgspec", "setproctitle"} | HTTP,
    ),
    "service/gateway/tracing": Room(BASICS | {"service.dispatcher", "service.gateway"}, {"opentelemetry"}),
    "service/gateway/rpc": RPC,
    "service/gateway/auth.py": Room(BASICS | {"service.core", "service.gateway", "service.keys"}),
    "service/gateway/tls.py": Room(BASICS | {"service.gateway"}, {"grpc"}),
    "service/keys.py": Room(),
    "service/kernels.py": Room(set(), {"numpy"}),
    "service/gateway/kserve/rpc.py": RPC,
    "service/proto": Room(set(), {"google"}),
    "service/decoder/image.py": Room(CHILD | {"service.decoder"}, {"msgspec", "numpy"} | IMAGES),
    "service/decoder/resample.py": Room(BASICS | {"service.decoder"}, {"cykooz_resizer", "numpy"}),
    "service/decoder/bands.py": Room({"service.decoder", "service.kernels"}, {"numpy"}),
    "service/decoder/handing.py": Room(CHILD | {"service.decoder", "service.kernels"}),
    "service/decoder": Room(CHILD, {"msgspec", "numpy"}),
    "service/worker/codec.py": Room(CHILD | {"service.backends"}, {"nvidia"}),
    "service/worker": Room(
        CHILD | {"service.backends", "service.kernels", "service.tasks", "service.core.batching"} | ARTEFACT,
        {"msgspec", "numpy", "setproctitle"},
    ),
    "service/backends/arrays.py": Room(set(), {"numpy", "torch"}),
    "service/backends/torch.py": Room(
        BASICS | {"service.backends", "models.ahead", "models.precision", "models.restored"} | ARTEFACT,
        {"numpy", "torch"},
    ),
    "service/backends/torch_card.py": Room(BASICS | {"service.backends"} | ARTEFACT, {"numpy", "torch"}),
    "service/backends/onnxruntime.py": Room(
        BASICS | {"service.backends"} | ARTEFACT, {"msgspec", "numpy", "onnxruntime"}
    ),
    "service/backends/openvino.py": Room(BASICS | {"service.backends"} | ARTEFACT, {"msgspec", "numpy", "openvino"}),
    "service/backends/tensorrt.py": Room(BASICS | {"service.backends"} | ARTEFACT, {"msgspec", "numpy", "tensorrt"}),
    "service/backends/measure.py": Room(
        BASICS | {"service.backends", "service.tasks", "service.wire.messages"} | ARTEFACT,
        {"msgspec", "numpy", "safetensors"},
    ),
    "service/backends": Room(BASICS | {"service.wire.messages"} | ARTEFACT, {"msgspec", "numpy"}),
    "service/tasks": Room(BASICS | {"service.wire"} | ARTEFACT, {"msgspec", "numpy", "pycocotools"}),
    "service/metrics.py": Room(BASICS | {"service.families"}, {"prometheus_client"}),
    "service/families.py": Room(set(), {"prometheus_client"}),
    "service/child.py": Room(BASICS | {"service.wire"}, {"setproctitle"}),
    "service/config.py": Room({"service.errors", "service.kinds", "service.settings"}, {"msgspec"}),
    "service/settings.py": Room({"service.kinds"}),
    "service/kinds.py": Room(),
    "service/errors.py": Room(),
    "service/log.py": Room(set(), {"msgspec"}),
    "service/preflight.py": Room(
        BASICS | {"service.artefacts", "service.core", "service.keys", "service.wire"} | ARTEFACT
    ),
    "service/artefacts.py": Room(BASICS | {"service.core", "service.wire"} | ARTEFACT),
    "service/supervisor.py": Room(
        BASICS | {"service.core", "service.wire", "service.lateness", "service.orphans", "service.places"}
    ),
    "service/places.py": Room(BASICS | {"service.core", "service.ports", "service.preflight", "service.wire"}),
    "service/lateness.py": Room({"service.wire"}),
    "service/orphans.py": Room(),
    "service/ports.py": Room({"service.errors"}),
    "service/__main__.py": Room(BASICS | {"service.supervisor"}),
    "service/version.py": Room(),
    "service": Room(),
    "models/levels.py": Room(set(), {"msgspec"}),
    "models/manifest.py": Room({"models.levels"}, {"msgspec"}),
    "models": Room(set(), ANY),
    "squint/measure": Room(
        {"models", "service.errors", "service.config", "service.settings", "service.wire", "service.tasks"}
        | {"service.backends", "service.decoder.image", "squint.client", "squint.errors"},
        {"httpx", "msgspec", "numpy", "pycocotools", "tqdm", "PIL"},
    ),
    "squint/client": Room({"service.version"}, {"httpx", "msgspec", "numpy", "PIL"}),
    "squint": Room(
        {
            "models",
            "loadtest",
            "service.errors",
            "service.config",
            "service.keys",
            "service.kinds",
            "service.settings",
            "service.supervisor",
        }
        | {"service.version"},
        {"httpx", "msgspec", "tqdm"},
    ),
    "loadtest": Room(set(), ANY),
}

HEAVY: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("service/backends/onnxruntime.py", "loadtest/peers/"),
    "openvino": ("service/backends/openvino.py",),
    "tensorrt": ("service/backends/tensorrt.py",),
    "torch": (
        *("models/", "service/backends/torch.py", "service/backends/torch_card.py"),
        *("service/backends/arrays.py", "loadtest/peers/"),
    ),
    "nvidia": ("service/worker/codec.py",),
    **dict.fromkeys(TRAINING - {"torch"}, ("models/", "loadtest/peers/")),
    **dict.fromkeys(IMAGES, ("service/decoder/image.py", "models/", "squint/client/", "squint/measure/", "loadtest/")),
    "pycocotools": ("service/tasks/", "squint/measure/"),
}

CORE_STDLIB = {
    *("abc", "bisect", "collections", "dataclasses", "enum", "functools", "heapq", "itertools", "math", "operator"),
    *("types", "typing"),
}
SIGNALS = ("service/supervisor.py", "main.py", "models/parallel.py")
SIGNAL_CALLS = {"signal", "pause", "alarm", "setitimer", "set_wakeup_fd", "pthread_sigmask", "sigwait", "sigtimedwait"}
PROCESSES = ("service/supervisor.py", "service/backends/", "models/", "loadtest/")
FLAGS = ("squint/cli.py", "squint/commands/", "loadtest/")
READERS = (
    "service/config.py",
    "service/keys.py",
    "service/lateness.py",
    "service/gateway/tls.py",
    "service/gateway/playground.py",
    "service/backends/",
    "service/worker/",
    "models/",
    "squint/",
    "loadtest/",
)
BANNED_IMPORTS = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "importlib.reload"}
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}


@dataclass(frozen=True)
class Source:
    """One Python file; `path` is relative to the root and uses slashes."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def inside(self, *places: str) -> bool:
        """Whether the path is one of the places: a folder, a file, or a bare file name."""
        return any(
            self.path == place or (place.endswith("/") and self.path.startswith(place)) or self._named(place)
            for place in places
        )

    def _named(self, place: str) -> bool:
        return "/" not in place and self.path.startswith("service/") and self.path.endswith("/" + place)

    @cached_property
    def imports(self) -> tuple[str, ...]:
        """Every dotted name imported anywhere, except for types only; `from a import b` gives `a.b`."""
        return tuple(_imports(self.tree))

    @property
    def calls(self) -> Iterator[tuple[int, str]]:
        """Line and dotted name of every call."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield node.lineno, dotted(node.func)


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{'.' * child.level}{child.module or ''}.{alias.name}" for alias in child.names)
        else:
            yield from _imports(child)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute; other parts are empty."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def sources(*folders: str) -> list[Source]:
    """All Python files of the folders."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths]


def room_of(path: str) -> tuple[str, Room]:
    """The nearest room: the file itself, or the folder that is deepest."""
    place = max((name for name in ROOMS if path == name or path.startswith(name + "/")), key=len)
    return place, ROOMS[place]


def _within(name: str, allowed: str) -> bool:
    return name == allowed or name.startswith(allowed + ".")


def imports_outside_room(source: Source) -> list[str]:
    """Walls 1, 2 and 4: who may import whom."""
    place, room = room_of(source.path)
    own = place.removesuffix(".py").replace("/", ".")
    if place == "service":
        own = source.module  # a new file beside the rooms: nothing is its own but itself
    elif place.endswith(".py") and place.count("/") > 1:
        own = own.rpartition(".")[0]
    breaches = []
    for name in source.imports:
        top = name.partition(".")[0]
        if top == "":
            breaches.append(f"{source.path}: relative import {name}")
        elif top in PACKAGES:
            if not any(_within(name, allowed) for allowed in room.ours | {own}):
                breaches.append(f"{source.path}: {place} may not import {name}")
        elif top not in sys.stdlib_module_names and not {top, "*"} & room.others:
            breaches.append(f"{source.path}: {place} may not import {top}")
    return breaches


def heavy_out_of_place(source: Source) -> list[str]:
    """Wall 3: one heavy library per file."""
    return [
        f"{source.path}: {name} belongs in {', '.join(HEAVY[name.partition('.')[0]])}"
        for name in source.imports
        if name.partition(".")[0] in HEAVY and not source.inside(*HEAVY[name.partition(".")[0]])
    ]


def impure(source: Source) -> list[str]:
    """Wall 1: the core has no clock, socket, sleep, thread or file; only what can be computed."""
    if not source.inside("service/core/"):
        return []
    tops = {name.partition(".")[0] for name in source.imports} & set(sys.stdlib_module_names)
    breaches = [f"{source.path}: imports {top}" for top in sorted(tops - CORE_STDLIB - {"__future__"})]
    breaches += [f"{source.path}:{line}: calls {name}" for line, name in source.calls if name in {"open", "print"}]
    return breaches + [
        f"{source.path}:{node.lineno}: async"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.AsyncFunctionDef)
    ]


def reads_outside(source: Source) -> list[str]:
    """Wall 5: environment, flags and files are read in config.py; models and caches by those who own them."""
    breaches = []
    names = {dotted(node): node.lineno for node in ast.walk(source.tree) if isinstance(node, ast.Attribute)}
    # A decoder empties its environment; whoever trains or loads from outside is no part of the service.
    free = source.inside("service/config.py", "models/", "loadtest/") or "os.environ.clear" in names
    for name, line in names.items():
        if name in {"os.environ", "os.environb", "os.getenv", "os.putenv"} and not free:
            breaches.append(f"{source.path}:{line}: reads the environment ({name})")
        if name == "sys.argv" and not source.inside("service/child.py"):
            breaches.append(f"{source.path}:{line}: reads flags (sys.argv)")
        if name.endswith((".read_text", ".read_bytes", ".open", "os.open")) and not source.inside(*READERS):
            breaches.append(f"{source.path}:{line}: opens a file ({name})")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and dotted(node.func) == "open" and not source.inside(*READERS):
            about_itself = node.args and str(getattr(node.args[0], "value", "")).startswith("/proc/self/")
            if not about_itself:
                breaches.append(f"{source.path}:{node.lineno}: opens a file")
    return breaches


def led_elsewhere(source: Source) -> list[str]:
    """Wall 5: signals, processes, flags and configuration formats, each in its place."""
    tops = {name.partition(".")[0] for name in source.imports}
    owners = {"argparse": FLAGS, "subprocess": PROCESSES}
    owners |= dict.fromkeys(("tomllib", "configparser", "dotenv"), ("service/config.py",))
    breaches = [
        f"{source.path}: imports {top}, which belongs in {', '.join(places)}"
        for top, places in owners.items()
        if top in tops and not source.inside(*places)
    ]
    for line, name in source.calls:
        module, _, function = name.rpartition(".")
        handles = (module == "signal" and function in SIGNAL_CALLS) or function == "add_signal_handler"
        if handles and not source.inside(*SIGNALS):
            breaches.append(f"{source.path}:{line}: {name} belongs in {', '.join(SIGNALS)}")
    return breaches


def badly_named(source: Source) -> list[str]:
    """Wall 5: a name says what a thing is."""
    parts = set(source.path.removesuffix(".py").split("/"))
    breaches = [f"{source.path}: is called {name}" for name in sorted(parts & BANNED_NAMES)]
    return breaches + [
        f"{source.path}:{node.lineno}: class {node.name}"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Manager", "Helper", "Util", "Utils"))
    ]


def unsafe(source: Source) -> list[str]:
    """Wall 6: no pickle in any form, no eval, no assert."""
    breaches = [
        f"{source.path}: imports {name}"
        for name in source.imports
        if name in BANNED_IMPORTS or name.partition(".")[0] in BANNED_IMPORTS
    ]
    for line, name in source.calls:
        if name in {"eval", "exec", "torch.load", "yaml.load", "os.system"}:
            breaches.append(f"{source.path}:{line}: calls {name}")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Assert):
            breaches.append(f"{source.path}:{node.lineno}: assert")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and getattr(node.value, "value", None) is True:
            breaches.append(f"{source.path}:{node.value.lineno}: allow_pickle")
    return breaches


def cycles(tree: list[Source]) -> list[list[str]]:
    """Wall 5: groups of modules that import one another, in any order."""
    modules = {source.module for source in tree}
    edges = {source.module: set(_targets(source, modules)) - {source.module} for source in tree}
    found: list[list[str]] = []
    while True:
        leaves = {module for module, targets in edges.items() if not targets & set(edges)}
        if not leaves:
            break
        edges = {module: targets for module, targets in edges.items() if module not in leaves}
    for start in sorted(edges):
        reached, frontier = set[str](), [start]
        while frontier:
            for target in edges[frontier.pop()] & set(edges):
                if target not in reached:
                    reached.add(target)
                    frontier.append(target)
        if start in reached:
            found.append(sorted(reached))
    return found


def _targets(source: Source, modules: set[str]) -> Iterator[str]:
    for name in source.imports:
        for target in (name, name.rpartition(".")[0]):
            if target in modules:
                yield target
                break
