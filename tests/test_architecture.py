"""The walls of ARCHITECTURE.md, kept for every file of the tree, and each shown able to fail."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests import walls
from tests.walls import PACKAGES, ROOT, Source

TREE = walls.sources(*PACKAGES)
CHECKS = (
    walls.imports_outside_room,
    walls.heavy_out_of_place,
    walls.impure,
    walls.reads_outside,
    walls.led_elsewhere,
    walls.badly_named,
    walls.unsafe,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_tree_keeps_the_wall(check: Callable[[Source], list[str]]) -> None:
    breaches = [breach for source in TREE for breach in check(source)]
    assert not breaches, "\n" + "\n".join(breaches)


def test_no_modules_import_one_another() -> None:
    assert walls.cycles(TREE) == []


OFFENDERS = [
    (walls.imports_outside_room, "service/core/x.py", "import fastapi"),
    (walls.imports_outside_room, "service/core/x.py", "from service.wire import messages"),
    (walls.imports_outside_room, "service/wire/x.py", "def f():\n    import numpy"),
    (walls.imports_outside_room, "service/gateway/x.py", "from service.worker import guard"),
    (walls.imports_outside_room, "service/gateway/x.py", "import service.decoder.image"),
    (walls.imports_outside_room, "service/gateway/x.py", "from service import decoder"),
    (walls.imports_outside_room, "service/gateway/x.py", "import numpy as np"),
    (walls.imports_outside_room, "service/decoder/x.py", "from service.dispatcher.engine import Engine"),
    (walls.imports_outside_room, "service/worker/x.py", "from service.decoder import image"),
    (walls.imports_outside_room, "service/worker/x.py", "from models.backbones import vit"),
    (walls.imports_outside_room, "service/backends/x.py", "from models.backbones import vit"),
    (walls.imports_outside_room, "service/supervisor.py", "from service.gateway import app"),
    (walls.imports_outside_room, "service/tasks/x.py", "from service.gateway import app"),
    (walls.imports_outside_room, "models/x.py", "from service import errors"),
    (walls.imports_outside_room, "models/x.py", "import squint.cli"),
    (walls.imports_outside_room, "service/x.py", "import squint"),
    (walls.imports_outside_room, "loadtest/x.py", "from service.wire import messages"),
    (walls.imports_outside_room, "squint/x.py", "from service.gateway import app"),
    (walls.imports_outside_room, "service/core/x.py", "from . import queue"),
    (walls.heavy_out_of_place, "service/decoder/main.py", "from PIL import Image"),
    (walls.heavy_out_of_place, "service/backends/registry.py", "import onnxruntime"),
    (walls.heavy_out_of_place, "service/worker/main.py", "def f():\n    import torch"),
    (walls.heavy_out_of_place, "service/gateway/app.py", "from pycocotools import mask"),
    (walls.impure, "service/core/x.py", "import time"),
    (walls.impure, "service/core/x.py", "from datetime import datetime"),
    (walls.impure, "service/core/x.py", "import asyncio"),
    (walls.impure, "service/core/x.py", "import random"),
    (walls.impure, "service/core/x.py", "open('x')"),
    (walls.impure, "service/core/x.py", "async def f(): ..."),
    (walls.reads_outside, "service/worker/x.py", "import os\nos.environ['A']"),
    (walls.reads_outside, "squint/cli.py", "import os\nos.getenv('A')"),
    (walls.reads_outside, "service/gateway/x.py", "import sys\nsys.argv[1]"),
    (walls.reads_outside, "service/gateway/x.py", "open('x')"),
    (walls.reads_outside, "service/gateway/x.py", "from pathlib import Path\nPath('x').read_text()"),
    (walls.reads_outside, "service/decoder/x.py", "import os\nos.open('x', 0)"),
    (walls.led_elsewhere, "service/dispatcher/engine.py", "import signal\nsignal.signal(2, f)"),
    (walls.led_elsewhere, "service/worker/guard.py", "loop.add_signal_handler(2, f)"),
    (walls.imports_outside_room, "service/x.py", "from service.gateway import app"),
    (walls.led_elsewhere, "service/gateway/x.py", "import argparse"),
    (walls.led_elsewhere, "service/gateway/x.py", "import subprocess"),
    (walls.led_elsewhere, "service/worker/x.py", "import tomllib"),
    (walls.badly_named, "service/utils.py", ""),
    (walls.badly_named, "service/common/x.py", ""),
    (walls.badly_named, "service/x.py", "class SlotManager: ..."),
    (walls.unsafe, "models/x.py", "import pickle"),
    (walls.unsafe, "models/x.py", "from pickle import loads"),
    (walls.unsafe, "models/x.py", "import torch\ntorch.load('x')"),
    (walls.unsafe, "models/x.py", "eval('1')"),
    (walls.unsafe, "models/x.py", "import numpy as np\nnp.load('x', allow_pickle=True)"),
    (walls.unsafe, "models/x.py", "assert True"),
]


@pytest.mark.parametrize(("check", "path", "text"), OFFENDERS, ids=lambda value: getattr(value, "__name__", value))
def test_a_breach_is_seen(check: Callable[[Source], list[str]], path: str, text: str) -> None:
    assert check(Source(path, text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("service/core/x.py", "import math\nfrom service.core.queue import Queue\nfrom service.errors import Refusal"),
        ("service/backends/onnxruntime.py", "import onnxruntime\nfrom service.backends.base import Backend"),
        ("service/backends/torch.py", "import torch\nfrom models.restored import restored"),
        ("service/decoder/image.py", "from PIL import Image\nimport simplejpeg"),
        ("service/config.py", "import os, tomllib\nos.environ.get('A')\nopen('x')"),
        ("service/worker/main.py", "import signal\nsignal.signal(2, f)"),
        ("service/decoder/x.py", "import os\nos.environ.clear()\nopen('/proc/self/statm')"),
        ("squint/measure/x.py", "from service.decoder import image\nfrom service.backends.base import Backend"),
        ("models/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import service.errors"),
    ],
)
def test_what_is_allowed_is_no_breach(path: str, text: str) -> None:
    assert [breach for check in CHECKS for breach in check(Source(path, text))] == []


def test_a_cycle_is_seen() -> None:
    one = Source("service/core/one.py", "from service.core import two")
    two = Source("service/core/two.py", "def late():\n    from service.core.one import name")
    three = Source("service/core/three.py", "from service.core.one import name")
    assert walls.cycles([one, three]) == []
    assert walls.cycles([one, two, three]) == [["service.core.one", "service.core.two"]] * 2


LIGHT = {"numpy", "PIL", "simplejpeg", "kornia_rs", "cv2", "onnxruntime", "openvino", "torch", "pycocotools"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("service.gateway.main", LIGHT),
        ("service.supervisor", LIGHT | {"fastapi", "uvicorn", "asyncio"}),
        ("service.decoder.main", {"onnxruntime", "openvino", "torch", "fastapi", "uvicorn", "asyncio"}),
        ("service.worker.main", {"PIL", "simplejpeg", "torch", "fastapi", "uvicorn"}),
        ("service.core.dispatch", LIGHT | {"asyncio", "socket"}),
        ("squint.cli", LIGHT | {"fastapi", "uvicorn", "httpx", "asyncio", "squint.measure"}),
    ],
)
def test_a_process_loads_only_what_is_its_own(module: str, unwanted: set[str]) -> None:
    """What the imports add up to, all the way down."""
    code = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not unwanted & set(run.stdout.split())


PAGE = (ROOT / "ARCHITECTURE.md").read_text()
NAMED = set(re.findall(r"`([\w./-]+)`", PAGE))


def folders() -> set[str]:
    """Folders with Python files in them."""
    return {source.path.rpartition("/")[0] + "/" for source in TREE if source.text.strip()}


def test_the_page_names_every_folder() -> None:
    assert sorted(folders() - NAMED) == []


def test_the_page_names_every_file_of_the_service() -> None:
    files = {source.path for source in TREE if source.path.startswith("service/") and source.text.strip()}
    said = {name for name in NAMED if name.endswith(".py")}
    unnamed = {path for path in files if path not in said and path.rpartition("/")[2] not in _listed(path)}
    assert sorted(unnamed) == []


def test_the_page_names_nothing_that_is_not_there() -> None:
    places = {
        name for name in NAMED if "/" in name and name.partition("/")[0] in {*PACKAGES, "tests", "deploy", "docs"}
    }
    assert sorted(name for name in places if not (ROOT / name).exists()) == []


def test_the_page_lists_no_file_that_is_gone() -> None:
    for folder in sorted(folders() | {"service/"}):
        listed = _listed(folder)
        assert sorted(name for name in listed if not (ROOT / folder / name).exists()) == [], folder


def _listed(path: str) -> set[str]:
    """File names in the items of the page that begin with the file's folder."""
    folder = path.rpartition("/")[0] + "/"
    items = [item for item in PAGE.split("\n- ") if item.startswith(f"`{folder}`")]
    return {name for item in items for name in re.findall(r"`(\w+\.py)`", item)}
