"""Configuration: the only place that reads flags, the environment and files.

Precedence: flag, then `SQUINT_*` variable, then `squint.toml`, then the default below. Everything is resolved once,
before a process is started, into the frozen `Config` that travels to each process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from service.errors import ConfigError
from service.kinds import Setting, Several
from service.settings import MODEL_SETTINGS, SETTINGS, BackendName, LogLevel

__all__ = [
    "BackendName",
    "Config",
    "Limits",
    "LogLevel",
    "ModelConfig",
    "Priority",
    "decode",
    "defaults",
    "encode",
    "load",
]

Priority = Literal["high", "normal", "low"]
FILE = "squint.toml"
MAX_FILE_BYTES = 1 << 20
SHIPPED_MODELS = str(Path(__file__).resolve().parent.parent / "models" / "zoo")
CPU = "cpu"
MOUNTED_MODELS = "/mnt/models"
"""Where KServe mounts a directory of models, and other platforms by its example."""
_PLATFORM = {"http-port": "PORT"}
"""Variables that platforms set for what they run, by setting; our own variable goes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a request may cost; everything beyond is refused before it costs anything."""

    body_bytes: int = 20_000_000
    jpeg_pixels: int = 50_000_000
    pixels: int = 25_000_000
    side: int = 16_384
    images: int = 16
    decode_seconds: float = 2.0
    upload_seconds: float = 30.0
    upload_rate: int = 10_000
    connections: int = 2048
    connections_per_address: int = 1024
    message_bytes: int = 64 << 20
    calls: int = 1024
    stream_frames: int = 16
    rate: float = 0.0
    rate_burst: float = 0.0
    in_flight: int = 512
    pending_bytes: int = 128_000_000
    default_timeout_ms: int = 10_000
    max_timeout_ms: int = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What the operator sets for one model."""

    backend: BackendName | None = None
    default_level: str = "full"
    min_level: str | None = None
    versions: str = "latest"
    canary: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration of one service."""

    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int | None = 8001
    grpc_reflection: bool = False
    models: tuple[str, ...] = (SHIPPED_MODELS,)
    model_control: Literal["none", "explicit"] = "none"
    triton_status_codes: bool = False
    model_memory_bytes: int = 0
    watch_seconds: float = 0.0
    slot_headroom: float = 1.0
    backend: BackendName = "auto"
    allow_fake: bool = False
    fake_batch_ms: float = 0.0
    fake_item_ms: float = 0.0
    devices: tuple[str, ...] = (CPU,)
    decode_on: Literal["cpu", "device"] = "cpu"
    jpeg_decoder: Literal["auto", "libjpeg-turbo"] = "auto"
    workers: int = 1
    threads: int = 2
    gateways: int = 1
    wide: bool = False
    decoders: int = 2
    max_batch: int = 32
    cache_dir: str = ""
    drain_seconds: float = 2.0
    load_seconds: float = 300.0
    max_crashes: int = 10
    log_level: LogLevel = "info"
    otlp_endpoint: str = ""
    trace_sample: float = 0.1
    trace_service: str = "squint"
    metrics_compat: Literal["none", "triton"] = "none"
    cors_origins: tuple[str, ...] = ()
    no_playground: bool = False
    key_file: str = ""
    public: tuple[str, ...] = ()
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    tls_clients: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    admin_port: int | None = None
    admin_host: str = "127.0.0.1"
    metrics_admin_only: bool = False
    limits: Limits = field(default_factory=Limits)
    model: dict[str, ModelConfig] = field(default_factory=dict)

    def device(self, worker: int) -> str:
        """Where a worker's models run."""
        return self.devices[worker % len(self.devices)]


def encode(config: Config) -> bytes:
    """The configuration as bytes, for a child process."""
    return msgspec.json.encode(config)


def decode(data: bytes) -> Config:
    """The inverse of encode."""
    return msgspec.json.decode(data, type=Config)


