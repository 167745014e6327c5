"""What docs/client.md shows can be run as it stands, in its order, against a running service."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.service import ROOT, Service

DOCUMENT = (ROOT / "docs" / "client.md").read_text()
ADDRESS = "http://127.0.0.1:8000"


def run(service: Service, folder: Path, command: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "samples").symlink_to(ROOT / "samples")
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, *command],
        input=given,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_examples_run(service: Service, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 10
    script = "\n".join(blocks).replace(ADDRESS, f"http://127.0.0.1:{service.port}")
    done = run(service, tmp_path, ["-"], script)
    assert done.returncode == 0, done.stderr
    assert "unsupported_media_type" in done.stdout and "bad_option top_k must be" in done.stdout
    assert "not answered" not in done.stdout
    assert (tmp_path / "detect.png").stat().st_size and (tmp_path / "boxes.png").stat().st_size


def test_the_commands_run(service: Service, tmp_path: Path) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    lines = [line.split() for line in block.splitlines()]
    assert lines and all(line[:2] == ["squint", "ask"] for line in lines)
    for number, line in enumerate(lines):
        if "https://vision.example.com" in line:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        done = run(service, folder, ["-m", *line, "--url", f"http://127.0.0.1:{service.port}"])
        assert done.returncode == 0, done.stderr
        if "--save" in line:
            assert (folder / line[line.index("--save") + 1]).exists()


IMPORTS = """
import sys
for name in ("numpy", "PIL"):
    sys.modules[name] = None  # as if it were not installed
import squint.client
loaded = {name.partition(".")[0] for name in sys.modules if sys.modules[name] is not None}
print(sorted(loaded & {"fastapi", "pydantic", "uvicorn", "onnxruntime", "openvino", "models", "tqdm"}))
with squint.client.Client(ADDRESS) as client:
    print(client.classify("samples/classify.jpg").best.label, client.segment("samples/segment.jpg").size)
"""


def test_it_needs_httpx_and_msgspec_alone(service: Service, tmp_path: Path) -> None:
    script = IMPORTS.replace("ADDRESS", repr(f"http://127.0.0.1:{service.port}"))
    done = run(service, tmp_path, ["-"], script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[]\n")
