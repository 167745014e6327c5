"""The one table of settings: their names, the kinds of values they take, and why one would change them.

`service.config` reads them by it, `squint serve --help` and docs/configuration.md are made from it. Nothing here reads
anything.
"""

from __future__ import annotations

from typing import Literal, get_args

from service.kinds import Choice, Devices, Kind, Port, Real, Setting, Several, Switch, Text, Whole

BackendName = Literal[
    "auto",
    "onnxruntime",
    "onnxruntime/cuda-f32",
    "onnxruntime/cuda-tf32",
    "openvino",
    "openvino/f32",
    "openvino/bf16",
    "torch",
    "torch/f32",
    "torch/bf16",
    "torch/jit/f32",
    "torch/jit/bf16",
    "tensorrt",
    "fake",
]
LogLevel = Literal["debug", "info", "warning", "error"]


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
_FILE = Text("a file", metavar="FILE")
_URL = r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?"

SETTINGS: tuple[Setting, ...] = (
    _plain(
        "host",
        Text("an address or host name", r"[A-Za-z0-9.:_-]+", "H"),
        "Address to listen on. The default is reached from this machine alone; before 0.0.0.0 opens the service to the "
        "network, think of `--key-file` and `--tls-cert`.",
    ),
    _plain(
        "http-port",
        Whole(0, 65535),
        "TCP port for HTTP; 0 takes a free one and logs it. The variable `PORT`, which platforms set, stands for it "
        "too, after `SQUINT_HTTP_PORT`.",
    ),
    _plain("grpc-port", Port(), "TCP port for gRPC; 0 takes a free one and logs it, off opens none."),
    _plain(
        "grpc-reflection",
        Switch(),
        "Have the gRPC port describe its services to whoever asks (server reflection), for tools such as grpcurl.",
    ),
    _plain(
        "models",
        Several(_DIRECTORY, ":"),
        "Directory of models, laid out NAME/VERSION/manifest.json; may be given several times, and a model of a later"
        " directory replaces one of the same name. Point it at your own models to stop serving the shipped ones.",
        "`/mnt/models` where that holds models, else the shipped ones",
    ),
    _plain(
        "model-control",
        Choice("none", "explicit"),
        "Who may change what is served while the service runs: `explicit` lets calls reload, load and unload models "
        "and set versions (/admin/..., and the repository calls of KServe). SIGHUP reloads in any case.",
    ),
    _plain(
        "triton-status-codes",
        Switch(),
        "Answer errors on the paths of KServe's protocol (/v2/...) with the HTTP statuses that Triton has for them: "
        "503 for a full queue and 400 for what is not ready, for clients that go by these.",
    ),
    Setting(
        "model-memory-mb",
        "model_memory_bytes",
        Real(0, 1_000_000, 1_000_000),
        "Memory for models, as measured when each is loaded. Models beyond it are loaded when somebody asks for them, "
        "in place of the one that nobody asked for the longest. 0 keeps all loaded.",
    ),
    _plain(
        "watch-seconds",
        Real(0, 86_400),
        "How often to look for new or changed versions in the directories of models. 0 looks only when told to.",
    ),
    _plain(
        "slot-headroom",
        Real(1, 64),
        "How many times as large as the largest model's input the places for pixels are made. Raise it when models "
        "with larger inputs are to be loaded while the service runs: the places cannot grow.",
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
    _plain(
        "devices",
        Devices(),
        "What the models run on: the CPU, or GPUs, each with a worker of its own. All workers take from one queue; a "
        "GPU that fails is left out and tried again, while the others go on. On GPUs other settings have other "
        "defaults, see docs/gpu.md.",
    ),
    _plain(
        "decode-on",
        Choice("cpu", "device"),
        "Where ordinary JPEGs become pixels: in the decoders' sandbox, or on the GPU that runs the model, by nvJPEG "
        "(extra `nvjpeg`). On the device strangers' bytes are read by the process that holds the models, outside of "
        "any sandbox: see [GPUs](gpu.md#decoding-on-the-gpu) before turning it on.",
    ),
    _plain(
        "jpeg-decoder",
        Choice("auto", "libjpeg-turbo"),
        "What decodes ordinary JPEGs in the decoders' sandbox: `auto`, Squint's own code in C where it was built, with "
        "the same pixels in two thirds of the time, or the library alone: see [images](images.md#ordinary-jpegs).",
    ),
    _plain("workers", Whole(1, 64), "Worker processes, at least one for each of the devices. On a CPU one is right."),
    _plain(
        "threads",
        Whole(1, 256),
        "Engine threads of a worker, each running one batch at a time. Lower it to leave CPUs to others on the "
        "machine.",
        "the CPUs this process may use, at most 16; on GPUs 3",
    ),
    _plain(
        "gateways",
        Whole(1, 64),
        "Gateway processes, which speak HTTP and gRPC. With more than one a dispatcher process stands behind them, "
        "with one queue for all. Raise it when one gateway's CPU is full and engines wait: a GPU that takes thousands "
        "of images a second. What is limited over all connections is divided among them.",
        "1; for GPUs an eighth of the CPUs, at least 1, at most 4",
    ),
    _plain(
        "wide",
        Switch(),
        "Let a batch that a worker has nothing to run beside use the CPUs of its idle engines too, where that was "
        "measured to make an answer sooner; otherwise every batch keeps to the CPU of its engine thread. For machines "
        "that nobody else uses, with little load.",
    ),
    _plain(
        "decoders",
        Whole(1, 64),
        "Decoder processes, which turn bytes into pixels. Raise it when `decode` is the longest stage in `timing_ms`:"
        " large photographs, or a GPU.",
        "a quarter of the CPUs, at least 2, at most 8; for GPUs five eighths of them",
    ),
    _plain(
        "max-batch",
        Whole(1, 256),
        "Most items in one batch, whatever the measured profile would allow. Lower it when memory is short.",
        "32; on GPUs 64",
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
        "300; on GPUs 1800",
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
        "otlp-endpoint",
        Text("a URL such as http://collector:4318", _URL, "URL"),
        "Collector to send traces to, over OTLP/HTTP (`/v1/traces` is added). Needs the extra `otel`.",
        "`OTEL_EXPORTER_OTLP_ENDPOINT`, else none",
    ),
    _plain(
        "trace-sample",
        Real(0, 1),
        "Share of requests that are traced, of those that come in no trace yet (`traceparent`); for the others their "
        "trace decides.",
    ),
    _plain(
        "trace-service",
        Text("a name", r"[A-Za-z0-9][A-Za-z0-9 ._/-]{0,127}", "NAME"),
        "Name of this service in traces.",
        "`OTEL_SERVICE_NAME`, else `squint`",
    ),
    _plain(
        "metrics-compat",
        Choice("none", "triton"),
        "Export besides its own metrics those that another server's dashboards and scaling rules read: `triton` adds "
        "`nv_inference_...`.",
    ),
    _plain(
        "cors-origins",
        Several(Text("an origin such as https://example.org, or *", r"\*|https?://[^\s,/]+", "ORIGIN"), ","),
        "Origins whose web pages may call the service from a browser; may be given several times. None by default.",
    ),
    _plain(
        "no-playground",
        Switch(),
        "Leave out the page at `/` on which one tries the models in a browser; `/` then only answers links as JSON.",
    ),
    _plain(
        "key-file",
        _FILE,
        "File of API keys, made by `squint keys add`; read again when it changes. With it every call needs a key but "
        "health, and what `--public` names. Without it whoever reaches the port may ask.",
    ),
    _plain(
        "public",
        Several(Text("metrics or playground", r"metrics|playground", "PAGE"), ","),
        "What needs no key although `--key-file` is set; may be given several times.",
    ),
    _plain(
        "tls-cert",
        _FILE,
        "Certificate chain in PEM; with it HTTP and gRPC speak TLS. Read again when it changes; connections stay.",
    ),
    _plain("tls-key", _FILE, "Private key of `--tls-cert`, in PEM and without a passphrase."),
    _plain(
        "tls-client-ca",
        _FILE,
        "Certificates, in PEM, of those whose signature a client's certificate must have; with it nobody connects "
        "without one (mTLS).",
    ),
    _plain(
        "tls-clients",
        Several(Text("a name in a certificate", r"[A-Za-z0-9*][A-Za-z0-9 ._:/@*-]{0,254}", "NAME"), ","),
        "Names, of which a client's certificate must have one (common name, DNS name, address or URI); may be given "
        "several times. Take a name off to shut one client out before its certificate expires.",
        "any name that `--tls-client-ca` vouches for",
    ),
    _plain(
        "trusted-proxies",
        Several(Text("an address or network such as 10.0.0.0/8", r"[0-9a-fA-F.:]+(/[0-9]{1,3})?", "NETWORK"), ","),
        "Proxies whose `X-Forwarded-For` says who asks; may be given several times. None by default: whoever else "
        "sends it could call itself anything.",
    ),
    _plain(
        "admin-port",
        Port(),
        "Second TCP port, for the operator alone: health, /metrics, and what changes the service (/admin/...). 0 takes "
        "a free one and logs it.",
    ),
    _plain(
        "admin-host",
        Text("an address or host name", r"[A-Za-z0-9.:_-]+", "H"),
        "Address of `--admin-port`. Where it is not this machine alone, it speaks TLS if the service does.",
    ),
    _plain(
        "metrics-admin-only",
        Switch(),
        "Serve /metrics on `--admin-port` and not on the port for clients.",
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
        "upload-rate-kb",
        "upload_rate",
        Real(0, 100_000, 1000),
        "Slowest that a body may come and an answer may be taken, in kilobytes a second on average; after five seconds "
        "whoever is slower is cut off. 0 leaves it to the time alone.",
    ),
    _limit(
        "max-connections",
        "connections",
        Whole(1, 1_000_000),
        "Most HTTP connections at a time; more are told to come back and closed. The system's limit of open files "
        "holds too.",
    ),
    _limit(
        "max-connections-per-address",
        "connections_per_address",
        Whole(1, 1_000_000),
        "Most HTTP connections from one address (one /64 network of IPv6); trusted proxies are exempt.",
    ),
    _limit(
        "grpc-max-message-mib",
        "message_bytes",
        Real(0.001, 2047, 1 << 20),
        "Largest gRPC message, in mebibytes. Tensors need more than images, which `--max-body-mb` limits here too.",
    ),
    _limit(
        "grpc-max-calls",
        "calls",
        Whole(1, 65536),
        "Most gRPC calls under way, over all connections; more are refused. A stream is one call.",
    ),
    _limit(
        "grpc-stream-frames",
        "stream_frames",
        Whole(1, 256),
        "Most frames of one gRPC stream under way; the next ones wait on the client's side. Raise it for a GPU that is "
        "fed by few streams.",
    ),
    _limit(
        "rate-limit",
        "rate",
        Real(0, 1_000_000),
        "Requests a second that one client may make on average (a client is a key, else a certificate's name, else an "
        "address); beyond it they are refused with 429. 0 sets no limit.",
    ),
    _limit(
        "rate-burst",
        "rate_burst",
        Real(0, 1_000_000),
        "Requests that a client which was quiet may make at once. 0: as many as `--rate-limit` allows in a second.",
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
    _plain(
        "versions",
        Text("latest, or version numbers such as 1,2", r"latest|[0-9]{1,9}(,[0-9]{1,9}){0,15}", "VERSIONS"),
        "Versions to serve: the newest, or those listed, of which the newest serves whoever names none.",
    ),
    _plain(
        "canary",
        Text(
            "a version and its share of the requests such as 2:0.1",
            r"[0-9]{1,9}:(0(\.[0-9]{1,6})?|1(\.0{1,6})?)",
            "VERSION:SHARE",
        ),
        "A version that gets this share of the requests that name none; the rest goes to the newest other one.",
    ),
)
