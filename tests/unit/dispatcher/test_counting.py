"""What several processes count comes together, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.config import Config
from service.dispatcher.catalogue import Catalogue
from service.dispatcher.counting import Counting
from service.dispatcher.statistics import Statistics
from service.dispatcher.tickets import Outcome
from service.dispatcher.triton_metrics import TritonMetrics
from service.errors import Refusal, WireError
from service.metrics import Metrics
from service.wire.messages.control import Unit
from tests.contract import models

NAME, KEY = "toy", "toy/1"


class Place:
    """One process that counts."""

    def __init__(self, directory: Path) -> None:
        self.metrics = Metrics("1")
        self.inferred = Statistics(lambda: 12.0)
        self.catalogue = Catalogue(Config(), [Unit(KEY, NAME, str(directory))])
        self.triton = TritonMetrics(self.inferred, lambda: {(NAME, "1"): 0})
        self.metrics.add(self.triton.render)
        self.counting = Counting(self.metrics, self.inferred, self.triton, self.catalogue)
        self.traced: dict[str, int] = {}
        self.counting.traces = lambda: self.traced

    @property
    def entry(self) -> Any:
        return self.catalogue.of(KEY)

    def answer(self, seconds: float) -> None:
        """One request, as a gateway counts it."""
        outcome = Outcome(decode=0.125, queue=0.25, infer=seconds, post=0.0)
        self.metrics.request("classify", NAME, "full", "ok", seconds)
        self.metrics.stages(NAME, "full", outcome.decode, outcome.queue, outcome.infer, outcome.post)
        self.metrics.served(NAME, "full", "default")
        self.inferred.answered(NAME, "1", [outcome], seconds)
        self.triton.finished(self, [outcome], None, seconds)
        self.entry.answered += 1

    def refuse(self, code: str) -> None:
        self.metrics.refused(code)
        self.metrics.request("classify", NAME, "none", code, 0.125)
        self.inferred.refused(NAME, "1", 0.001)
        self.triton.finished(self, [], Refusal(code, "no"), 0.001)
        self.entry.refused += 1


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return models.fake(tmp_path, "classify", NAME)


def shown(text: str) -> list[str]:
    """All samples but those of times of creation."""
    return sorted(line for line in text.splitlines() if not line.startswith("#") and "_created" not in line)


def test_several_count_as_one_would(directory: Path) -> None:
    alone, hub, first, second = (Place(directory) for _ in range(4))
    for number in range(40):
        gateway = (first, second)[number % 2]
        for place in (alone, gateway):
            if number % 5:
                # Sums of these are exact.
                place.answer(number / 1024)
            else:
                place.refuse("overloaded")
            place.traced["sent"] = place.traced.get("sent", 0) + 1
        if number % 7 == 0:
            hub.counting.merge(gateway.counting.take())
    for gateway in (first, second):
        hub.counting.merge(gateway.counting.take())
        assert gateway.counting.take() == {}, "nothing is told twice"
    hub.traced = {}
    assert shown(hub.metrics.render().decode()) == shown(alone.metrics.render().decode())
    assert hub.inferred.of(NAME, "1") == alone.inferred.of(NAME, "1")
    assert (hub.entry.answered, hub.entry.refused) == (alone.entry.answered, alone.entry.refused) == (32, 8)
    assert hub.counting.all_traces() == alone.counting.all_traces() == {"sent": 40}


@pytest.mark.parametrize(
    "parts",
    [
        {"metrics": b"\xc1"},
        {"metrics": b"\x92\x90\x90"},
        {"statistics": b"\x01"},
        {"versions": b"\x91\x91\xa1a"},
        {"triton": b"\x91\x94\xa1a\xa11\x81\xa1x\x01\x80"},
        {"traces": b"\x81\xa1a\xa1b"},
    ],
)
def test_what_no_gateway_would_say_is_not_believed(directory: Path, parts: dict[str, bytes]) -> None:
    with pytest.raises(WireError):
        Place(directory).counting.merge(parts)
