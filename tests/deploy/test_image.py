"""The image: what the Dockerfile says, and every step of it carried out in a clean folder.

The rehearsal takes minutes and is left out by default: make image.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service import config
from service.settings import SETTINGS
from service.version import VERSION
from tests.deploy import rehearsal
from tests.deploy.dockerfile import Stage, context, stages
from tests.deploy.rehearsal import Container, Image
from tests.e2e.http import once
from tests.e2e.service import free_port
from tests.walls import ROOT

IMAGES = ("cpu", "gpu")
SITE = Path("srv/squint/lib")


@pytest.fixture(scope="module")
def file() -> dict[str, Stage]:
    return stages()


# -- what it says ------------------------------------------------------------------------------------------------------


def test_the_default_is_the_image_for_cpus(file: dict[str, Stage]) -> None:
    assert list(file)[-1] == "cpu"
    assert set(IMAGES) < set(file)


def test_bases_are_pinned_and_stages_known(file: dict[str, Stage]) -> None:
    names = list(file)
    for number, stage in enumerate(file.values()):
        if stage.base not in names[:number]:
            assert re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+-[a-z0-9.-]+", stage.base), stage.base
        for step in stage.all("COPY"):
            assert step.flags.get("from", names[0]) in names[:number] or "from" not in step.flags


def test_what_is_copied_is_let_through(file: dict[str, Stage]) -> None:
    seen = context()
    for stage in file.values():
        for step in stage.all("COPY"):
            for source in step.words[:-1] if "from" not in step.flags else []:
                assert source == "." or [path for path in seen if Path(source) in (path, *path.parents)], source


def test_nothing_is_let_through_that_no_image_needs() -> None:
    seen = context()
    tops = {path.parts[0] for path in seen}
    packaging = {"requirements", "pyproject.toml", "README.md", "LICENSE"}
    assert tops == packaging | {"deploy", "loadtest", "models", "samples", "service", "squint"}
    assert {path.parts[1] for path in seen if path.parts[0] == "deploy"} == {"image"}
    assert not [path for path in seen if path.suffix in {".pyc", ".key", ".pem"} or "__pycache__" in path.parts]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_nobody_in_particular(file: dict[str, Stage], name: str) -> None:
    user, _, group = file[name].one("USER").text.partition(":")
    assert int(user) >= 10000
    assert int(group) >= 10000
    after = file[name].steps[file[name].steps.index(file[name].one("USER")) :]
    assert not [step for step in after if step.name in {"RUN", "COPY"}]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_starts_and_stops_as_the_service_does(file: dict[str, Stage], name: str) -> None:
    stage = file[name]
    assert (stage.one("ENTRYPOINT").text, stage.one("CMD").text) == ('["squint"]', '["serve"]')
    assert stage.one("STOPSIGNAL").text == "SIGTERM"
    assert '["squint", "health"]' in stage.one("HEALTHCHECK").text
    assert int(stage.one("HEALTHCHECK").flags["start-period"].removesuffix("s")) >= config.Config().load_seconds
    assert stage.one("EXPOSE").words == [str(config.Config().http_port), str(config.Config().grpc_port)]


@pytest.mark.parametrize("name", IMAGES)
def test_its_variables_are_settings(file: dict[str, Stage], name: str) -> None:
    given = dict(word.split("=", 1) for word in file[name].one("ENV").words)
    known = {setting.variable for setting in SETTINGS}
    ours = {variable: value for variable, value in given.items() if variable.startswith("SQUINT_")}
    assert set(ours) <= known
    loaded = config.load({}, ours | {"HOME": given["HOME"]})
    assert loaded.cache_dir == file[name].one("VOLUME").words[0]
    assert loaded.host == "0.0.0.0"


def test_the_images_differ_by_their_base_and_name_alone(file: dict[str, Stage]) -> None:
    def told(name: str) -> list[tuple[str, str]]:
        lines = [(step.name, str(step.flags) + step.text) for step in file[name].steps]
        return [
            (kind, text.replace(f"-{name}'", "").replace(f'{VERSION}-{name}"', f'{VERSION}"')) for kind, text in lines
        ]

    assert told("cpu") == told("gpu")


@pytest.mark.parametrize("name", IMAGES)
def test_its_label_says_the_version(file: dict[str, Stage], name: str) -> None:
    suffix = "" if name == "cpu" else f"-{name}"
    assert f'image.version="{VERSION}{suffix}"' in file[name].one("LABEL").text


@pytest.mark.parametrize("name", IMAGES)
def test_what_builds_stays_behind(file: dict[str, Stage], name: str) -> None:
    steps = [*file[name].all("RUN"), *(file[file[name].base].all("RUN") if file[name].base in file else [])]
    assert not [step.text for step in steps if re.search(r"\bpip\b|gcc|build-essential|-dev\b|venv", step.text)]


@pytest.mark.parametrize("script", sorted((ROOT / "deploy" / "image").glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_shell_and_fail_at_the_first_error(script: Path) -> None:
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    assert script.read_text().startswith("#!/bin/sh\n")
    assert "\nset -eu\n" in script.read_text()


def test_every_script_is_a_step(file: dict[str, Stage]) -> None:
    run = " ".join(step.text for stage in file.values() for step in stage.all("RUN"))
    assert {path.name for path in (ROOT / "deploy" / "image").iterdir()} == set(re.findall(r"(\w+\.sh)", run))


# -- what it does ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(file: dict[str, Stage], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Every step of the image for CPUs, carried out."""
    lacking = rehearsal.missing()
    if lacking:
        (pytest.fail if os.environ.get("TEST_TOOLS") == "required" else pytest.skip)(lacking)
    folder = tmp_path_factory.mktemp("image")
    begin = time.monotonic()
    built = rehearsal.build(file, "cpu", folder)
    megabytes = sum(path.lstat().st_size for path in (built.root / "srv").rglob("*") if path.is_file()) / 1e6
    print(f"\nbuilt in {time.monotonic() - begin:.0f} s; what it adds to its base has {megabytes:.0f} MB")
    yield built


