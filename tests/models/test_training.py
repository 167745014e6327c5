"""Training learns, can be broken off and taken up again, and its views carry true labels."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from models.backbones.vit import VitConfig  # noqa: E402
from models.checkpoint import deepened  # noqa: E402
from models.levels import trace  # noqa: E402
from models.network import Network  # noqa: E402
from models.toyscape.store import Store, render_store  # noqa: E402
from models.trainer import Recipe, Trainer, draw_level, rate  # noqa: E402
from models.validate import mean_iou  # noqa: E402
from models.views import Views, label_views, sample  # noqa: E402

pytestmark = pytest.mark.torch

ROOT = Path(__file__).resolve().parents[2]
SMALL = VitConfig(side=64, width=48, depth=2, heads=3, stem=(8, 16, 32))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return render_store(tmp_path_factory.mktemp("store"), "train", 8, processes=1)


def trainer() -> Trainer:
    torch.manual_seed(0)
    return Trainer(Network(SMALL, 14), None, Recipe(minutes=1000.0, warmup=0.0, small_side=64))


def views(store: Store, step: int, count: int = 8) -> Views:
    return sample(store, np.ones(len(store)), np.random.default_rng(step), count, 64)


def test_every_loss_falls_on_a_batch_seen_again_and_again(store: Store) -> None:
    training, batch = trainer(), views(store, 0)
    first = training.update(batch)
    for _ in range(30):
        last = training.update(batch)
    assert set(first) == {"classify", "segment", "heat", "box"}
    for name, value in first.items():
        assert last[name] < 0.75 * value, name


def test_a_resumed_run_goes_on_exactly_where_it_stopped(store: Store, tmp_path: Path) -> None:
    unbroken = trainer()
    for step in range(3):
        unbroken.update(views(store, step))
    unbroken.save(tmp_path)
    resumed = Trainer(Network(SMALL, 14), None, unbroken.recipe)
    resumed.resume(tmp_path)
    assert (resumed.step, resumed.images) == (3, 24)
    for step in range(3, 5):
        ours, theirs = unbroken.update(views(store, step)), resumed.update(views(store, step))
        assert ours == pytest.approx(theirs, rel=1e-5)
    for name, value in unbroken.network.state_dict().items():
        assert torch.allclose(value.float(), resumed.network.state_dict()[name].float(), atol=1e-6), name
    for name, value in unbroken.average.items():
        assert torch.allclose(value.float(), resumed.average[name].float(), atol=1e-6), name


RUN = """
import sys
from pathlib import Path
from models.train import train
from models.trainer import Recipe

if __name__ == "__main__":
    recipe = Recipe(minutes=1000.0, scenes=4, validation_scenes=2, batch=4)
    train("toyscape", recipe, Path(sys.argv[1]), processes=2)
"""


def test_an_interrupt_saves_the_step_it_comes_in_and_ends_every_process(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(RUN)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as run:
        assert run.stderr is not None and run.stdout is not None
        while "images=" not in run.stderr.read(1) + run.stderr.readline():
            pass
        os.killpg(run.pid, signal.SIGINT)
        said = run.stdout.read()
        assert run.wait(60) == 0
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(run.pid, 0)
            time.sleep(0.1)
    resumed = Trainer(Network(VitConfig(), 14), None, Recipe(minutes=1000.0, scenes=4, validation_scenes=2, batch=4))
    resumed.resume(tmp_path / "runs" / "toyscape")
    assert said == f"stopped at step {resumed.step}; the same command goes on from there\n"


def test_the_average_follows_the_weights_slowly(store: Store) -> None:
    training = trainer()
    name = "trunk.blocks.0.fc1.weight"
    start = training.average[name].clone()
    for step in range(5):
        training.update(views(store, step))
    now = training.network.state_dict()[name]
    assert 0 < float((training.average[name] - start).norm()) < float((now - start).norm())


def test_rates_rise_stay_and_fall_to_nothing() -> None:
    recipe = Recipe(warmup=0.1, decay_from=0.6)
    assert rate(recipe, 0.05) == pytest.approx(0.5)
    assert rate(recipe, 0.3) == 1.0
    assert rate(recipe, 0.8) == pytest.approx(0.5)
    assert rate(recipe, 1.0) == 0.0


def test_labels_of_a_view_by_hand() -> None:
    instances = torch.zeros(1, 8, 8, dtype=torch.uint8)
    instances[0, 2:6, 0:4] = 1  # 16 pixels
    instances[0, 6:8, 6:8] = 2  # 4 pixels
    table = torch.tensor([[0, 5, 9, 0]])
    classes, boxes, labels, main = label_views(instances, table)
    assert labels.tolist() == [[4, 8, -1]]
    assert boxes[0, 0].tolist() == [0.0, 0.25, 0.5, 0.75]
    assert boxes[0, 1].tolist() == [0.75, 0.75, 1.0, 1.0]
    assert main.tolist() == [4]
    assert classes[0, 2].tolist() == [5, 5, 5, 5, 0, 0, 0, 0]
    assert classes[0, 6].tolist() == [0, 0, 0, 0, 0, 0, 9, 9]
    instances[0, 6:8, 0:8] = 2  # 16 pixels: no object is the main one now
    assert label_views(instances, table)[3].tolist() == [-1]


def test_views_are_those_of_their_seed(store: Store) -> None:
    first, again, other = views(store, 4), views(store, 4), views(store, 5)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.classes, again.classes)
    assert not torch.equal(first.images, other.images)
    assert first.images.shape == (8, 3, 64, 64)
    assert first.classes.shape == (8, 64, 64)


def test_mean_iou_by_hand() -> None:
    assert mean_iou(np.array([[3, 1], [0, 4]])) == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_a_deepened_network_answers_as_the_shallow_one() -> None:
    torch.manual_seed(0)
    shallow, deep = Network(SMALL, 14).eval(), Network(replace(SMALL, depth=5), 14).eval()
    deep.load_state_dict(deepened(shallow.state_dict(), 2, 5))
    images = torch.randn(2, 3, 64, 64)
    for task in ("classify", "segment"):
        assert torch.allclose(deep(images, task)[0], shallow(images, task)[0], atol=1e-6)
    with pytest.raises(ValueError, match="5 blocks"):
        deepened(deep.state_dict(), 5, 2)


def test_every_process_draws_the_same_levels_and_some_steps_stay_plain() -> None:
    recipe = Recipe(merged=0.5, narrow=0.4)
    config = VitConfig()
    drawn = [draw_level(recipe, config, 224, step) for step in range(400)]
    assert drawn == [draw_level(recipe, config, 224, step) for step in range(400)]
    schedules = [level["merge_counts"] for level in drawn if "merge_counts" in level]
    assert 150 < len(schedules) < 250
    assert 100 < sum("hidden" in level for level in drawn) < 220
    assert sum(level == {} for level in drawn) > 60
    left = [trace(197, counts)[-1] for counts in schedules]
    assert min(left) < 40
    assert max(left) > 150


def test_training_learns_with_tokens_merged_and_mlps_halved(store: Store) -> None:
    torch.manual_seed(0)
    recipe = Recipe(minutes=1000.0, warmup=0.0, small_side=64, merged=1.0, narrow=0.5)
    training, batch = Trainer(Network(SMALL, 14), None, recipe), views(store, 0)
    first = training.update(batch)
    for _ in range(30):
        last = training.update(batch)
    for name, value in first.items():
        assert last[name] < 0.8 * value, name