def of_one_gateway(config: Config) -> Config:
    """As one of several gateways has it: its part of what is limited over all of them."""
    limits, parts = config.limits, config.gateways

    def part(whole: int) -> int:
        return -(-whole // parts)

    own = dataclasses.replace(
        limits,
        connections=part(limits.connections),
        connections_per_address=part(limits.connections_per_address),
        calls=part(limits.calls),
        pending_bytes=max(part(limits.pending_bytes), limits.body_bytes),
    )
    return dataclasses.replace(config, limits=own)


def load(arguments: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """The configuration of this start.

    `arguments` maps the name of a setting (`http-port`) to the text of its flag, or to a list of texts; `config`
    names the file. `environment` is the process's own unless a test passes another. Raises ConfigError.
    """
    arguments = {name: value for name, value in (arguments or {}).items() if value is not None}
    environment = os.environ if environment is None else environment
    path = str(arguments.get("config") or environment.get("SQUINT_CONFIG") or "")
    table = _read(Path(path or FILE), required=bool(path))
    models = table.pop("model", {})
    values = _from_table(table, SETTINGS, f"{path or FILE}: ")
    for setting in SETTINGS:
        for variable in (setting.variable, _PLATFORM.get(setting.name, "")):
            if environment.get(variable):
                text = environment[variable]
                values[setting.field] = _parsed(setting, f"{variable}={text}", text)
                break
        if setting.name in arguments:
            given = arguments[setting.name]
            values[setting.field] = _parsed(setting, f"{setting.flag} {_joined(given)}", given)
    usual = defaults(environment)
    if CPU not in values.get("devices", (CPU,)):
        usual |= _on_gpus()
    config = _built(usual | values, _models(models, path or FILE))
    _check(config)
    return config


def defaults(environment: Mapping[str, str]) -> dict[str, Any]:
    """Field -> default, for this machine and user."""
    cpus = _cpus()
    values = {setting.field: _default(setting.field) for setting in SETTINGS}
    home = environment.get("HOME") or os.path.expanduser("~")
    cache = environment.get("XDG_CACHE_HOME", "")
    values["cache_dir"] = os.path.join(cache if os.path.isabs(cache) else os.path.join(home, ".cache"), "squint")
    values["models"] = (MOUNTED_MODELS if _holds_models(MOUNTED_MODELS) else SHIPPED_MODELS,)
    # Where collectors are told by these, to every service, they hold for this one as well.
    values["otlp_endpoint"] = _standard("otlp-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT", environment)
    values["trace_service"] = _standard("trace-service", "OTEL_SERVICE_NAME", environment)
    values["threads"] = min(cpus, 16)
    values["decoders"] = max(2, min(8, cpus // 4))
    return values


def _on_gpus() -> dict[str, Any]:
    """The defaults that differ where models run on GPUs: a worker's threads feed its device, one batch behind the
    other; batches pay that are as large as its places; decoding is what the CPUs are for; and a start may compile."""
    cpus = _cpus()
    processes = {"gateways": max(1, min(4, cpus // 8)), "decoders": max(2, min(64, cpus * 5 // 8))}
    return {"threads": 3, "max_batch": 64, "load_seconds": 1800.0, **processes}


def _standard(name: str, variable: str, environment: Mapping[str, str]) -> str:
    """A setting's default, which a variable that is no setting of ours may give."""
    setting = next(one for one in SETTINGS if one.name == name)
    text = environment.get(variable, "")
    return str(_parsed(setting, f"{variable}={text}", text) if text else _default(setting.field))


def shown_defaults() -> dict[str, str]:
    """Setting -> its default in words that hold on every machine, for help and documents."""
    return {
        setting.name: setting.default or setting.kind.show(_default(setting.field)) or "none" for setting in SETTINGS
    }


def _default(name: str) -> Any:
    """What the dataclasses above say."""
    return getattr(Limits(), name.removeprefix("limits.")) if name.startswith("limits.") else getattr(Config(), name)


def _holds_models(directory: str) -> bool:
    """Whether it is laid out as a directory of models; anything else that is mounted there is not ours."""
    return any(Path(directory).glob("*/[0-9]*/manifest.json"))


def _cpus() -> int:
    """CPUs this process may use: those it may be scheduled on, or fewer where a container has a quota."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cpus, round(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):
        return cpus


def _read(path: Path, *, required: bool) -> dict[str, Any]:
    """The TOML file; nothing when it is absent and nobody named it."""
    try:
        with path.open("rb") as file:
            return tomllib.loads(file.read(MAX_FILE_BYTES).decode())
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{path}: no such file; --config takes the path of a TOML file") from None
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _from_table(table: Mapping[str, Any], settings: Sequence[Setting], where: str) -> dict[str, Any]:
    """Field -> value of one TOML table, whose keys must all be known."""
    known = {setting.key: setting for setting in settings}
    values = {}
    for key, value in table.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ConfigError(f"{where}unknown key {key!r}; {hint}known keys are {', '.join(sorted(known))}")
        setting = known[key]
        shown = f"{where}{key} = {value!r}"
        if type(value) not in setting.kind.types or (isinstance(value, list) and {type(x) for x in value} - {str}):
            raise _refused(setting, shown)
        values[setting.field] = _parsed(setting, shown, value if isinstance(value, list) else _text(value))
    return values


def _models(tables: Any, file: str) -> dict[str, ModelConfig]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError(f"{file}: model: expected tables [model.NAME]")
    return {
        name: ModelConfig(**_from_table(table, MODEL_SETTINGS, f"{file}: [model.{name}]: "))
        for name, table in tables.items()
    }


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _joined(given: Any) -> str:
    return " ".join(given) if isinstance(given, list | tuple) else _text(given)


def _parsed(setting: Setting, shown: str, given: Any) -> Any:
    try:
        if isinstance(given, list | tuple) and isinstance(setting.kind, Several):
            return tuple(setting.kind.item.parse(item) for item in given)
        return setting.kind.parse(_text(given))
    except ValueError:
        raise _refused(setting, shown) from None


def _refused(setting: Setting, shown: str) -> ConfigError:
    line = "".join(character if character.isprintable() else "?" for character in shown)
    return ConfigError(f"{line[:160]}: expected {setting.kind.accepted}")


def _built(values: Mapping[str, Any], models: dict[str, ModelConfig]) -> Config:
    plain = {name: value for name, value in values.items() if not name.startswith("limits.")}
    limits = {name.removeprefix("limits."): value for name, value in values.items() if name.startswith("limits.")}
    plain["workers"] = max(plain["workers"], len(plain["devices"]))
    plain["models"] = tuple(os.path.abspath(os.path.expanduser(path)) for path in plain["models"])
    plain["cache_dir"] = os.path.abspath(os.path.expanduser(plain["cache_dir"]))
    for name in ("key_file", "tls_cert", "tls_key", "tls_client_ca"):
        plain[name] = os.path.abspath(os.path.expanduser(plain[name])) if plain[name] else ""
    return Config(**plain, limits=Limits(**limits), model=models)


def _check(config: Config) -> None:
    """What no single setting can know."""
    limits = config.limits
    fake = config.backend == "fake" or any(model.backend == "fake" for model in config.model.values())
    if not config.models:
        raise ConfigError("--models: expected at least one directory")
    if fake and not config.allow_fake:
        raise ConfigError("--backend fake: expected --allow-fake with it; it answers nonsense and is for tests only")
    if config.decode_on == "device" and CPU in config.devices and not config.allow_fake:
        raise ConfigError("--decode-on device: expected --devices cuda:N with it")
    _check_access(config)
    if config.http_port == config.grpc_port != 0:
        raise ConfigError(f"--grpc-port {config.grpc_port}: expected another port than --http-port")
    if limits.default_timeout_ms > limits.max_timeout_ms:
        longest = limits.max_timeout_ms
        raise ConfigError(f"--timeout-ms {limits.default_timeout_ms}: expected at most --max-timeout-ms, {longest}")
    if limits.body_bytes > limits.pending_bytes:
        least = limits.body_bytes / 1e6
        raise ConfigError(f"--pending-mb {limits.pending_bytes / 1e6:g}: expected at least --max-body-mb, {least:g}")


def _check_access(config: Config) -> None:
    """Settings about who may ask, which only make sense together."""
    needed = (
        ("tls-cert", config.tls_cert, "tls-key", config.tls_key),
        ("tls-key", config.tls_key, "tls-cert", config.tls_cert),
        ("tls-client-ca", config.tls_client_ca, "tls-cert", config.tls_cert),
        ("tls-clients", config.tls_clients, "tls-client-ca", config.tls_client_ca),
        ("metrics-admin-only", config.metrics_admin_only, "admin-port", config.admin_port is not None),
    )
    for name, given, other, there in needed:
        if given and not there:
            raise ConfigError(f"--{name}: expected --{other} with it")
    if config.admin_port and config.admin_port in (config.http_port, config.grpc_port):
        raise ConfigError(f"--admin-port {config.admin_port}: expected another port than --http-port and --grpc-port")
    for network in config.trusted_proxies:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            raise ConfigError(f"--trusted-proxies {network}: expected an address or a network") from None


def stray_variables(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that look like settings and are none, each with the one that may be meant, or with nothing. They are no
    errors: Kubernetes sets some for every service of its own accord, and those are left out here."""
    environment = os.environ if environment is None else environment
    known = {"SQUINT_CONFIG", *(setting.variable for setting in SETTINGS)}
    found = {}
    for name in sorted(set(environment) - known - {"SQUINT_API_KEY"}):
        if name.startswith("SQUINT_") and not _LINK.search(name) and not _LINKED.match(environment[name]):
            found[name] = "".join(difflib.get_close_matches(name, sorted(known), 1, 0.85))
    return found


_LINK = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT_[0-9]+_(TCP|UDP|SCTP)(_|$)")
_LINKED = re.compile(r"(tcp|udp|sctp)://")


def child_environment() -> dict[str, str]:
    """The environment of every child process: what Python needs to start, and libraries kept from making thread pools
    of their own (decoders and engine threads are the parallelism here) and from writing to the log as they please."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    given = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "GRPC_VERBOSITY": "NONE"}
    return kept | given | {"PYNVIMGCODEC_VERBOSITY": "0"}


@contextlib.contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """Set a variable of this process for a library that is told by no other way, while it is loaded."""
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


_INHERITED = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES"),
)
