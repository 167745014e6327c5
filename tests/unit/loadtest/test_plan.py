from __future__ import annotations

import numpy as np
import pytest

from loadtest import plan
from loadtest.bodies import Body

BODIES = [Body(b"abc", (("Content-Type", "image/jpeg"),), "small"), Body(b"defgh", (), "large")]


def test_a_request_is_complete_http() -> None:
    target = plan.target("http://h:81/base/", "/classify?top_k=1", BODIES, headers=[("X-A", "1")])
    assert (target.host, target.port, target.secure) == ("h", 81, False)
    head, _, body = target.requests[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /base/classify?top_k=1 HTTP/1.1",
        b"Host: h:81",
        b"Content-Type: image/jpeg",
        b"X-A: 1",
        b"Content-Length: 3",
    ]
    assert body == b"abc"
    assert target.kinds == ("small", "large")
    assert target.kind_of == (0, 1)


def test_a_header_that_is_given_wins() -> None:
    request = plan.target("h", "/", BODIES, headers=[("content-type", "image/png")]).requests[0]
    assert request.lower().count(b"content-type") == 1
    assert b"image/png" in request


@pytest.mark.parametrize(("url", "path"), [("ftp://h", "/"), ("http://", "/"), ("h", "/a b"), ("h", "/\r\nX: y")])
def test_what_is_no_request_is_an_error(url: str, path: str) -> None:
    with pytest.raises(ValueError, match=r"address|space"):
        plan.target(url, path, BODIES)


def test_https_has_its_own_port() -> None:
    target = plan.target("https://h", "/", BODIES)
    assert (target.port, target.secure) == (443, True)
    assert target.context() is not None


def test_bodies_are_chosen_by_weight_and_images_in_turn() -> None:
    chosen = plan.choose(np.random.default_rng(0), [3, 1], [2, 3], 40_000)
    assert (chosen < 2).mean() == pytest.approx(0.75, abs=0.01)
    counts = np.bincount(chosen)
    assert abs(counts[0] - counts[1]) <= 1
    assert counts[2:].max() - counts[2:].min() <= 1


def test_plan_and_target_survive_the_way_to_the_sender() -> None:
    wanted = plan.Plan(np.array([0.0, 0.5]), np.array([1, 0], np.int32), 2.0, warmup=0.5, deadline=0.1)
    target = plan.target("h", "/", BODIES)
    back, to = plan.unpack(plan.pack(wanted, target))
    assert to == target
    assert back.times.tolist() == [0.0, 0.5]
    assert back.choice.tolist() == [1, 0]
    assert (back.seconds, back.warmup, back.deadline, back.closed) == (2.0, 0.5, 0.1, 0)
