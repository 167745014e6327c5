"""`squint serve`: start the service. Its flags are the table of service.settings."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from service import config
from service.config import Config
from service.kinds import Setting, Several, Switch
from service.settings import SETTINGS

SAMPLES = Path(__file__).resolve().parents[2] / "samples"

DESCRIPTION = """\
Start the service and stay until it is told to stop. SIGTERM or Ctrl-C lets requests in flight finish first.

Settings come from flags, then from variables SQUINT_..., then from squint.toml in the working directory (or the file
that --config names), then from the defaults below. Per model, squint.toml also takes tables such as

  [model.toyscape-classify]
  backend = "onnxruntime"
  default_level = "full"
"""


FIRST = """\
Squint starts. Nothing was measured on this machine yet: the first start tries each backend with each model, which takes
a minute or two on two cores; later ones take seconds. With `--backend onnxruntime` it tries that one alone.
"""


def add(commands: Any) -> None:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="start the service",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="Read this TOML file instead of squint.toml. [SQUINT_CONFIG]")
    limits = parser.add_argument_group("limits", "What a request may cost; what is beyond is refused early.")
    shown = config.shown_defaults()
    for setting in SETTINGS:
        group = limits if setting.field.startswith("limits.") else parser
        add_setting(group, setting, shown[setting.name])
    parser.set_defaults(run=run)


def add_setting(group: Any, setting: Setting, default: str) -> None:
    """One flag. Its value stays text, which the configuration checks with what comes from elsewhere."""
    words = f"{setting.why} Default: {default}. [{setting.variable}]".replace("%", "%%")
    if isinstance(setting.kind, Switch):
        group.add_argument(setting.flag, action="store_true", default=None, help=words)
        return
    action = "append" if isinstance(setting.kind, Several) else "store"
    group.add_argument(setting.flag, action=action, default=None, metavar=setting.kind.metavar, help=words)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The flags that were given, by the name of their setting."""
    return {name.replace("_", "-"): value for name, value in vars(options).items() if value is not None}


def run(options: argparse.Namespace) -> int:
    """Until the service ends."""
    loaded = config.load(settings_of(options))
    from service.supervisor import run as supervise

    if loaded.backend != "fake" and not any(Path(loaded.cache_dir).glob("*")):
        print(FIRST, flush=True)
    return supervise(loaded, greet)


def greet(loaded: Config) -> None:
    """Say where the service is and what to try; called once, when it is ready."""
    host = "127.0.0.1" if loaded.host in {"0.0.0.0", "::"} else loaded.host
    scheme = "https" if loaded.tls_cert else "http"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{loaded.http_port}"
    key = ' -H "X-API-Key: $SQUINT_API_KEY"' if loaded.key_file else ""
    lines = [f"Squint is ready on {url} (API: {url}/docs, metrics: {url}/metrics). Try:", ""]
    for task in ("classify", "detect", "segment"):
        lines.append(f"  curl --data-binary @{_sample(task)} -H 'Content-Type: image/jpeg'{key} {url}/{task}")
    print("\n".join([*lines, ""]), flush=True)


def _sample(task: str) -> str:
    """A sample image as it can be typed here: relative where that is possible, else any image."""
    path = SAMPLES / f"{task}.jpg"
    if not path.is_file():
        return "image.jpg"
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
