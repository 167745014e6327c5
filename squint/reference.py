"""The reference part of docs/configuration.md, made from the table of settings.

`python -m squint.reference` writes it (make docs); a test fails when the document and the table disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from service import config
from service.kinds import Setting
from service.settings import MODEL_SETTINGS, SETTINGS

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
BEGIN = "<!-- made by `make docs` from service/settings.py: begin -->"
END = "<!-- end -->"


def reference() -> str:
    """All settings as Markdown."""
    shown = config.shown_defaults()
    service = [setting for setting in SETTINGS if not setting.field.startswith("limits.")]
    limits = [setting for setting in SETTINGS if setting.field.startswith("limits.")]
    lines = ["## The service", "", *_entries(service, shown)]
    lines += ["## Limits", "", "What a request may cost. What is beyond is refused before it costs anything.", ""]
    lines += _entries(limits, shown)
    lines += ["## Per model", "", "Only in `squint.toml`, in a table `[model.NAME]`.", ""]
    for setting in MODEL_SETTINGS:
        default = setting.default or setting.kind.show(getattr(config.ModelConfig(), setting.field))
        lines += [f"- `{setting.key}`: {setting.why} Accepts {setting.kind.accepted}. Default: {default}."]
    return "\n".join(lines) + "\n"


def _entries(settings: Iterable[Setting], shown: dict[str, str]) -> list[str]:
    lines = ["| flag | variable | key | default | accepts |", "|---|---|---|---|---|"]
    for setting in settings:
        accepts = setting.kind.accepted.replace("|", "\\|")
        default = setting.default or f"`{shown[setting.name]}`"
        lines.append(f"| `{setting.flag}` | `{setting.variable}` | `{setting.key}` | {default} | {accepts} |")
    lines.append("")
    lines += [f"- `{setting.flag}`: {setting.why}" for setting in settings]
    return [*lines, ""]


def written(document: str) -> str:
    """The document with its reference part made anew."""
    head, _, rest = document.partition(BEGIN)
    tail = rest.partition(END)[2]
    return f"{head}{BEGIN}\n\n{reference()}\n{END}{tail}"


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text()))
