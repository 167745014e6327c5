"""`squint health`, as the image's health check and scripts use it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.config import Config
from squint.commands.health import own_url
from tests.e2e.service import Service, free_port
from tests.walls import ROOT


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as running:
        yield running


def health(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "squint", "health", *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_service_that_is_ready(service: Service) -> None:
    done = health(f"http://127.0.0.1:{service.port}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")
    assert health(f"127.0.0.1:{service.port}", "--live").stdout == "alive\n"


def test_without_a_url_it_asks_where_the_variables_say(service: Service) -> None:
    assert health(SQUINT_HTTP_PORT=str(service.port)).returncode == 0
    assert health(PORT=str(service.port)).returncode == 0
    assert health(SQUINT_HTTP_PORT=str(free_port())).returncode == 1


def test_a_service_that_is_not_there_or_is_another(service: Service) -> None:
    port = free_port()
    for url, words in (
        (f"http://127.0.0.1:{port}", "refused"),
        (f"https://127.0.0.1:{service.port}", "does not answer"),
        (f"http://127.0.0.1:{service.port}/", "ready"),
        ("ftp://127.0.0.1", "expected a URL"),
        ("http://127.0.0.1:port", "expected a URL"),
    ):
        done = health(url)
        assert done.returncode == (0 if words == "ready" else 1)
        assert words in done.stdout + done.stderr
        assert len((done.stdout + done.stderr).splitlines()) == 1


def test_a_service_that_is_starting_says_so(tmp_path: Path) -> None:
    slow = Service(tmp_path, "--fake-batch-ms", "1500")
    slow.start()
    try:
        said = set()
        while "ready" not in said:
            done = health(f"http://127.0.0.1:{slow.port}")
            said.add(done.stdout.strip() if done.returncode == 0 else done.stderr.rpartition(": ")[2].strip())
            assert len(said) < 5, said
        slow.wait_ready()
    finally:
        slow.stop()


@pytest.mark.parametrize(
    ("loaded", "url"),
    [
        (Config(), "http://127.0.0.1:8000"),
        (Config(host="0.0.0.0", http_port=8080), "http://127.0.0.1:8080"),
        (Config(host="::"), "http://[::1]:8000"),
        (Config(host="10.0.0.7", tls_cert="c", tls_key="k"), "https://10.0.0.7:8000"),
        (Config(tls_cert="c", tls_key="k", admin_port=8002), "http://127.0.0.1:8002"),
        (Config(tls_cert="c", tls_key="k", admin_port=8002, admin_host="0.0.0.0"), "https://127.0.0.1:8002"),
        (Config(admin_port=0), "http://127.0.0.1:8000"),
    ],
)
def test_it_knows_where_its_own_service_is(loaded: Config, url: str) -> None:
    assert own_url(loaded) == url


def test_wrong_usage_ends_with_2() -> None:
    assert health("--timeout", "0").returncode == 2
    assert health(SQUINT_HTTP_PORT="many").returncode == 2
