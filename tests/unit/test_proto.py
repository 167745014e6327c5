"""The generated code is that of the .proto files beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.walls import ROOT

PROTOS = sorted((ROOT / "service" / "proto").rglob("*.proto"))


@pytest.mark.parametrize("proto", PROTOS, ids=lambda path: path.name)
def test_the_code_is_up_to_date(proto: Path, tmp_path: Path) -> None:
    said = str(proto.relative_to(ROOT))
    outs = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *outs, said], cwd=ROOT, check=True)
    for suffix in ("_pb2.py", "_pb2.pyi"):
        name = said.removesuffix(".proto") + suffix
        assert (ROOT / name).read_text() == (tmp_path / name).read_text(), "run: make proto"


def test_there_is_something_to_check() -> None:
    assert PROTOS
