"""Models come and go while others use them."""

from __future__ import annotations

import threading
from pathlib import Path

from models import manifest
from service.backends.fake import Fake
from service.tasks.registry import TASKS
from service.wire.messages.worker import Timing
from service.worker.load import Model
from service.worker.shelf import Shelf
from tests.contract import models


def model(root: Path, key: str = "toy@1:aa") -> Model:
    described = manifest.load(models.fake(root))
    return Model(described, Fake(described), TASKS["classify"], {"full": Timing("full", 0.0, 0.1)}, 0.0, key=key)


def test_a_model_is_not_given_up_while_someone_uses_it(tmp_path: Path) -> None:
    one = model(tmp_path)
    shelf = Shelf()
    shelf.put(one)
    using, go_on, gone = threading.Event(), threading.Event(), threading.Event()
    order: list[str] = []

    def use() -> None:
        with shelf.use(one.key) as found:
            assert found is one
            using.set()
            go_on.wait(10)
            order.append("used")

    def take_off() -> None:
        assert shelf.take_off(one.key) is one
        order.append("taken off")
        gone.set()

    threads = [threading.Thread(target=use), threading.Thread(target=take_off)]
    threads[0].start()
    assert using.wait(10)
    threads[1].start()
    while shelf.get(one.key) is not None:
        pass
    with shelf.use(one.key) as found:
        assert found is None, "nobody gets it any more"
    assert not gone.is_set()
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert order == ["used", "taken off"]


def test_what_is_not_there_is_taken_off_at_once() -> None:
    assert Shelf().take_off("nothing") is None
