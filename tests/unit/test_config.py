"""service.config: where a value comes from, and the one line for each that is wrong."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service import config
from service.errors import ConfigError
from service.settings import MODEL_SETTINGS, SETTINGS

ROOT = Path(__file__).parents[2]
HOME = {"HOME": "/home/someone"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def toml(folder: Path, text: str) -> dict[str, Any]:
    (folder / "other.toml").write_text(text)
    return {"config": str(folder / "other.toml")}


def test_defaults_need_no_file_and_work_from_any_directory() -> None:
    loaded = config.load({}, HOME)
    assert loaded.http_port == 8000
    assert loaded.host == "127.0.0.1"
    assert loaded.limits == config.Limits()
    assert loaded.cache_dir == "/home/someone/.cache/squint"
    assert loaded.models == (str(ROOT / "models" / "zoo"),)
    assert loaded.threads >= 1
    assert loaded.decoders >= 2


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(elsewhere: Path) -> None:
    file = toml(elsewhere, "http_port = 1001")
    variable = HOME | {"SQUINT_HTTP_PORT": "1002"}
    assert config.load({}, HOME).http_port == 8000
    assert config.load(file, HOME).http_port == 1001
    assert config.load(file, variable).http_port == 1002
    assert config.load(file | {"http-port": "1003"}, variable).http_port == 1003


def test_the_file_in_the_working_directory_is_read_unless_another_is_named(elsewhere: Path) -> None:
    (elsewhere / "squint.toml").write_text("workers = 3")
    assert config.load({}, HOME).workers == 3
    assert config.load(toml(elsewhere, "workers = 4"), HOME).workers == 4
    assert config.load({}, HOME | {"SQUINT_CONFIG": str(elsewhere / "other.toml")}).workers == 4


def test_limits_are_given_in_units_for_people() -> None:
    loaded = config.load({"max-body-mb": "1.5", "max-mpx": "2", "timeout-ms": "250"}, HOME)
    assert loaded.limits.body_bytes == 1_500_000
    assert loaded.limits.pixels == 2_000_000
    assert loaded.limits.default_timeout_ms == 250


def test_lists_come_repeated_joined_or_as_arrays(elsewhere: Path) -> None:
    assert config.load({"models": ["a", "/b"]}, HOME).models == (str(elsewhere / "a"), "/b")
    assert config.load({}, HOME | {"SQUINT_MODELS": "/a:/b"}).models == ("/a", "/b")
    assert config.load(toml(elsewhere, 'models = ["/a", "/b"]'), HOME).models == ("/a", "/b")
    origins = HOME | {"SQUINT_CORS_ORIGINS": "https://a.example,http://b.example:8080"}
    assert config.load({}, origins).cors_origins == ("https://a.example", "http://b.example:8080")


def test_models_have_tables_of_their_own(elsewhere: Path) -> None:
    file = toml(elsewhere, '[model.toyscape-classify]\nbackend = "openvino"\ndefault_level = "fast"')
    model = config.load(file, HOME).model["toyscape-classify"]
    assert model == config.ModelConfig(backend="openvino", default_level="fast")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("htp_port = 1", ["unknown key 'htp_port'", "http_port", "max_body_mb"]),
        ("http_port = 70000", ["http_port = 70000", "0 to 65535"]),
        ('http_port = "8000"', ["http_port", "whole number"]),
        ("http_port = true", ["http_port", "whole number"]),
        ("models = [1]", ["models", "a directory"]),
        ('backend = "tpu"', ["backend = 'tpu'", "onnxruntime", "openvino"]),
        ("drain_seconds = nan", ["drain_seconds", "0 to 300"]),
        ("[limits]\nside = 3", ["unknown key 'limits'"]),
        ("[model.x]\nlevel = 3", ["[model.x]", "unknown key 'level'", "default_level"]),
        ('[model.x]\ndefault_level = "\\u001b[2J"', ["[model.x]", "default_level", "a level"]),
        ("model = 3", ["[model.NAME]"]),
        ("http_port = ", ["not valid TOML"]),
    ],
)
def test_a_wrong_file_is_one_line_with_the_key_and_what_is_accepted(
    elsewhere: Path, text: str, said: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(toml(elsewhere, text), HOME)
    line = str(caught.value)
    assert "other.toml" in line
    assert len(line.splitlines()) == 1
    assert all(part in line for part in said), line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ({"threads": "0"}, {}, ["--threads 0", "1 to 256"]),
        ({"threads": "1_0"}, {}, ["--threads 1_0"]),
        ({"cors-origins": ["*", "x"]}, {}, ["--cors-origins * x", "an origin"]),
        ({}, {"SQUINT_THREADS": "two"}, ["SQUINT_THREADS=two", "1 to 256"]),
        ({}, {"SQUINT_ALLOW_FAKE": "perhaps"}, ["SQUINT_ALLOW_FAKE=perhaps", "true or false"]),
        ({}, {"SQUINT_MAX_MPX": "inf"}, ["SQUINT_MAX_MPX=inf", "0.001 to 250"]),
        ({}, {"SQUINT_HTTP_PORT": "tcp://10.0.0.1:80"}, ["SQUINT_HTTP_PORT"]),
        ({"config": "absent.toml"}, {}, ["absent.toml", "no such file"]),
        ({"config": "."}, {}, ["."]),
        ({"backend": "fake"}, {}, ["--backend fake", "--allow-fake"]),
        ({"http-port": "5", "grpc-port": "5"}, {}, ["--grpc-port 5", "another port"]),
        ({"timeout-ms": "9", "max-timeout-ms": "8"}, {}, ["--timeout-ms 9", "at most", "8"]),
        ({"pending-mb": "1"}, {}, ["--pending-mb 1", "at least", "20"]),
        ({"models": []}, {}, ["--models", "at least one"]),
    ],
)
def test_a_wrong_flag_or_variable_is_one_line(
    arguments: dict[str, Any], variables: dict[str, str], said: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(arguments, HOME | variables)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert all(part in line for part in said), line


def test_fake_is_served_when_allowed() -> None:
    loaded = config.load({"backend": "fake", "allow-fake": True}, HOME)
    assert loaded.backend == "fake"
    assert config.load({"backend": "fake"}, HOME | {"SQUINT_ALLOW_FAKE": "1"}).allow_fake


def test_variables_of_others_are_no_error() -> None:
    """Kubernetes sets SQUINT_SERVICE_HOST and its like for a service called squint."""
    config.load({}, HOME | {"SQUINT_SERVICE_HOST": "10.0.0.1", "SQUINT_PORT": "tcp://10.0.0.1:80"})


def test_every_field_has_exactly_one_setting() -> None:
    fields = {field.name for field in dataclasses.fields(config.Config)} - {"limits", "model"}
    fields |= {f"limits.{field.name}" for field in dataclasses.fields(config.Limits)}
    assert sorted(setting.field for setting in SETTINGS) == sorted(fields)
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)
    assert {setting.field for setting in MODEL_SETTINGS} == {f.name for f in dataclasses.fields(config.ModelConfig)}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_default_is_a_value_that_the_setting_accepts(setting: Any) -> None:
    value = config.defaults(HOME)[setting.field]
    shown = setting.kind.show(value)
    if shown:
        assert setting.kind.parse(shown) == value


def test_a_configuration_travels_whole() -> None:
    loaded = config.load({"models": ["/a"], "max-side": "99"}, HOME)
    assert config.decode(config.encode(loaded)) == loaded


def test_a_quota_on_cpus_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(Path, "read_text", lambda _: "400000 100000\n")
    assert config.defaults(HOME)["threads"] == 4
    monkeypatch.setattr(Path, "read_text", lambda _: "max 100000\n")
    assert config.defaults(HOME)["threads"] == 16
    assert config.defaults(HOME)["decoders"] == 8


@pytest.mark.parametrize(("cpus", "devices", "gateways"), [(64, "cpu", 1), (8, "cuda:0", 1), (16, "cuda:0", 2)])
def test_gateways_are_several_where_a_gpu_can_be_fed(
    monkeypatch: pytest.MonkeyPatch, cpus: int, devices: str, gateways: int
) -> None:
    monkeypatch.setattr(config, "_cpus", lambda: cpus)
    assert config.load({"devices": devices}, HOME).gateways == gateways


def test_one_of_several_gateways_has_its_part_of_what_is_limited_over_all() -> None:
    whole = config.load({"gateways": "3", "max-connections": "10", "pending-mb": "30", "in-flight": "7"}, HOME)
    part = config.of_one_gateway(whole)
    assert (part.limits.connections, part.limits.in_flight) == (4, 7)
    assert part.limits.pending_bytes == whole.limits.body_bytes, "a body of the largest size must still fit"


def test_the_import_is_light() -> None:
    code = "import sys, service.config; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"numpy", "asyncio", "fastapi", "pydantic", "onnxruntime", "openvino", "PIL", "torch", "argparse"}
    assert not heavy & set(run.stdout.split())


def test_a_platform_says_the_port_unless_we_were_told_otherwise(elsewhere: Path) -> None:
    platform = HOME | {"PORT": "8080"}
    assert config.load({}, platform).http_port == 8080
    assert config.load(toml(elsewhere, "http_port = 1001"), platform).http_port == 8080
    assert config.load({}, platform | {"SQUINT_HTTP_PORT": "1002"}).http_port == 1002
    assert config.load({"http-port": "1003"}, platform).http_port == 1003
    with pytest.raises(ConfigError, match="PORT=tcp"):
        config.load({}, HOME | {"PORT": "tcp://10.0.0.1:80"})


def test_models_that_are_mounted_are_served_unless_others_are_named(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = elsewhere / "mounted"
    monkeypatch.setattr(config, "MOUNTED_MODELS", str(mounted))
    assert config.load({}, HOME).models == (config.SHIPPED_MODELS,)
    (mounted / "photos" / "2024").mkdir(parents=True)
    assert config.load({}, HOME).models == (config.SHIPPED_MODELS,)
    (mounted / "photos" / "2024" / "manifest.json").touch()
    assert config.load({}, HOME).models == (str(mounted),)
    assert config.load({"models": [config.SHIPPED_MODELS]}, HOME).models == (config.SHIPPED_MODELS,)


def test_a_gpu_has_defaults_of_its_own_which_what_is_given_overrides() -> None:
    cpu, gpus = config.load({}, HOME), config.load({"devices": "cuda:0,cuda:1"}, HOME)
    assert (cpu.devices, cpu.workers, cpu.max_batch) == (("cpu",), 1, 32)
    assert (gpus.devices, gpus.workers, gpus.max_batch, gpus.threads) == (("cuda:0", "cuda:1"), 2, 64, 3)
    assert [gpus.device(worker) for worker in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    given = config.load({"max-batch": "8"}, HOME | {"SQUINT_DEVICES": "cuda:3", "SQUINT_THREADS": "5"})
    assert (given.devices, given.max_batch, given.threads, given.load_seconds) == (("cuda:3",), 8, 5, 1800.0)


@pytest.mark.parametrize("devices", ["gpu", "cuda", "cuda:0,cpu", "cuda:0,cuda:0", "cuda:-1", ","])
def test_devices_are_the_cpu_or_gpus_each_once(devices: str) -> None:
    with pytest.raises(ConfigError, match=r"expected"):
        config.load({}, HOME | {"SQUINT_DEVICES": devices})


def test_a_child_hears_which_gpus_it_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert config.child_environment()["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_variables_that_are_no_settings_are_found_but_for_those_of_kubernetes() -> None:
    kubernetes = {
        "SQUINT_PORT": "tcp://10.0.0.7:8000",
        "SQUINT_SERVICE_HOST": "10.0.0.7",
        "SQUINT_SERVICE_PORT": "8000",
        "SQUINT_SERVICE_PORT_HTTP": "8000",
        "SQUINT_PORT_8000_TCP": "tcp://10.0.0.7:8000",
        "SQUINT_PORT_8000_TCP_ADDR": "10.0.0.7",
    }
    settings = {"SQUINT_CONFIG": "x", "SQUINT_HTTP_PORT": "1", "SQUINT_API_KEY": "x", "HOME": "/"}
    wrong = {"SQUINT_HTTPPORT": "9000", "SQUINT_XYZZY": "1", "SQUINT_PORT": "9000"}
    assert config.stray_variables(kubernetes | settings) == {}
    assert config.stray_variables(settings | wrong) == {
        "SQUINT_HTTPPORT": "SQUINT_HTTP_PORT",
        "SQUINT_PORT": "",
        "SQUINT_XYZZY": "",
    }
