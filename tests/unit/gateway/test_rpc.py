"""What gRPC adds to a request, where no service is needed to see it."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import grpc
import pytest

from service.errors import STATUS, Refusal
from service.gateway.rpc import caller, status, typed
from service.gateway.rpc.entrance import PUBLIC
from service.proto.squint.v1 import vision_pb2 as pb
from tests.walls import ROOT


def test_every_refusal_has_a_status() -> None:
    assert set(STATUS.values()) <= status.BY_HTTP.keys()
    assert grpc.StatusCode.OK not in status.BY_HTTP.values()


def test_a_refusal_that_time_heals_says_when() -> None:
    told = dict(status.trailers(Refusal("overloaded", "later", retry_after=0.25), "r1"))
    assert told == {
        "x-squint-code": "overloaded",
        "x-request-id": "r1",
        "retry-after-ms": "250",
        "grpc-retry-pushback-ms": "250",
    }
    assert set(dict(status.trailers(Refusal("bad_option", "never"), "r1"))) == {"x-squint-code", "x-request-id"}


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:51234", "127.0.0.1"),
        ("ipv6:%5B2001:db8::7%5D:51234", "2001:db8::7"),
        ("ipv6:[::1]:51234", "::1"),
        ("unix:", "unix"),
    ],
)
def test_an_address_is_that_of_http(peer: str, address: str) -> None:
    assert caller.address(peer) == address


class Call:
    """A call's context, as far as its metadata go."""

    def __init__(self, *metadata: tuple[str, str | bytes]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> Any:
        return self._metadata


def test_the_first_value_of_a_name_counts() -> None:
    told = caller.metadata(Call(("x-api-key", "one"), ("x-api-key", "two"), ("x-request-id", "r-1")))  # type: ignore[arg-type]
    assert (told.api_key, told.request_id, told.authorization) == ("one", "r-1", None)
    assert len(caller.metadata(Call(("x-request-id", "a b"))).request_id) == 32  # type: ignore[arg-type]


def test_what_is_not_set_has_the_same_default_as_over_http() -> None:
    from service.gateway import schemas

    empty: dict[str, typed.Request] = {
        "classify": pb.ClassifyRequest(),
        "detect": pb.DetectRequest(),
        "segment": pb.SegmentRequest(),
    }
    for task, request in empty.items():
        assert typed.options(task, request) == schemas.options(task, b"", ())


def test_a_threshold_means_what_was_written() -> None:
    _, of_result = typed.options("detect", pb.DetectRequest(threshold=0.3, max_detections=7))
    assert (of_result.threshold, of_result.max_detections) == (0.3, 7)


def test_options_of_strangers_are_not_kept() -> None:
    before = typed._parsed.cache_info().currsize
    for letter in "abc":
        with pytest.raises(Refusal):
            typed.options("classify", pb.ClassifyRequest(options=pb.Options(level=letter * 1000)))
    assert typed._parsed.cache_info().currsize == before


def test_only_health_is_public() -> None:
    health = ("/grpc.health.v1.Health/", "/inference.GRPCInferenceService/Server")
    assert all(method.startswith(health) for method in PUBLIC)


def test_the_gateway_loads_grpc_only_for_its_port() -> None:
    code = "import sys, service.gateway.main; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not {"grpc", "google.protobuf"} & set(run.stdout.split())


def test_the_table_in_the_documents_is_the_one_that_holds() -> None:
    text = (ROOT / "docs" / "grpc.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*) \|$", text, re.MULTILINE)
    said = {code: name for name, codes in rows for code in re.findall(r"`([a-z_]+)`", codes)}
    assert said == {code: status.BY_HTTP[number].name for code, number in STATUS.items()}
