"""Reads the Dockerfile and .dockerignore as far as this project uses them; anything else in them is an error."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.walls import ROOT

KNOWN = {
    *("ARG", "FROM", "WORKDIR", "COPY", "RUN", "LABEL", "ENV", "VOLUME", "EXPOSE", "USER", "STOPSIGNAL"),
    *("HEALTHCHECK", "ENTRYPOINT", "CMD"),
}


@dataclass(frozen=True)
class Step:
    """One instruction: its flags (`--from=build` as `{"from": "build"}`) and what follows them."""

    name: str
    flags: dict[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments: of the JSON form if it is that, else as a shell splits them."""
        return list(json.loads(self.text)) if self.text.startswith("[") else shlex.split(self.text)


@dataclass(frozen=True)
class Stage:
    """One part of the file, from a FROM to the next."""

    name: str
    base: str
    steps: list[Step] = field(default_factory=list)

    def all(self, name: str) -> list[Step]:
        """Its instructions of this name."""
        return [step for step in self.steps if step.name == name]

    def one(self, name: str) -> Step:
        """Its only instruction of this name."""
        (step,) = self.all(name)
        return step


def stages(path: Path = ROOT / "Dockerfile") -> dict[str, Stage]:
    """Name -> stage, in the order of the file; defaults of arguments are filled in. ValueError for what is unknown."""
    arguments: dict[str, str] = {}
    found: dict[str, Stage] = {}
    stage: Stage | None = None
    for step in _steps(path.read_text()):
        if step.name == "ARG" and stage is None:
            name, _, value = step.text.partition("=")
            arguments[name] = value
        elif step.name == "FROM":
            base, _, name = step.text.partition(" AS ")
            base = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], base)
            stage = found[name] = Stage(name, base)
        elif stage is None:
            raise ValueError(f"{step.name} before the first FROM")
        else:
            stage.steps.append(step)
    return found


def _steps(text: str) -> list[Step]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        name, _, rest = line.strip().partition(" ")
        if name not in KNOWN or "<<" in rest:
            raise ValueError(f"not understood: {line}")
        flags: dict[str, str] = {}
        while match := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
            flags[match[1]] = match[2]
            rest = rest[match.end() :]
        found.append(Step(name, flags, rest.strip()))
    return found


def context(root: Path = ROOT) -> list[Path]:
    """The files that `docker build` would see, relative to `root`: those that .dockerignore does not leave out."""
    rules = []
    for line in (root / ".dockerignore").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            kept = line.startswith("!")
            rules.append((_pattern(line.removeprefix("!").strip()), kept))
    return sorted(_kept(root, PurePosixPath("."), rules))


def _kept(root: Path, folder: PurePosixPath, rules: list[tuple[re.Pattern[str], bool]]) -> list[Path]:
    found: list[Path] = []
    for entry in sorted((root / folder).iterdir()):
        path = folder / entry.name
        if entry.is_dir() and not entry.is_symlink():
            if entry.name not in {".git", ".venv", ".venv-models", ".cache", "__pycache__"}:  # large, and never kept
                found += _kept(root, path, rules)
        elif _included(path, rules):
            found.append(Path(path))
    return found


def _included(path: PurePosixPath, rules: list[tuple[re.Pattern[str], bool]]) -> bool:
    """The last rule that matches the path or a folder above it decides."""
    included = True
    places = [str(place) for place in (path, *path.parents) if str(place) != "."]
    for pattern, kept in rules:
        if any(pattern.fullmatch(place) for place in places):
            included = kept
    return included


def _pattern(rule: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", rule)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(part, re.escape(part)) for part in parts))