@pytest.fixture
def container(image: Image, tmp_path: Path) -> Iterator[tuple[Container, int]]:
    """The image at work on a free port, told by variables as an operator would."""
    port = free_port()
    environment = image.environment | {
        "SQUINT_HTTP_PORT": str(port),
        "SQUINT_GRPC_PORT": "0",
        "SQUINT_HOST": "127.0.0.1",
        "SQUINT_BACKEND": "onnxruntime",
        "SQUINT_DRAIN_SECONDS": "1",
    }
    changed = replace(image, environment=environment)
    with Container(changed, tmp_path / "log.jsonl") as running:
        assert running.healthy(300), running.log.read_text()[-3000:]
        yield running, port


@pytest.mark.image
def test_nothing_in_it_can_be_written_by_its_user(image: Image) -> None:
    user = int(image.user)
    loose = []
    for path in (image.root / "srv").rglob("*"):
        told = path.lstat()
        if not stat.S_ISLNK(told.st_mode) and (told.st_mode & 0o022 or told.st_uid == user):
            loose.append(str(path))
    assert not loose[:5]
    kept = (image.root / image.volume.lstrip("/")).stat()
    assert (kept.st_uid, stat.S_IMODE(kept.st_mode)) == (user, 0o700)


@pytest.mark.image
def test_it_holds_the_project_whole_and_nothing_that_builds(image: Image) -> None:
    (site,) = (image.root / SITE).glob("python3*/site-packages")
    ours = {"squint", "service", "models", "samples"}
    expected = [path for path in context() if path.parts[0] in ours and path.suffix != ".md"]
    assert not [path for path in expected if not (site / path).is_file()]
    assert not [name for name in ("pip", "setuptools", "wheel", "grpc_tools", "torch") if (site / name).exists()]
    sources = list((site / "service").rglob("*.py"))
    assert sources
    assert not [path for path in sources if not list(path.parent.glob(f"__pycache__/{path.stem}.*.pyc"))]


@pytest.mark.image
def test_it_answers_all_three_tasks(container: tuple[Container, int]) -> None:
    _, port = container
    for task in ("classify", "detect", "segment"):
        photo = (ROOT / "samples" / f"{task}.jpg").read_bytes()
        reply = asyncio.run(once(port, "POST", f"/{task}", photo, {"Content-Type": "image/jpeg"}))
        assert reply.status == 200, reply.body
        assert reply.json()["backend"].startswith("onnxruntime")


@pytest.mark.image
def test_its_supervisor_is_process_1_and_adopts_orphans(container: tuple[Container, int]) -> None:
    running, _ = container
    assert running.run("cat", "/proc/1/status").stdout.count(f"Uid:\t{running.image.user}")
    assert running.run("sh", "-c", "(sleep 0.3 &) ; echo left").stdout == "left\n"
    time.sleep(1.5)
    states = running.run("sh", "-c", "cat /proc/[0-9]*/stat").stdout
    assert "(python" in states or "squint" in states
    assert ") Z " not in states
    assert "(sleep)" not in states


@pytest.mark.image
def test_it_needs_no_rights_and_no_place_to_write_but_its_cache(container: tuple[Container, int]) -> None:
    running, _ = container
    told = running.run("cat", "/proc/1/status").stdout
    assert "CapEff:\t0000000000000000" in told
    assert "CapBnd:\t0000000000000000" in told
    assert "NoNewPrivs:\t1" in told
    for place in ("/srv/squint/x", "/tmp/x", "/x", "/etc/x"):
        assert running.run("touch", place).returncode != 0
    assert running.run("touch", "/var/cache/squint/x").returncode == 0
    if platform.machine() == "x86_64":
        assert running.run("cat", "/proc/1/status").stdout.count("Seccomp_filters:\t1")
    # The decoders' own filter is on top of the runtime's.
    assert "sandbox_incomplete" not in running.log.read_text()


@pytest.mark.image
def test_it_drains_and_ends_when_told(container: tuple[Container, int]) -> None:
    running, _ = container
    assert running.stop(26) == 0
    assert running.process.returncode == 0


@pytest.mark.image
def test_told_to_stop_before_it_is_ready_it_ends_at_once(image: Image, tmp_path: Path) -> None:
    changed = replace(image, environment=image.environment | {"SQUINT_HTTP_PORT": "0"})
    with Container(changed, tmp_path / "log.jsonl", "serve", "--backend", "onnxruntime", "--grpc-port", "0") as running:
        until = time.monotonic() + 30
        while "listening" not in running.log.read_text() and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(running.first(), signal.SIGTERM)
        assert running.process.wait(20) == 0
