"""The documents as a contract: what they say is there, is; and what is there, they say."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from service.errors import STATUS
from service.kinds import Setting
from service.settings import SETTINGS
from squint import cli, reference
from tests.walls import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "samples").glob("*.md")])
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
SKIPPED = {".git", ".cache", ".venv", ".venv-models", ".venv-gpu", "__pycache__", "build", "dist"}
TEXT = {".py", ".md", ".toml", ".lock", ".json", ".yml", ".yaml", ".cfg", ".txt", ".proto", ".html", ".js", ".css", ""}


def tracked() -> list[Path]:
    """Text files of the project."""
    return [
        path
        for path in sorted(ROOT.rglob("*"))
        if path.is_file()
        and path.suffix in TEXT
        and not any(part in SKIPPED or part.endswith((".egg-info", "_cache")) or part == ".hypothesis"
                    for part in path.relative_to(ROOT).parts)
    ]  # fmt: skip


def test_the_settings_are_documented_as_they_are() -> None:
    document = reference.DOCUMENT.read_text()
    assert reference.written(document) == document, "run: make docs"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_stands_in_the_document(setting: Setting) -> None:
    row = next(line for line in reference.DOCUMENT.read_text().splitlines() if line.startswith(f"| `{setting.flag}` |"))
    assert f"`{setting.variable}`" in row
    assert f"`{setting.key}`" in row
    assert len(setting.why) > 20


def test_every_error_code_stands_in_the_interface_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert {code: int(status) for status, code in rows} == STATUS


def test_every_option_stands_in_the_interface_with_its_bounds() -> None:
    from service.gateway import schemas

    text = (ROOT / "docs" / "api.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", text, re.MULTILINE))
    for task in schemas.OPTIONS:
        for parameter in schemas.parameters(task):
            row = rows[parameter["name"]]
            assert "all" in row or task in row
            schema = json.dumps(parameter["schema"])
            if parameter["name"] not in {"timeout_ms"}:
                bounds = re.findall(r'"(?:minimum|maximum)": ([\d.]+)', schema)
                assert all(f"{float(bound):g}" in row for bound in bounds), parameter["name"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_command_exists(page: Path) -> None:
    said = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert said <= TARGETS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_squint_command_can_be_typed(page: Path) -> None:
    for line in re.findall(r"^(?:\.venv[a-z-]*/bin/)?squint (.*?)(?: +#.*)?$", page.read_text(), re.MULTILINE):
        cli.parser().parse_args(line.split())


def test_every_sample_that_is_named_is_there() -> None:
    named = {name for page in PAGES for name in re.findall(r"samples/[\w-]+\.\w+", page.read_text())}
    assert named
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_every_marker_and_target_that_help_names_exists() -> None:
    described = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split())  # type: ignore[index]
    assert described == phony


def test_the_changelog_says_what_is_coming() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.index("## Unreleased") < text.index("## 0.1.0")


def test_the_licence_is_stated_for_code_and_models() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert "Apache-2.0" in (ROOT / "README.md").read_text()
    for manifest in (ROOT / "models" / "zoo").rglob("manifest.json"):
        assert json.loads(manifest.read_text())["licence"] == "Apache-2.0", manifest


def test_nobody_is_told_to_install_another_project_of_this_name() -> None:
    """The package called `squint` in public indexes is not this one: ours is installed by its path."""
    told = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in tracked()
        if path != Path(__file__)
        for line in path.read_text(errors="replace").splitlines()
        if re.search(r"pip3? install (?:-[\w-]+ )*['\"]?squint\b", line)
    ]
    assert not told, "\n".join(told)


def test_no_link_is_kept_in_the_repository() -> None:
    """One that leads to somebody's environment takes the place of everybody's, with all that was in it."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert listed
    assert not [line for line in listed.splitlines() if line.startswith("120000 ")]
    for name in (".venv", ".venv-models", ".venv-gpu"):
        # Without a slash behind it, a link of that name is ignored as a directory is.
        assert name in (ROOT / ".gitignore").read_text().splitlines()


INDEX = re.compile(r"--(?:extra-)?index-url|--find-links (?!\$)|pypi\.|/simple\b")
MACHINE = re.compile(r"(?<![\w.@/])/(?:root|home/(?!someone)\w|work|opt|mnt(?!/models)|Users)/")


def test_no_file_names_a_package_index_or_a_place_on_somebodys_machine() -> None:
    found = []
    for path in tracked():
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if INDEX.search(line) or MACHINE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)
