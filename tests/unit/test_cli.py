"""The command line: what it accepts, how it ends, and that errors are one line."""

from __future__ import annotations

import builtins
import resource
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models import manifest
from service.backends.choose import Report
from service.backends.trial import Measured
from service.config import Config
from service.errors import ConfigError, StartError
from service.settings import SETTINGS
from service.wire.messages.worker import Timing
from squint import cli
from squint.measure import backends

ROOT = Path(__file__).parents[2]


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A directory with one model, whose graph is no graph: nothing here parses it."""
    directory = tmp_path / "zoo" / "shapes" / "2"
    directory.mkdir(parents=True)
    for name in ("model.onnx", "reference.safetensors"):
        (directory / name).write_bytes(name.encode() * 1000)
    levels = [manifest.Level(name="fast", gmacs=0.5, tokens=99), manifest.Level(name="full", gmacs=1.25, tokens=197)]
    levels[1] = msgspec.structs.replace(levels[1], accuracy=0.975)
    described = manifest.Manifest(
        format=manifest.FORMAT,
        name="shapes",
        version="2",
        task="classify",
        labels=["star", "moon"],
        licence="Apache-2.0",
        transform=manifest.Transform(fit="crop", height=224, width=224),
        graph="model.onnx",
        reference="reference.safetensors",
        files={name: manifest.describe_file(directory / name) for name in ("model.onnx", "reference.safetensors")},
        levels=levels,
        tolerance=manifest.Tolerance(agreement=0.99, score=0.01),
    )
    manifest.write(directory, described)
    return tmp_path / "zoo"


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Config]]:
    """In place of the service: takes the configurations it was started with."""
    started: list[Config] = []

    def run(config: Config, banner: Callable[[Config], None]) -> int:
        started.append(config)
        banner(config)
        return 3

    module = types.ModuleType("service.supervisor")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "service.supervisor", module)
    yield started


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        code = cli.main(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_serve_hands_the_configuration_over_and_returns_its_code(
    supervisor: list[Config], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUINT_DECODERS", "5")
    code, _, _ = run(capsys, "serve", "--http-port", "0", "--models", "/a", "--models", "/b", "--max-side", "99")
    assert code == 3
    assert supervisor[0].http_port == 0
    assert supervisor[0].models == ("/a", "/b")
    assert supervisor[0].limits.side == 99
    assert supervisor[0].decoders == 5


def test_three_lines_to_try_are_printed_once_it_is_ready(
    supervisor: list[Config], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    _, out, _ = run(capsys, "serve", "--http-port", "81", "--host", "::")
    lines = [line.strip() for line in out.splitlines() if line.strip().startswith("curl ")]
    assert [line.rpartition("/")[2] for line in lines] == ["classify", "detect", "segment"]
    assert all("http://127.0.0.1:81/" in line for line in lines)
    files = [word.removeprefix("@") for line in lines for word in line.split() if word.startswith("@")]
    assert all((ROOT / file).is_file() and not file.startswith("/") for file in files)
    monkeypatch.chdir(tmp_path)
    _, out, _ = run(capsys, "serve")
    assert f"@{ROOT}/samples/" in out


def test_a_first_start_says_that_it_takes_longer(
    supervisor: list[Config], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    _, out, _ = run(capsys, "serve", "--cache-dir", str(cache))
    assert out.startswith("Squint starts. Nothing was measured on this machine yet")
    _, out, _ = run(capsys, "serve", "--cache-dir", str(cache), "--backend", "fake", "--allow-fake")
    assert out.startswith("Squint is ready")
    cache.mkdir()
    (cache / "choice-1.json").touch()
    _, out, _ = run(capsys, "serve", "--cache-dir", str(cache))
    assert out.startswith("Squint is ready")


def test_every_setting_is_a_flag_with_its_variable_and_default_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "serve", "--help")
    assert code == 0
    text = " ".join(out.split())
    for setting in SETTINGS:
        assert f" {setting.flag} " in text
        assert f"[{setting.variable}]" in text


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "COMMAND"),
        (["dance"], 2, "dance"),
        (["serve", "--nonsense"], 2, "--nonsense"),
        (["serve", "--http", "80"], 2, "--http"),
        (["serve", "--http-port", "x"], 2, "--http-port x: expected a whole number"),
        (["serve", "--backend", "fake"], 2, "--allow-fake"),
        (["serve", "--config", "/absent.toml"], 2, "/absent.toml"),
        (["models"], 2, "COMMAND"),
        (["models", "levels"], 2, "NAME"),
        (["models", "list", "--models", "/absent"], 1, "/absent: no such model directory"),
        (["models", "levels", "nothing", "--models", "ZOO"], 1, "there are: shapes"),
        (["models", "evaluate", "shapes", "--models", "ZOO", "--scenes", "0"], 2, "1 to 1000000"),
        (["models", "evaluate", "shapes", "--models", "ZOO", "--level", "best"], 1, "fast, full"),
        (["models", "evaluate", "shapes", "--models", "ZOO", "--backend", "tpu"], 1, "onnxruntime, openvino"),
        (["models", "train", "toyscape", "--minutes", "nan"], 2, "more than 0"),
        (["models", "profile", "shapes", "--models", "ZOO", "--threads", "0"], 2, "--threads 0"),
        (["models", "profile", "shapes", "--models", "ZOO", "--backend", "tpu"], 2, "unknown backend 'tpu'"),
        (["models", "add", "timm/x"], 1, "--weights: expected random, pretrained"),
        (["models", "add", "timm/x", "--weights", "random", "--task", "detect"], 1, "its task is classify"),
        (["models", "add", "timm/X_Y", "--weights", "random", "--name", "X"], 1, "--name 'X': expected up to 64 of"),
        (["models", "add", "transformers/x", "--name", "x"], 1, "not available in this release"),
        (["models", "add", "keras/x"], 1, "expected timm/NAME, or onnx FILE"),
        (["models", "add", "onnx", "--task", "classify"], 1, "needs FILE, --name, --labels, --transform"),
        (["models", "add", "onnx", "x", "--task", "paint"], 2, "paint"),
        (["models", "toyscape", "--sheet", "/absent/x.png"], 1, "no such directory"),
        (["models", "toyscape", "--sheet", "ZOO/x.picture"], 1, "x.picture: unknown file extension"),
        (["serve", "--port", "9000"], 2, "--port 9000; did you mean --http-port"),
        (["serve", "--http-prot=1"], 2, "did you mean --http-port"),
        (["serve", "8000"], 2, "unrecognized arguments: 8000 (see squint serve --help)"),
        (["models", "list", "--jsn"], 2, "did you mean --json? (see squint models list --help)"),
        (["health", "--timeout", "0"], 2, "more than 0 and at most 60"),
        (["models", "reload", "--url", "http://127.0.0.1:1"], 1, "squint serve --admin-port"),
        (["load", "http://127.0.0.1:1", "--scenario", "x"], 1, "x: No such file or directory"),
    ],
)
def test_what_goes_wrong_is_one_line_and_the_right_code(
    words: Sequence[str], code: int, said: str, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, out, err = run(capsys, *[word.replace("ZOO", str(zoo)) for word in words])
    assert ended == code
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("squint")
    assert said in err


def test_models_are_listed(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "models", "list", "--models", str(zoo))
    assert out.splitlines()[1].split() == ["shapes", "2", "classify", "fast,", "full", "0"]
    _, out, _ = run(capsys, "models", "list", "--models", str(zoo), "--json")
    assert msgspec.json.decode(out)[0]["levels"] == ["fast", "full"]


def test_levels_are_listed_best_first(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "models", "levels", "shapes", "--models", str(zoo))
    assert code == 0
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["full", "1.25", "197", "0.975"],
        ["fast", "0.5", "99", "-"],
    ]


def test_a_flipped_bit_is_found(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("models", "verify", "shapes", "--files", "--models", str(zoo))
    assert run(capsys, *words)[0] == 0
    graph = zoo / "shapes" / "2" / "model.onnx"
    graph.write_bytes(b"M" + graph.read_bytes()[1:])
    code, _, err = run(capsys, *words)
    assert code == 1
    assert str(graph) in err
    assert len(err.splitlines()) == 1


def test_verify_fails_when_no_backend_agrees(
    zoo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = [Measured("onnxruntime/f32", share=0.5, refused="answers differ"), Measured("openvino/f32", share=1.0)]
    monkeypatch.setattr(backends, "try_apart", lambda trial: measured[trial.variant.startswith("openvino")])
    words = ("models", "verify", "shapes", "--models", str(zoo))
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "answers differ" in out
    monkeypatch.setattr(backends, "try_apart", lambda _: measured[0])
    code, _, err = run(capsys, *words)
    assert code == 1
    assert "no installed backend" in err


def test_profile_shows_what_auto_chooses(
    zoo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = Measured("openvino/f32", images_per_second=80, timings=(Timing("full", 0.001, 0.012),))
    report = Report("shapes", "openvino/f32", (Measured("onnxruntime/f32", refused="not installed"), fast))
    monkeypatch.setattr(backends, "choose", lambda *_, **__: report)
    for more in ((), ("--fresh",)):
        code, out, _ = run(capsys, "models", "profile", "shapes", "--models", str(zoo), *more)
        assert code == 0
        assert [line.split() for line in out.splitlines()[1:]] == [
            ["onnxruntime/f32", "-", "0", "0", "0", "not", "installed"],
            ["openvino/f32", "full", "1", "12", "80", "chosen"],
        ]


@pytest.mark.parametrize("command", [["train", "toyscape"], ["export", "toyscape-classify"]])
def test_without_torch_one_line_names_the_extra(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def without_torch(
        name: str, globals: Mapping[str, Any] | None = None, locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (), level: int = 0,
    ) -> Any:  # fmt: skip
        if name.partition(".")[0] in {"torch", "onnx"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name="torch")
        return imported(name, globals, locals, fromlist, level)

    for name in [name for name in sys.modules if name in {"models.train", "models.export"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_torch)
    code, _, err = run(capsys, "models", *command)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "torch" in err
    assert "make models-env" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a\nb"), 2),
        (StartError("x"), 1),
        (manifest.ManifestError("x"), 1),
        (KeyboardInterrupt(), 1),
        (RuntimeError("x"), 1),
    ],
)
def test_no_error_prints_a_traceback(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise error

    module = types.ModuleType("service.supervisor")
    module.run = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "service.supervisor", module)
    ended, _, err = run(capsys, "serve")
    assert ended == code
    assert len(err.splitlines()) == 1
    if isinstance(error, Exception):
        with pytest.raises(type(error)):
            cli.main(["--traceback", "serve"])


def test_python_m_squint_answers_at_once_and_version_is_stated() -> None:
    def cpu_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    # By the CPU's time, so that it does not matter what else the machine does.
    before = cpu_seconds()
    command = [sys.executable, "-m", "squint", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("squint 0.")
    assert 0 < cpu_seconds() - before < 2


def test_a_reader_that_stops_early_is_no_error() -> None:
    command = f"{sys.executable} -m squint serve --help | head -n 1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("words", [["timm/vit_tiny_patch16_224", "--weights", "random"], ["onnx", "x.onnx"]])
def test_without_its_libraries_adding_a_model_names_the_extra(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("timm", "onnx", "models.sources.timm_graph", "models.sources.onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    files = ["--name", "x", "--labels", "x", "--transform", "x", "--task", "classify"]
    code, _, err = run(capsys, "models", "add", *words, *files)
    assert code == 1
    assert err.splitlines()[-1].endswith(
        "run `make models-env` in the checkout, then this command as .venv-models/bin/squint"
    )
