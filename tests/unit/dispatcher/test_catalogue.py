"""Which level a request means: names, spellings, what workers offer, and what the operator set."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from models import manifest
from models.levels import plan
from service.config import Config
from service.core.levels import Choice, Level
from service.core.queue import LaneKey
from service.core.versions import Policy
from service.dispatcher.catalogue import Catalogue, Entry
from service.errors import Refusal
from service.wire.messages.control import Unit
from tests.contract import models

NAMED = {"balanced": "tome:4", "fast": "tome:8+width:1/2"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return models.fake(tmp_path, levels=NAMED)


def entry(directory: Path, default: str = "full") -> Entry:
    return Entry(manifest.load(directory), default)


def exact(entry: Entry, asked: str) -> Level:
    level = entry.level(asked, None)
    assert isinstance(level, Level)
    return level


def refusal(entry: Entry, asked: str | None, floor: str | None = None) -> Refusal:
    with pytest.raises(Refusal) as refused:
        entry.level(asked, floor)
    return refused.value


@pytest.mark.parametrize(
    "spelling", ["tome:8+width:1/2", "width:1/2+tome:8", "tome:8 width:1/2", "tome:8/8/8/8 width:1/2"]
)
def test_all_spellings_of_a_named_level_share_its_lane(directory: Path, spelling: str) -> None:
    model = entry(directory)
    by_name, explicit = exact(model, "fast"), exact(model, spelling)
    assert (by_name.spelled, by_name.lane, by_name.label) == ("fast", "fast", "fast")
    assert (explicit.lane, explicit.label) == ("fast", "fast")
    assert explicit.spelled == plan(spelling, models.TRUNK).level
    assert (explicit.tokens, explicit.gmacs) == (by_name.tokens, by_name.gmacs)
    assert model.lane(explicit) == model.lane(by_name)


def test_an_explicit_level_without_a_name_has_its_own_lane(directory: Path) -> None:
    level = entry(directory).level("width:1/2+tome:5", None)
    planned = plan("tome:5+width:1/2", models.TRUNK)
    assert level == Level("tome:5+width:1/2", "tome:5+width:1/2", "custom", planned.gmacs, planned.tokens)


def test_a_level_that_changes_nothing_is_full(directory: Path) -> None:
    assert exact(entry(directory), "tome:0 width:1").lane == "full"


@pytest.mark.parametrize(
    "asked", ["tiny", "tome:x", "tome:65", "width:1/3", "lookup:5x5", "tome:1+tome:2", "+", "\x00", "ä"]
)
def test_an_unknown_level_is_answered_with_all_there_are(directory: Path, asked: str) -> None:
    told = refusal(entry(directory), asked)
    assert told.code == "unknown_level"
    assert "; levels are full, balanced, fast, auto; explicit levels are tome:R, tome:R,SLOPE" in told.message
    assert told.message.count("explicit levels are") == 1
    assert told.message.isascii() and told.message.isprintable() and len(told.message) < 500


def test_a_model_without_a_trunk_has_its_names_only(tmp_path: Path) -> None:
    model = entry(models.fake(tmp_path))
    assert model.level(None, None) == exact(model, "full")
    assert refusal(model, "tome:8").message == "unknown level; levels are full, auto"
    assert not model.explains


def test_a_name_that_no_worker_offers_is_none(directory: Path) -> None:
    model = entry(directory)
    model.announce(["full", "fast"])
    assert [level.spelled for level in model.offered] == ["full", "fast"]
    told = refusal(model, "balanced")
    assert told.code == "unknown_level"
    assert "not faster here" in told.message and "levels are full, fast, auto" in told.message
    assert model.level("tome:4", None).label == "custom", "asked for explicitly it is served"
    model.announce(["full", "balanced"])  # another worker
    assert exact(model, "balanced").lane == "balanced"


@pytest.mark.parametrize(
    ("floor", "least"),
    [(None, "fast"), ("fast", "fast"), ("balanced", "balanced"), ("tome:2", "full"), ("tome:6", "balanced"),
     ("tome:60", "fast"), ("full", "full")],
)  # fmt: skip
def test_auto_leaves_the_choice_down_to_the_floor(directory: Path, floor: str | None, least: str) -> None:
    model = entry(directory)
    choice = model.level("auto", floor)
    assert isinstance(choice, Choice)
    assert choice.least.spelled == least
    served = model.served(choice, LaneKey("m", "balanced"))
    assert (served.spelled, served.label) == ("balanced", "balanced"), "the answer says what was served"


def test_the_operators_floor_is_for_those_that_name_none(directory: Path) -> None:
    model = Entry(manifest.load(directory), "auto", "balanced")
    chosen = [
        model.level(None, None),
        model.level("auto", None),
        model.level(None, "fast"),
        model.level("auto", "full"),
    ]
    assert [one.least.spelled for one in chosen if isinstance(one, Choice)] == ["balanced", "balanced", "fast", "full"]
    model.announce(["full", "fast"])
    choice = model.level(None, None)
    assert isinstance(choice, Choice) and choice.least.spelled == "full", "fast would be below it"


def test_auto_leaves_only_what_is_offered(directory: Path) -> None:
    model = entry(directory)
    model.announce(["full", "balanced"])
    choice = model.level("auto", None)
    assert isinstance(choice, Choice) and choice.least.spelled == "balanced"


@pytest.mark.parametrize(
    ("asked", "floor", "code"),
    [
        ("fast", "balanced", "bad_option"),
        (None, "fast", "bad_option"),
        ("auto", "auto", "bad_option"),
        ("auto", "tiny", "unknown_level"),
    ],
)
def test_a_floor_that_makes_no_sense(directory: Path, asked: str | None, floor: str, code: str) -> None:
    assert refusal(entry(directory), asked, floor).code == code


@pytest.mark.parametrize(("default", "served"), [("fast", "fast"), ("auto", "auto"), ("tome:3", "tome:3")])
def test_the_operators_default(directory: Path, default: str, served: str) -> None:
    model = entry(directory, default)
    assert model.level(None, None).spelled == served
    assert model.level("balanced", None).spelled == "balanced"


def test_with_auto_as_default_a_floor_alone_is_enough(directory: Path) -> None:
    choice = entry(directory, "auto").level(None, "balanced")
    assert isinstance(choice, Choice) and choice.least.spelled == "balanced"


def test_a_default_that_is_not_offered_is_stood_in_for_by_the_next_above(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = entry(directory, "fast")
    model.announce(["full", "balanced"])
    assert model.level(None, None).spelled == "balanced"
    assert '"event":"default_level_not_offered"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "label"),
    [(None, "default"), ("auto", "auto"), ("fast", "fast"), ("tome:8 width:1/2", "custom"), ("tome:5", "custom")],
)
def test_what_was_asked_is_counted_from_a_closed_set(directory: Path, asked: str | None, label: str) -> None:
    assert entry(directory).asked_label(asked) == label


def test_a_share_is_by_gmacs(directory: Path) -> None:
    model = entry(directory)
    full, less = exact(model, "full"), exact(model, "tome:5")
    assert model.share(full) == 1.0
    costs = [plan(spelling, models.TRUNK).gmacs for spelling in ("tome:5", "full")]
    assert model.share(less) == pytest.approx(costs[0] / costs[1], rel=1e-4)


# --- versions -------------------------------------------------------------------------------------------------------


NEWEST = Policy()


def catalogue_of(tmp_path: Path, *numbers: str, policy: Policy = NEWEST) -> tuple[Catalogue, dict[str, Entry]]:
    catalogue = Catalogue(Config(models=(str(tmp_path),)), [])
    described = manifest.load(models.fake(tmp_path))
    entries = {}
    for number in numbers:
        unit = Unit(f"fake-classify@{number}:aa", "fake-classify", "")
        entries[number] = catalogue.add(msgspec.structs.replace(described, version=number), unit)
    catalogue.arrange("fake-classify", policy, list(entries.values()))
    return catalogue, entries


def test_a_request_gets_the_stable_version_or_the_one_it_names(tmp_path: Path) -> None:
    catalogue, entries = catalogue_of(tmp_path, "1", "2", policy=Policy(("1", "2")))
    assert catalogue.pick(None, "classify") is entries["2"]
    assert catalogue.pick("fake-classify", "classify", "1") is entries["1"]
    with pytest.raises(Refusal, match="there is 2, 1") as refused:
        catalogue.pick(None, "classify", "3")
    assert refused.value.code == "unknown_version"
    assert catalogue.entries == {"fake-classify": entries["2"]}


def test_the_canary_gets_its_share(tmp_path: Path) -> None:
    catalogue, entries = catalogue_of(tmp_path, "1", "2", policy=Policy((), "2", 0.25))
    picked = [catalogue.pick(None, "classify") for _ in range(100)]
    assert picked.count(entries["2"]) == 25 and picked.count(entries["1"]) == 75


def test_what_is_served_changes_at_once_and_what_is_gone_is_unknown(tmp_path: Path) -> None:
    catalogue, entries = catalogue_of(tmp_path, "1", "2")
    assert not catalogue.serves(entries["1"]) and catalogue.serves(entries["2"])
    catalogue.arrange("fake-classify", Policy(), [entries["1"]])
    assert catalogue.pick(None, "classify") is entries["1"]
    catalogue.arrange("fake-classify", Policy(), [])
    with pytest.raises(Refusal):
        catalogue.pick("fake-classify", "classify")
    assert catalogue.complete(), "nothing is waited for"


def test_a_version_that_rests_is_woken_by_the_request_that_is_refused(tmp_path: Path) -> None:
    catalogue, entries = catalogue_of(tmp_path, "1")
    entries["1"].resting = True
    woken: list[str] = []
    catalogue.wake = lambda entry: woken.append(entry.key) or 3.0  # type: ignore[func-returns-value]
    with pytest.raises(Refusal) as refused:
        catalogue.use(entries["1"])
    assert (refused.value.code, refused.value.retry_after, woken) == ("model_loading", 3.0, [entries["1"].key])
    assert catalogue.complete()
