from __future__ import annotations

from pathlib import Path

import pytest

from loadtest import drive, scenario
from loadtest.scenario import ScenarioError
from tests.walls import ROOT

SCENARIOS = sorted((ROOT / "loadtest" / "scenarios").glob("*.toml"))
PHASE = 'name = "x"\n[[phases]]\nseconds = 1\n'


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_committed_scenarios_can_be_read_and_planned(path: Path) -> None:
    wanted = scenario.load(path)
    assert wanted.name == path.stem
    for number, group in enumerate(drive.groups(wanted, 100.0)):
        mixed = drive.Mixed(None, None, [1.0], [4], {})  # type: ignore[arg-type]
        plan = drive.plan(wanted, group, mixed, number)
        assert plan.closed or len(plan.times) > 10
        assert plan.seconds == wanted.warmup_seconds + sum(phase.seconds for phase in group.phases)


def test_there_are_the_scenarios_that_the_document_names() -> None:
    assert {path.stem for path in SCENARIOS} >= {"steady", "burst", "diurnal", "mixed-sizes", "sweep", "saturation"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "not TOML"),
        ('name = "x"', "give either phases or a sweep"),
        (PHASE + "rate = 1\n[sweep]\nseconds = 1\nrates = [1]", "give either phases or a sweep"),
        ("[[phases]]\nseconds = 1", "missing key 'name'"),
        (PHASE + "rte = 1", "phases[0]: unknown key 'rte'"),
        (PHASE + 'rate = "fast"', "phases[0].rate: Expected"),
        (PHASE, "phases[0]: give either rate or load"),
        (PHASE + "rate = 1\nload = 1", "phases[0]: give either rate or load"),
        (PHASE + "load = 1", "phases[0].load: needs capacity"),
        (PHASE + "rate = 0", "phases[0].rate: more than 0"),
        (PHASE + "rate = inf", "phases[0].rate: more than 0"),
        (PHASE + 'rate = 1\nkind = "waves"', "phases[0].kind: Invalid enum value 'waves'"),
        (PHASE + 'kind = "bursts"\nrate = 1', "phases[0]: give burst_rate or burst_load"),
        (PHASE + "rate = 1\nburst_rate = 2", "burst_rate is for bursts alone"),
        (PHASE + 'kind = "closed"', "a closed loop needs 1 to 60000"),
        (PHASE + 'kind = "closed"\nconnections = 4\nrate = 2', "has no rate of its own"),
        (PHASE + 'kind = "replay"', "replay needs a file"),
        (PHASE + "rate = 1\nswing = 2", "phases[0].swing: from 0 to 1"),
        (PHASE.replace("1\n", "1\nrate = 1\n") + '[[images]]\nkind = "big"', "images[0].kind: unknown kind of image"),
        (PHASE + "rate = 1\n[[images]]\nweight = -1", "images[0].weight: more than 0"),
        (PHASE.replace('"x"', '"a/b"') + "rate = 1", "name: letters"),
        ('encoding = "xml"\n' + PHASE + "rate = 1", "encoding: one of raw"),
        ('path = "classify"\n' + PHASE + "rate = 1", "path: begins with /"),
        ("deadline_ms = -5\n" + PHASE + "rate = 1", "deadline_ms: more than 0"),
        ('capacity = "guess"\n' + PHASE + "rate = 1", "capacity: "),
        ('name = "x"\n[sweep]\nseconds = 1', "sweep: give either rates or load"),
        ('name = "x"\n[sweep]\nseconds = 1\nload = [1]', "sweep.load: needs capacity"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario.parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        scenario.load(tmp_path / "none.toml")


def test_loads_become_rates_of_the_capacity() -> None:
    text = 'name = "x"\ncapacity = 50\n[sweep]\nseconds = 2\nload = [0.5, 2]'
    made = drive.groups(scenario.parse(text), 50.0)
    assert [(group.phases[0].name, group.phases[0].rate) for group in made] == [("0.5x", 25.0), ("2x", 100.0)]


def test_phases_of_an_open_loop_are_sent_in_one_go_and_closed_ones_alone() -> None:
    phase = "[[phases]]\nseconds = 1\n{}\n"
    kinds = ["rate = 1", "rate = 9", 'kind = "closed"\nconnections = 2', "rate = 3"]
    wanted = scenario.parse('name = "x"\n' + "".join(phase.format(kind) for kind in kinds))
    assert [len(group.phases) for group in drive.groups(wanted, None)] == [2, 1, 1]


def test_the_same_seed_gives_the_same_plan() -> None:
    def plan(seed: int) -> list[float]:
        wanted = scenario.parse(f"seed = {seed}\n" + PHASE + "rate = 50")
        mixed = drive.Mixed(None, None, [1.0], [4], {})  # type: ignore[arg-type]
        return drive.plan(wanted, drive.groups(wanted, None)[0], mixed, 0).times.tolist()  # type: ignore[no-any-return]

    assert plan(3) == plan(3) != plan(4)


def test_a_replay_is_found_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "times").write_text("5\n5.25\n9\n")
    (tmp_path / "s.toml").write_text(PHASE + 'kind = "replay"\nfile = "times"')
    wanted = scenario.load(tmp_path / "s.toml")
    mixed = drive.Mixed(None, None, [1.0], [4], {})  # type: ignore[arg-type]
    plan = drive.plan(wanted, drive.groups(wanted, None)[0], mixed, 0)
    assert plan.times[plan.times >= plan.warmup].tolist() == [5.0, 5.25]
