"""Does what `docker build` and `docker run` would do, without either: every step of a stage, in a clean folder.

The tree of a stage is a folder; its base is this machine's own system folders, mounted read-only. A step runs with
that folder as its root, in namespaces for mounts and processes of its own. Needs root and `unshare`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from tests.deploy.dockerfile import Stage, Step, context
from tests.walls import ROOT

STEP_SECONDS = 900.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROFILE = Path(__file__).with_name("profile.py")
_ENTER = Path(__file__).with_name("enter.sh")
_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt")
_PASSED = re.compile(r"PIP_\w+|\w*(?:_CA_BUNDLE|SSL_CERT\w*)|(?:https?|no)_proxy", re.IGNORECASE)


def missing() -> str:
    """Why this machine cannot do it; empty when it can."""
    if os.geteuid() != 0:
        return "needs root"
    lacking = [name for name in ("unshare", "setpriv", "chroot", "nsenter", "mount") if shutil.which(name) is None]
    if lacking:
        return f"needs {', '.join(lacking)}"
    done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return "namespaces are not permitted" if done.returncode else ""


@dataclass(frozen=True)
class Image:
    """What a stage has become."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = "/"
    user: str = "0"
    volume: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"


def build(stages: dict[str, Stage], name: str, folder: Path) -> Image:
    """Carry out the steps of a stage, and first those of the stages it takes from."""
    stage = stages[name]
    image = Image(folder / name, {"PATH": f"{sys.base_prefix}/bin:{_PATH}"})
    if stage.base in stages:
        image = replace(build(stages, stage.base, folder), root=folder / name)
        shutil.copytree(folder / stage.base, image.root, symlinks=True)
    else:
        _foundation(image.root)
    for step in stage.steps:
        source = step.flags.get("from")
        if source is not None and not (folder / source).is_dir():
            build(stages, source, folder)
        image = _carry_out(step, image, folder)
    return image


def _foundation(root: Path) -> None:
    """An empty tree with the places that a base has."""
    root.mkdir(parents=True)
    for name in ("proc", "sys", "dev", "var", "srv", "root", "tmp", "run"):
        (root / name).mkdir()
    (root / "tmp").chmod(0o1777)
    for name in _SYSTEM:
        place = Path("/") / name
        if place.is_symlink():
            (root / name).symlink_to(os.readlink(place))
        elif place.is_dir():
            (root / name).mkdir()
    (root / sys.base_prefix.lstrip("/")).mkdir(parents=True, exist_ok=True)


def _carry_out(step: Step, image: Image, folder: Path) -> Image:
    if step.name == "WORKDIR":
        (image.root / step.text.lstrip("/")).mkdir(parents=True, exist_ok=True)
        return replace(image, directory=step.text)
    if step.name == "ENV":
        pairs = dict(word.split("=", 1) for word in step.words)
        values = {key: value.replace("$PATH", image.environment["PATH"]) for key, value in pairs.items()}
        return replace(image, environment=image.environment | values)
    if step.name == "COPY":
        _copy(step, image, folder)
    elif step.name == "RUN":
        _run(step, image)
    elif step.name == "USER":
        return replace(image, user=step.text.partition(":")[0])
    elif step.name == "VOLUME":
        return replace(image, volume=step.words[0])
    elif step.name == "STOPSIGNAL":
        return replace(image, stop_signal=step.text)
    elif step.name == "HEALTHCHECK":
        return replace(image, health=tuple(Step("CMD", {}, step.text.removeprefix("CMD ")).words))
    elif step.name in {"ENTRYPOINT", "CMD"}:
        field_name = {"ENTRYPOINT": "entrypoint", "CMD": "command"}[step.name]
        return replace(image, **{field_name: tuple(step.words)})  # type: ignore[arg-type]
    return image


def _copy(step: Step, image: Image, folder: Path) -> None:
    *sources, to = step.words
    target = image.root / image.directory.lstrip("/") / to if not to.startswith("/") else image.root / to.lstrip("/")
    if "from" in step.flags:
        for source in sources:
            shutil.copytree(folder / step.flags["from"] / source.lstrip("/"), target, symlinks=True, dirs_exist_ok=True)
        return
    seen = context()
    for source in sources:
        taken = [path for path in seen if source == "." or path == Path(source) or Path(source) in path.parents]
        if not taken:
            raise FileNotFoundError(f"COPY {source}: nothing that .dockerignore lets through")
        for path in taken:
            # A file that is named goes into the folder, or becomes it; what is in a folder keeps its place.
            single = path == Path(source)
            goal = (target / path.name if to.endswith("/") else target) if single else target / path
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, goal)
            goal.chmod(0o755 if os.access(ROOT / path, os.X_OK) else 0o644)


def _run(step: Step, image: Image) -> None:
    secret = image.root / "root" / ".config" / "pip" / "pip.conf"
    own = Path.home() / ".config" / "pip" / "pip.conf"
    if own.is_file():
        # As the secret `pip` of a real build: how this machine reaches its packages is no part of an image.
        secret.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(own, secret)
    done = subprocess.run(
        [*_inside(image, "rw"), "/bin/sh", "-c", step.text],
        env=_environment(image) | {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=STEP_SECONDS,
        check=False,
    )
    secret.unlink(missing_ok=True)
    if done.returncode:
        raise RuntimeError(f"RUN {step.text}: exit status {done.returncode}\n{done.stdout[-4000:]}")


def _environment(image: Image) -> dict[str, str]:
    return {"HOME": "/root"} | image.environment


def _inside(image: Image, mode: str) -> list[str]:
    return [
        *("unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--propagation", "private", "--"),
        *("/bin/sh", str(_ENTER), str(image.root), mode, sys.base_prefix, image.volume, image.directory, image.user),
    ]


def _profiled() -> list[str]:
    """What denies a command the calls that a container is denied by default; as text, since it is in no image."""
    return ["python3", "-I", "-c", _PROFILE.read_text()]


class Container:
    """The image at work: its entry point as process 1 of its user, with a tree that nobody can write."""

    def __init__(self, image: Image, log: Path, *arguments: str) -> None:
        self.image = image
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*_inside(image, "ro"), *_profiled(), *image.entrypoint, *(arguments or image.command)],
                env=_environment(image),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            os.kill(self.first(), signal.SIGKILL)
        self.process.wait()

    def first(self) -> int:
        """The id, outside, of its process 1, which is there soon after the start."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        until = time.monotonic() + 10
        while not (listed := children.read_text().split()):
            if time.monotonic() > until:
                raise TimeoutError("no process 1")
            time.sleep(0.01)
        return int(listed[0])

    def run(self, *command: str, root: bool = False) -> subprocess.CompletedProcess[str]:
        """A command beside it, as `docker exec` would."""
        user = [] if root else ["--setuid", self.image.user, "--setgid", self.image.user]
        return subprocess.run(
            ["nsenter", "--target", str(self.first()), "--mount", "--pid", "--root", "--wd", *user, "--", *command],
            env=_environment(self.image),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def healthy(self, seconds: float) -> bool:
        """Whether its health check succeeds within so many seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            if self.run(*self.image.health).returncode == 0:
                return True
            time.sleep(0.5)
        return False

    def stop(self, seconds: float) -> int:
        """Its stop signal, and the exit status."""
        os.kill(self.first(), signal.Signals[self.image.stop_signal])
        return self.process.wait(seconds)
