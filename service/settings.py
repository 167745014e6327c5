"""The one table of settings: their names, the values they accept, and why one would change them.

A setting `max-body-mb` is the flag `--max-body-mb`, the variable `SQUINT_MAX_BODY_MB` and the key `max_body_mb` of
`squint.toml`; no name is written twice. `service.config` reads them, `squint serve --help` and docs/configuration.md
are made from this table. Nothing here reads anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

BackendName = Literal["auto", "onnxruntime", "openvino", "openvino/f32", "openvino/bf16", "torch", "tensorrt", "fake"]
LogLevel = Literal["debug", "info", "warning", "error"]


_SWITCH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Kind:
    """What values a setting takes. `parse` raises ValueError for any other; `types` are those of its TOML values."""

    types: tuple[type, ...] = (str,)
    accepted: str = ""
    metavar: str = "TEXT"

    def parse(self, text: str) -> Any:
        """The value that `text` stands for."""
        raise NotImplementedError

    def show(self, value: Any) -> str:
        """The text that stands for `value`."""
        return str(value)


class Whole(Kind):
    """A whole number."""

    types = (int,)
    metavar = "N"

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.accepted = f"a whole number from {low} to {high}"

    def parse(self, text: str) -> int:
        """Plain decimal digits; no underscores, no other scripts."""
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not self.low <= int(text) <= self.high:
            raise ValueError(text)
        return int(text)


class Real(Kind):
    """A number. With `unit` it is given in that unit and kept as a whole number: megabytes as bytes."""

    types = (int, float)
    metavar = "X"

    def __init__(self, low: float, high: float, unit: int | None = None) -> None:
        self.low, self.high, self.unit = low, high, unit
        self.accepted = f"a number from {low:g} to {high:g}"

    def parse(self, text: str) -> float:
        """Compares false, and so refuses, what is no finite number."""
        value = float(text)
        if not self.low <= value <= self.high:
            raise ValueError(text)
        return value if self.unit is None else round(value * self.unit)

    def show(self, value: float) -> str:
        """In the unit in which it is given."""
        return f"{value / (self.unit or 1):g}"


class Choice(Kind):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.metavar = "{" + ",".join(words) + "}"
        self.accepted = f"one of {', '.join(words)}"

    def parse(self, text: str) -> str:
        """The word itself."""
        if text not in self.words:
            raise ValueError(text)
        return text


class Switch(Kind):
    """On or off. As a flag it stands alone and means on."""

    types = (bool,)
    accepted = "true or false"

    def parse(self, text: str) -> bool:
        """What people write for yes and no in variables."""
        if text.lower() not in _SWITCH:
            raise ValueError(text)
        return _SWITCH[text.lower()]

    def show(self, value: bool) -> str:
        """As in TOML."""
        return "true" if value else "false"


class Text(Kind):
    """Free text of a given form."""

    def __init__(self, accepted: str, pattern: str = r"[^\x00-\x1f]+", metavar: str = "TEXT") -> None:
        self.accepted = accepted
        self.metavar = metavar
        self.pattern = pattern

    def parse(self, text: str) -> str:
        """The text itself."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError(text)
        return text


