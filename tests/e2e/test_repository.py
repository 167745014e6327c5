"""Versions come and go while the service serves, as an operator and a client see it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.proto.squint.v1 import vision_pb2 as pb
from tests.e2e import images
from tests.e2e.http import once
from tests.e2e.rpc import Vision
from tests.e2e.service import ROOT, Service
from tests.e2e.versions import Repository, damage, put

IMAGE = images.png((3, 4, 5))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    root.mkdir()
    put(root, "1")
    return root


@pytest.fixture
def service(tmp_path: Path, root: Path) -> Iterator[Repository]:
    with Repository(tmp_path, root) as service:
        yield service


def tell(service: Service, number: signal.Signals) -> None:
    assert service.process is not None
    service.process.send_signal(number)


# --- new versions ---------------------------------------------------------------------------------------------------


def test_sighup_brings_a_new_version_in_and_the_old_one_out(service: Repository, root: Path) -> None:
    assert service.served(IMAGE) == "1"
    put(root, "2")
    tell(service, signal.SIGHUP)
    service.until(lambda: service.served(IMAGE) == "2")
    # A worker logs it first; it is counted once the worker's message has come, after memory was given back.
    service.until(lambda: service.metric('squint_model_reloads_total{outcome="unloaded"}') == 1)
    assert len(service.log_lines("model_unloaded")) == 1
    assert service.rows() == {"1": ("UNAVAILABLE", "not among the versions to be served"), "2": ("READY", "")}
    described = service.request("GET", "/v1/models/toy").json()
    assert (described["version"], described["versions"]) == ("2", ["2"])
    assert service.log_lines("request")[-1]["version"] == "2"
    assert service.metric('squint_model_reloads_total{outcome="loaded"}') == 1
    assert service.process is not None and service.process.poll() is None


def test_a_reload_without_news_changes_nothing(service: Repository) -> None:
    before = service.admin("GET", "/admin/models")
    assert service.admin("POST", "/admin/reload") == before
    assert len(service.log_lines("model_loaded")) == 1


def test_other_bytes_under_the_same_number_are_taken_in_too(service: Repository, root: Path) -> None:
    put(root, "1", licence="MIT")
    service.admin("POST", "/admin/reload")
    assert service.request("GET", "/v1/models/toy").json()["licence"] == "MIT"
    service.until(lambda: len(service.log_lines("model_unloaded")) == 1)
    assert service.served(IMAGE) == "1"


def test_new_models_come_and_models_that_are_gone_go(service: Repository, root: Path) -> None:
    put(root, "1", name="other", task="detect")
    service.admin("POST", "/admin/reload")
    assert service.request("POST", "/detect", IMAGE).status == 200
    shutil.rmtree(root / "other")
    service.admin("POST", "/admin/reload")
    assert service.request("POST", "/detect", IMAGE).json()["code"] == "unknown_model"
    service.until(lambda: service.rows("other") == {})
    assert service.served(IMAGE) == "1"


def test_a_request_under_way_is_answered_by_the_version_it_began_with(service: Repository, root: Path) -> None:
    """One that is with a worker; and one whose body comes only after the reload, however long that takes."""
    put(root, "2")

    async def scenario() -> list[Any]:
        connection, slow = await service.occupied(images.png(images.sleep(150)))
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        head = b"POST /classify HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(IMAGE)
        writer.write(head + IMAGE[:20])
        after_it = await once(service.port, "POST", "/classify", IMAGE)
        await once(service.admin_port, "POST", "/admin/reload")
        now = await once(service.port, "POST", "/classify", IMAGE)
        assert service.log_lines("model_unloaded") == []
        writer.write(IMAGE[20:])
        held = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
        writer.close()
        replies = [(await slow).json(), held, after_it.json(), now.json()]
        await connection.close()
        return replies

    assert [reply["version"] for reply in asyncio.run(scenario())] == ["1", "1", "1", "2"]
    service.until(lambda: bool(service.log_lines("model_unloaded")))


BROKEN = {
    "damaged": ({}, "verification"),
    "another task": ({"task": "detect"}, "verification"),
    "too large": ({"side": 64}, "size"),
    "load fails": ({"training": {"fake": "load-fails"}}, "load"),
    "load crashes": ({"training": {"fake": "load-crashes"}}, "load"),
    "warm-up fails": ({"training": {"fake": "warm-fails"}}, "load"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_version_never_serves_and_the_one_before_goes_on(service: Repository, root: Path, what: str) -> None:
    changes, outcome = BROKEN[what]
    workers = service.pids("worker")
    place = put(root, "2", **changes)  # type: ignore[arg-type]
    if what == "damaged":
        damage(place)
    service.admin("POST", "/admin/reload")
    state, reason = service.rows()["2"]
    assert state == "UNAVAILABLE" and reason and str(root) not in reason
    assert service.states()["1"] == "READY"
    assert service.served(IMAGE) == "1"
    assert service.request("POST", "/classify?version=2", IMAGE).json()["code"] == "unknown_version"
    assert service.pids("worker") == workers, "what crashes does so elsewhere"
    (line,) = service.log_lines("model_rejected")
    assert (line["model"], line["version"], line["outcome"]) == ("toy", "2", outcome)
    assert service.metric(f'squint_model_reloads_total{{outcome="{outcome}"}}') == 1
    assert service.admin("POST", "/admin/models/toy/load", 422)["code"] == "model_rejected"
    put(root, "2")
    service.admin("POST", "/admin/reload")
    assert service.served(IMAGE) == "2", "mended, it is taken"


def test_the_command_reloads_and_tells(service: Repository, root: Path) -> None:
    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        url = f"http://127.0.0.1:{service.admin_port}"
        command = [sys.executable, "-m", "squint", "models", "reload", "--url", url, *words]  # the last --url counts
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    put(root, "2")
    done = typed("--json")
    assert done.returncode == 0, done.stderr
    assert {row["version"]: row["state"] for row in json.loads(done.stdout)}["2"] == "READY"
    damage(put(root, "3"))
    done = typed()
    assert done.returncode == 1 and "it does not match its manifest" in done.stdout
    done = typed("--url", f"http://127.0.0.1:{service.port}")
    assert done.returncode == 1 and "squint serve --admin-port" in done.stderr
    service.stop()
    done = typed()
    assert done.returncode == 1 and "no answer of a Squint service" in done.stderr


def test_a_terminal_that_is_closed_ends_the_service(tmp_path: Path, root: Path) -> None:
    service = Repository(tmp_path, root, "--drain-seconds", "0")
    ours, theirs = os.openpty()
    service.stdin = theirs
    service.start()
    os.close(theirs)
    service.wait_ready()
    os.close(ours)
    tell(service, signal.SIGHUP)
    assert service.process is not None and service.process.wait(30) == 0


def test_with_headroom_a_larger_input_is_taken(tmp_path: Path, root: Path) -> None:
    with Repository(tmp_path, root, "--slot-headroom", "4") as service:
        put(root, "2", side=64)
        service.admin("POST", "/admin/reload")
        assert service.served(IMAGE) == "2"


def test_the_directories_are_watched(tmp_path: Path, root: Path) -> None:
    with Repository(tmp_path, root, "--watch-seconds", "0.2") as service:
        damage(put(root, "2"))
        service.until(lambda: bool(service.log_lines("model_rejected")))
        put(root, "2")
        service.until(lambda: service.served(IMAGE) == "2")
        shutil.rmtree(root / "toy")
        put(root, "1", name="other")
        service.until(lambda: "other" in service.request("GET", "/v1/models").body.decode())
        assert service.served(IMAGE, "/classify?model=toy") == "2", "nothing is taken away by itself"
        assert len(service.log_lines("model_rejected")) == 1, "a version is tried once"


# --- which version --------------------------------------------------------------------------------------------------


def config(folder: Path, text: str) -> tuple[str, str]:
    path = folder / "squint.toml"
    path.write_text(text)
    return "--config", str(path)


def counted(service: Repository, requests: int, target: str = "/classify") -> Counter[str]:
    return Counter(service.served(IMAGE, target) for _ in range(requests))


def over_grpc(service: Repository, calls: int, version: str = "") -> Counter[str]:
    """The versions that as many calls say they were served by; each call names `version`, if it is one."""
    with Vision(service.grpc_port) as vision:
        request = pb.ClassifyRequest(image=IMAGE, options=pb.Options(version=version))
        return Counter(vision.Classify(request, timeout=20).served.version for _ in range(calls))


def test_a_request_may_name_one_of_the_versions(tmp_path: Path, root: Path) -> None:
    put(root, "2")
    put(root, "3")
    with Repository(tmp_path, root, *config(tmp_path, '[model.toy]\nversions = "1,2"\n')) as service:
        assert service.served(IMAGE) == "2"
        assert service.served(IMAGE, "/classify?version=1") == "1"
        told = service.request("POST", "/classify?version=3", IMAGE)
        assert (told.status, told.json()["code"]) == (404, "unknown_version")
        assert service.request("POST", "/classify?version=one", IMAGE).json()["code"] == "bad_option"
        assert service.request("GET", "/v1/models/toy").json()["versions"] == ["1", "2"]
        assert service.request("GET", "/v2/models/toy").json()["versions"] == ["1", "2"]
        assert service.request("GET", "/v2/models/toy/versions/1/ready").status == 200
        assert service.request("GET", "/v2/models/toy/versions/3/ready").status == 404


def test_a_version_that_is_not_there_is_wrong_usage(tmp_path: Path, root: Path) -> None:
    service = Repository(tmp_path, root, *config(tmp_path, '[model.toy]\nversions = "7"\n'))
    service.start()
    assert service.process is not None and service.process.wait(30) == 2
    assert "[model.toy] versions = '7'" in service.log_text()


def test_a_canary_gets_its_share_and_is_promoted_or_rolled_back(tmp_path: Path, root: Path) -> None:
    put(root, "2")
    with Repository(tmp_path, root, *config(tmp_path, '[model.toy]\ncanary = "2:0.1"\n')) as service:
        assert counted(service, 50) == {"1": 45, "2": 5}
        shares = {row["version"]: row["share"] for row in service.admin("GET", "/admin/models")["versions"]}
        assert shares == {"1": 0.9, "2": 0.1}
        assert service.request("GET", "/v1/models/toy").json()["shares"] == shares
        assert service.metric('squint_version_share{model="toy",version="2"}') == 0.1
        assert service.metric('squint_version_requests_total{model="toy",outcome="ok",version="2"}') == 5
        told = service.admin("POST", "/admin/models/toy/versions?canary=2:0.5")
        assert (told["policy"], told["canary"]) == ("latest", "2:0.5")
        assert counted(service, 20) == {"1": 10, "2": 10}
        assert over_grpc(service, 20) == {"1": 10, "2": 10}
        assert over_grpc(service, 3, "1") == {"1": 3}
        service.admin("POST", "/admin/models/toy/versions?canary=none")
        assert counted(service, 5) == {"2": 5}, "promoted"
        service.until(lambda: service.states()["1"] == "UNAVAILABLE")
        service.admin("POST", "/admin/models/toy/versions?versions=1")
        assert counted(service, 5) == {"1": 5}, "rolled back"
        assert service.admin("POST", "/admin/models/toy/versions?versions=9", 404)["code"] == "unknown_version"
        assert service.admin("POST", "/admin/models/toy/versions?canary=2:7", 400)["code"] == "bad_option"
        assert service.admin("POST", "/admin/models/toy/versions?color=red", 400)["code"] == "bad_option"


def test_a_canary_that_cannot_be_loaded_changes_nothing(service: Repository, root: Path) -> None:
    put(root, "2", training={"fake": "load-fails"})
    told = service.admin("POST", "/admin/models/toy/versions?canary=2:0.5", 422)
    assert told["code"] == "model_rejected"
    assert counted(service, 4) == {"1": 4}
    assert service.admin("POST", "/admin/models/toy/load", 422)["code"] == "model_rejected"


# --- what outlives whom ---------------------------------------------------------------------------------------------


def test_a_gateway_that_is_started_again_serves_what_the_one_before_did(service: Repository, root: Path) -> None:
    put(root, "2")
    service.admin("POST", "/admin/models/toy/versions?canary=2:0.5")
    damage(put(root, "3"))
    (gateway,) = service.pids("gateway")
    os.kill(gateway, signal.SIGKILL)
    service.until(lambda: bool(service.pids("gateway")) and gateway not in service.pids("gateway"))
    service.wait_ready()
    assert counted(service, 10) == {"1": 5, "2": 5}
    assert len(service.log_lines("model_loaded")) == 2, "the worker kept both"


def test_a_worker_that_is_started_again_loads_what_is_served_now(service: Repository, root: Path) -> None:
    put(root, "2")
    service.admin("POST", "/admin/reload")
    damage(put(root, "3"))
    (worker,) = service.pids("worker")
    os.kill(worker, signal.SIGKILL)
    service.until(lambda: bool(service.pids("worker")) and worker not in service.pids("worker"))
    service.wait_ready()
    assert service.served(IMAGE) == "2"


def test_a_version_that_was_taken_away_is_stood_in_for_when_a_worker_must_start_again(
    service: Repository, root: Path
) -> None:
    put(root, "2")
    service.admin("POST", "/admin/reload")
    shutil.rmtree(root / "toy" / "2")
    (worker,) = service.pids("worker")
    os.kill(worker, signal.SIGKILL)
    service.until(lambda: bool(service.log_lines("model_lost")))
    service.until(lambda: service.states() == {"1": "READY"})
    assert service.served(IMAGE) == "1"
    assert service.process is not None and service.process.poll() is None


def test_all_workers_have_a_version_before_it_serves(tmp_path: Path, root: Path) -> None:
    with Repository(tmp_path, root, "--workers", "2", "--threads", "1") as service:
        put(root, "2", training={"fake": "load-slow"})
        service.admin("POST", "/admin/reload")
        loads = [line for line in service.log_lines("model_loaded") if line["version"] == "2"]
        assert {line["process"] for line in loads} == {"worker 0", "worker 1"}
        assert counted(service, 8) == {"2": 8}
        service.until(lambda: len(service.log_lines("model_unloaded")) == 2)


# --- loading and unloading ------------------------------------------------------------------------------------------


def test_a_model_is_unloaded_and_loaded_by_call(service: Repository, root: Path) -> None:
    put(root, "1", name="other", task="detect")
    service.admin("POST", "/admin/models/other/load")
    assert service.request("POST", "/detect", IMAGE).status == 200
    told = service.admin("POST", "/admin/models/other/unload")
    assert [(row["state"], row["reason"]) for row in told["versions"]] == [("UNAVAILABLE", "unloaded by the operator")]
    assert service.request("POST", "/detect", IMAGE).status == 404
    service.admin("POST", "/admin/reload")
    assert service.request("POST", "/detect", IMAGE).status == 404, "until it is loaded again"
    assert service.request("GET", "/readyz").status == 200
    service.admin("POST", "/admin/models/other/load")
    assert service.request("POST", "/detect", IMAGE).status == 200
    assert service.admin("POST", "/admin/models/nothing/load", 404)["code"] == "unknown_model"
    assert service.admin("POST", "/admin/models/nothing/unload", 404)["code"] == "unknown_model"


def test_the_repository_calls_of_kserve_do_the_same(service: Repository, root: Path) -> None:
    put(root, "2")
    assert service.request("POST", "/v2/repository/models/toy/load").status == 200
    index = service.request("POST", "/v2/repository/index").json()
    states = {row["version"]: row["state"] for row in index}
    assert states["2"] == "READY" and states["1"] in ("UNLOADING", "UNAVAILABLE")
    assert service.request("POST", "/v2/repository/models/toy/unload").status == 200
    assert service.request("POST", "/v2/repository/index", b'{"ready": true}').json() == []
    assert service.request("POST", "/v2/repository/models/nothing/load").status == 404


def test_calls_change_nothing_unless_that_was_asked_for(tmp_path: Path, root: Path) -> None:
    with Repository(tmp_path, root, "--model-control", "none") as service:
        put(root, "2")
        for target in ("reload", "models/toy/load", "models/toy/unload", "models/toy/versions?versions=1"):
            told = service.admin("POST", f"/admin/{target}", 400)
            assert "--model-control explicit" in told["error"], target
        assert service.request("POST", "/v2/repository/models/toy/load").status == 400
        assert service.states() == {"1": "READY", "2": "UNAVAILABLE"} or service.states() == {"1": "READY"}
        assert service.request("POST", "/admin/reload").status == 404, "not on the port for clients"
        tell(service, signal.SIGHUP)
        service.until(lambda: service.served(IMAGE) == "2")


# --- memory ---------------------------------------------------------------------------------------------------------


def answer(service: Repository, model: str) -> Any:
    return service.request("POST", f"/classify?model={model}", IMAGE)


def test_models_beyond_the_budget_are_loaded_when_they_are_asked_for(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    for name in ("a", "b", "c"):
        # Resident memory is what the fake keeps on purpose: 40 MB each.
        put(root, "1", name=name, training={"fake": "load-heavy"})
    with Repository(tmp_path, root, "--model-memory-mb", "100") as service:
        service.until(lambda: Counter(service.states(name)["1"] for name in "abc") == {"READY": 2, "UNAVAILABLE": 1})
        asleep = next(name for name in "abc" if service.states(name)["1"] == "UNAVAILABLE")
        assert service.rows(asleep)["1"][1] == "loaded when somebody asks for it"
        first, second = (name for name in "abc" if name != asleep)
        assert answer(service, first).status == 200
        told = answer(service, asleep)
        assert (told.status, told.json()["code"]) == (503, "model_loading")
        assert int(told.headers["retry-after"]) >= 1
        service.until(lambda: answer(service, asleep).status == 200)
        assert service.states(second) == {"1": "UNAVAILABLE"}, "nobody asked for it"
        assert answer(service, first).status == 200
        assert service.request("GET", "/readyz").status == 200
        service.until(lambda: bool(service.log_lines("model_unloaded")))
        told = answer(service, second)
        assert told.json()["code"] == "model_loading"
        service.until(lambda: answer(service, second).status == 200)
        assert [service.states(name)["1"] for name in (asleep, first)] == ["UNAVAILABLE", "READY"]


def test_what_is_larger_than_the_budget_is_rejected(tmp_path: Path, root: Path) -> None:
    with Repository(tmp_path, root, "--model-memory-mb", "20") as service:
        put(root, "2", training={"fake": "load-heavy"})
        service.admin("POST", "/admin/reload")
        assert service.rows()["2"][1] == "it takes more memory than --model-memory-mb"
        assert service.served(IMAGE) == "1"
