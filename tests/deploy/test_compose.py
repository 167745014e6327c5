"""docker-compose.yml: in agreement with the service, and with the files it mounts."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from service import config, supervisor
from service.settings import SETTINGS
from service.version import VERSION
from tests.deploy.dockerfile import stages
from tests.walls import ROOT

FILE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Target -> source; the mode is left out."""
    found = {}
    for line in service["volumes"]:
        source, target = re.fullmatch(r"(\$\{.*?\}|[^:]+):([^:]+)(?::ro)?", line).groups()  # type: ignore[union-attr]
        found[target] = source
    return found


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_held_tightly(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit"} <= set(service)
    assert not {"privileged", "network_mode", "pid", "user"} & set(service)
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there(name: str) -> None:
    for target, source in mounts(SERVICES[name]).items():
        if source.startswith("./"):
            assert (ROOT / source).exists(), source
            assert f"{source}:{target}:ro" in SERVICES[name]["volumes"]
        elif not source.startswith("$"):
            assert source in FILE["volumes"]


def test_squint_is_built_from_here_and_told_what_it_knows() -> None:
    service = SERVICES["squint"]
    assert service["image"] == f"squint:{VERSION}"
    assert service["build"]["target"] in stages()
    assert set(service["environment"]) <= {setting.variable for setting in SETTINGS}
    assert mounts(service)["/mnt/models"] == "${MODELS:-squint-models}"
    assert config.MOUNTED_MODELS in mounts(service)
    assert stages()["cpu"].one("VOLUME").words[0] in mounts(service)


def test_whoever_was_admitted_is_answered_before_it_is_killed() -> None:
    service = SERVICES["squint"]
    given = dict(word.split("=", 1) for word in stages()["cpu"].one("ENV").words)
    loaded = config.load({}, given | service["environment"])
    longest = loaded.drain_seconds + loaded.limits.max_timeout_ms / 1000
    longest += supervisor._DRAIN_SLACK + supervisor._LEAVE_SECONDS
    assert longest <= int(service["stop_grace_period"].removesuffix("s"))


def test_prometheus_scrapes_squint_with_our_rules() -> None:
    told = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    targets = [
        target
        for job in told["scrape_configs"]
        for static in job.get("static_configs", [])
        for target in static["targets"]
    ]
    assert "squint:8000" in targets
    inside = mounts(SERVICES["prometheus"])
    folder = next(target for target, source in inside.items() if source == "./deploy/prometheus")
    assert f"--config.file={folder}/prometheus.yml" in SERVICES["prometheus"]["command"]
    for pattern in told["rule_files"]:
        relative = pattern.removeprefix(f"{folder}/")
        assert not relative.startswith("/")
        assert list((ROOT / "deploy" / "prometheus").glob(relative)), pattern


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    sources = [yaml.safe_load(path.read_text()) for path in (provisioning / "datasources").glob("*.y*ml")]
    assert "http://prometheus:9090" in [one["url"] for told in sources for one in told["datasources"]]
    providers = [yaml.safe_load(path.read_text()) for path in (provisioning / "dashboards").glob("*.y*ml")]
    folders = [one["options"]["path"] for told in providers for one in told["providers"]]
    inside = mounts(SERVICES["grafana"])
    assert folders
    assert all(inside.get(folder) == "./deploy/grafana/dashboards" for folder in folders)