class Several(Kind):
    """A list of texts: the flag is given several times, the variable holds them joined by `separator`."""

    types = (list, str)

    def __init__(self, item: Text, separator: str) -> None:
        self.item = item
        self.separator = separator
        self.metavar = item.metavar
        self.accepted = f"{item.accepted}; several in a variable joined by {separator!r}"

    def parse(self, text: str) -> tuple[str, ...]:
        """Every item of a joined text."""
        return tuple(self.item.parse(part) for part in text.split(self.separator) if part)

    def show(self, value: tuple[str, ...]) -> str:
        """As in a variable."""
        return self.separator.join(value)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `field` names the field of Config (or, after `limits.`, of Limits) that it fills; `default` is
    words for a default that depends on the machine."""

    name: str
    field: str
    kind: Kind
    why: str
    default: str = ""

    @property
    def flag(self) -> str:
        """As an argument of `squint serve`."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """As a variable of the environment."""
        return f"SQUINT_{self.key.upper()}"

    @property
    def key(self) -> str:
        """As a key of `squint.toml`."""
        return self.name.replace("-", "_")


def _plain(name: str, kind: Kind, why: str, default: str = "") -> Setting:
    return Setting(name, name.replace("-", "_"), kind, why, default)


def _limit(name: str, field: str, kind: Kind, why: str) -> Setting:
    return Setting(name, f"limits.{field}", kind, why)


_LEVEL = Text(
    "a level: a name such as full, an explicit one such as tome:13, or auto",
    r"[a-z0-9][a-z0-9:,+x/._-]{0,127}",
    "LEVEL",
)
_DIRECTORY = Text("a directory", metavar="DIR")

SETTINGS: tuple[Setting, ...] = (
    _plain(
        "host",
        Text("an address or host name", r"[A-Za-z0-9.:_-]+", "H"),
        "Address to listen on. The default is reached from this machine alone; 0.0.0.0 opens the service to the "
        "network, which has no authentication yet.",
    ),
    _plain("http-port", Whole(0, 65535), "TCP port for HTTP; 0 takes a free one and logs it."),
    _plain("grpc-port", Whole(0, 65535), "TCP port for gRPC. Reserved: this release opens no gRPC port."),
    _plain(
        "models",
        Several(_DIRECTORY, ":"),
        "Directory of models, laid out NAME/VERSION/manifest.json; may be given several times, and a model of a later"
        " directory replaces one of the same name. Point it at your own models to stop serving the shipped ones.",
        "the shipped models",
    ),
    _plain(
        "backend",
        Choice(*get_args(BackendName)),
        "What runs the models. `auto` measures every installed one when a model is loaded first, keeps what it "
        "measured, and takes the fastest whose answers agree with the reference; name one to skip that or to compare.",
    ),
    _plain(
        "allow-fake",
        Switch(),
        "Permit the backend `fake`, which answers nonsense, sleeps or crashes on command: for tests of the service "
        "itself, never where anyone relies on an answer.",
    ),
    _plain("fake-batch-ms", Real(0, 60_000), "Milliseconds that the backend `fake` takes for each batch."),
    _plain("fake-item-ms", Real(0, 60_000), "Milliseconds that the backend `fake` takes for each item of a batch."),
    _plain("workers", Whole(1, 64), "Worker processes. On a CPU one is right; on GPUs one per device."),
    _plain(
        "threads",
        Whole(1, 256),
        "Engine threads of a worker, each running one batch at a time. Lower it to leave CPUs to others on the "
        "machine.",
        "the CPUs this process may use, at most 16",
    ),
    _plain(
        "decoders",
        Whole(1, 64),
        "Decoder processes, which turn bytes into pixels. Raise it when `decode` is the longest stage in `timing_ms`:"
        " large photographs, or a GPU.",
        "a quarter of the CPUs, at least 2, at most 8",
    ),
    _plain(
        "max-batch",
        Whole(1, 256),
        "Most items in one batch, whatever the measured profile would allow. Lower it when memory is short.",
    ),
    _plain(
        "cache-dir",
        _DIRECTORY,
        "Where measured profiles and compiled models are kept. Set it to a writable volume when the root file system "
        "is read-only.",
        "`squint` in the user's cache directory",
    ),
    _plain(
        "load-seconds",
        Real(1, 3600),
        "How long a worker may take to load and warm its models before it is restarted. Raise it for many large "
        "models or a first start that compiles.",
    ),
    _plain(
        "drain-seconds",
        Real(0, 300),
        "After SIGTERM: how long to go on accepting while load balancers learn that this server is leaving.",
    ),
    _plain(
        "max-crashes",
        Whole(1, 1000),
        "Crashes of one process in a row after which the service gives up (exit code 3), for whoever started it to "
        "see.",
    ),
    _plain(
        "log-level",
        Choice(*get_args(LogLevel)),
        "Least severe log lines to write. `warning` leaves out the line per request.",
    ),
    _plain(
        "cors-origins",
        Several(Text("an origin such as https://example.org, or *", r"\*|https?://[^\s,/]+", "ORIGIN"), ","),
        "Origins whose web pages may call the service from a browser; may be given several times. None by default.",
    ),
    _limit("max-body-mb", "body_bytes", Real(0.001, 1000, 1_000_000), "Largest request body."),
    _limit(
        "max-jpeg-mpx",
        "jpeg_pixels",
        Real(0.001, 1000, 1_000_000),
        "Largest JPEG, in megapixels. Higher than for other formats, since a large JPEG is decoded at a smaller scale.",
    ),
    _limit(
        "max-mpx",
        "pixels",
        Real(0.001, 250, 1_000_000),
        "Largest PNG or WebP, in megapixels; a megapixel takes 3 to 4 MB while it is decoded.",
    ),
    _limit("max-side", "side", Whole(1, 65535), "Longest side of an image, in pixels."),
    _limit("max-images", "images", Whole(1, 256), "Most images in one multipart request."),
    _limit(
        "decode-seconds",
        "decode_seconds",
        Real(0.05, 60),
        "Longest time a decoder may spend on one image before it is stopped and the image refused.",
    ),
    _limit(
        "upload-seconds",
        "upload_seconds",
        Real(0.1, 3600),
        "Longest time a request body may take to arrive. Raise it for clients on slow lines; every waiting body holds"
        " memory.",
    ),
    _limit(
        "in-flight",
        "in_flight",
        Whole(1, 65536),
        "Most images admitted and not yet answered; beyond it requests are refused with 429.",
    ),
    _limit(
        "pending-mb",
        "pending_bytes",
        Real(0.001, 100_000, 1_000_000),
        "Most bytes of admitted bodies held at a time; beyond it requests are refused with 429.",
    ),
    _limit("timeout-ms", "default_timeout_ms", Whole(1, 3_600_000), "Deadline of a request that names none."),
    _limit("max-timeout-ms", "max_timeout_ms", Whole(1, 3_600_000), "Longest deadline that a request may ask for."),
)

MODEL_SETTINGS: tuple[Setting, ...] = (
    _plain("backend", Choice(*get_args(BackendName)), "What runs this model.", "the service's `backend`"),
    _plain(
        "default-level",
        _LEVEL,
        "Level for requests that name none. A named one that is not offered on this hardware is stood in for by the "
        "next higher one.",
    ),
    _plain(
        "min-level",
        _LEVEL,
        "Lowest level that `auto` serves to requests that name no `min_level` of their own.",
        "the lowest that is offered",
    ),
)
