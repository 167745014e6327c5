"""Programs that tests of deployment need, and what becomes of a test without them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml


def lacking(why: str) -> NoReturn:
    """Skip, or fail where everything must be tested."""
    if os.environ.get("TEST_TOOLS") == "required":
        pytest.fail(why)
    pytest.skip(why)


@cache
def _too_old() -> bool:
    """The kustomize in kubectl before 1.21, such as Debian 12's, does not know our files."""
    told = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, check=False)
    version = str(json.loads(told.stdout or b"{}").get("kustomizeVersion", ""))
    major = version.removeprefix("v").partition(".")[0]
    return not (major.isdigit() and int(major) >= 4)


def kustomize(directory: Path) -> list[dict[str, Any]]:
    """The objects that a kustomization makes."""
    if shutil.which("kubectl") is None:
        lacking("needs kubectl")
    if _too_old():
        pytest.skip("needs kubectl 1.21 or newer")
    done = subprocess.run(
        ["kubectl", "kustomize", str(directory)], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return list(yaml.safe_load_all(done.stdout))
