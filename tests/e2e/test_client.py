"""squint.client and `squint ask` against a running service, unpatched on either side."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from squint.client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    ImageLike,
    Refused,
    Retries,
    Unreachable,
)
from tests.e2e import images
from tests.e2e.guarded import keys
from tests.e2e.service import ROOT, Service, free_port

SAMPLE = ROOT / "samples" / "classify.jpg"
TASKS = ("classify", "detect", "segment")
LABELS = 14


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    with Client(url(service)) as client:
        yield client


def pixels_of(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def url(service: Service) -> str:
    return f"http://127.0.0.1:{service.port}"


def test_every_task_is_answered_typed(client: Client) -> None:
    classes = client.classify(SAMPLE, top_k=3)
    assert len(classes.predictions) == 3 and classes.best == classes.predictions[0]
    assert (classes.model, classes.backend, classes.level) == ("toyscape-classify", "fake", "full")
    assert classes.timing_ms.total > 0
    found = client.detect(SAMPLE, threshold=0.0)
    height, width, _ = pixels_of(SAMPLE).shape
    assert found.predictions and all(0 <= found.predictions[0].box[corner] <= width for corner in (0, 2))
    mask = client.segment(SAMPLE)
    assert mask.size == (height, width) == mask.array().shape
    assert sum(segment.area for segment in mask.segments) == (mask.array() > 0).sum()


def test_all_ways_to_hold_an_image_give_one_answer(client: Client) -> None:
    pixels = np.empty((32, 32, 3), np.uint8)
    pixels[:] = images.number(42)
    file = images.png(images.number(42))
    ways: list[ImageLike] = [file, bytearray(file), io.BytesIO(file), pixels, Image.fromarray(pixels)]
    assert {client.classify(way).best.index for way in ways} == {images.expected_index(images.number(42), LABELS)}


def test_masks_are_the_same_in_every_form(client: Client) -> None:
    arrays = [client.segment(SAMPLE, mask=form).array() for form in ("rle", "png", "polygons")]
    assert all(np.array_equal(array, arrays[0]) for array in arrays[1:])


def test_a_batch_is_answered_in_order_with_errors_in_place(client: Client) -> None:
    colours = [images.number(value) for value in range(15)]
    files = [*(images.png(colour) for colour in colours), b"no image"]
    *answered, refused = client.classify_all(files)
    for colour, answer in zip(colours, answered, strict=True):
        assert not isinstance(answer, Refused)
        assert answer.best.index == images.expected_index(colour, LABELS)
    assert isinstance(refused, Refused) and refused.code == "unsupported_media_type" and refused.request_id
    with pytest.raises(Refused, match="at most 16 images"):
        client.classify_all(files * 2)
    assert len(client.detect_all(files[:2])) == len(client.segment_all(files[:2])) == 2


def test_models_levels_and_readiness(client: Client) -> None:
    listed = client.models()
    assert {model.task for model in listed} == set(TASKS)
    assert client.model("toyscape-classify") in listed
    assert len(client.model("toyscape-classify").labels) == LABELS
    assert client.levels("toyscape-classify")[0].name == "full"
    assert client.ready() is True
    with Client(f"http://127.0.0.1:{free_port()}", retries=Retries(attempts=1)) as nobody:
        assert nobody.ready() is False
        with pytest.raises(Unreachable):
            nobody.models()


def test_refusals_speak_the_services_words(client: Client) -> None:
    with pytest.raises(Refused) as caught:
        client.classify(SAMPLE, top_k=0, request_id="wrong-option")
    error = caught.value
    assert (error.status, error.code, error.request_id) == (400, "bad_option", "wrong-option")
    assert "from 1 to 1000" in error.message
    with pytest.raises(Refused, match="unknown_level"):
        client.classify(SAMPLE, level="none")


def test_the_service_knows_the_deadline(service: Service, client: Client) -> None:
    with pytest.raises(DeadlineExceeded):
        client.classify(images.png(images.sleep(150)), timeout=0.8, request_id="in-a-hurry")
    assert service.logged("in-a-hurry")["outcome"] in ("deadline_exceeded", "overloaded", "client_closed_request")


def test_a_cancelled_call_is_dropped_by_the_service(service: Service) -> None:
    async def leave() -> None:
        async with AsyncClient(url(service)) as asking:
            before = await service.handed_on()
            call = asyncio.ensure_future(asking.classify(images.png(images.sleep(120)), request_id="cancelled"))
            await service.until_handed_on(before)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert (await asking.classify(SAMPLE)).best

    asyncio.run(leave())
    assert service.logged("cancelled")["outcome"] == "client_closed_request"


def test_many_calls_at_once_get_their_own_answers(service: Service) -> None:
    async def ask() -> None:
        async with AsyncClient(url(service)) as asking:
            colours = [images.number(value) for value in range(100)]
            answers = await asyncio.gather(*(asking.classify(images.png(colour)) for colour in colours))
        for colour, answer in zip(colours, answers, strict=True):
            assert answer.best.index == images.expected_index(colour, LABELS)

    asyncio.run(ask())


def test_threads_may_share_a_client(client: Client) -> None:
    wrong: list[Any] = []

    def ask(start: int) -> None:
        for value in range(start, start + 20):
            colour = images.number(value)
            if client.classify(images.png(colour)).best.index != images.expected_index(colour, LABELS):
                wrong.append(value)

    threads = [threading.Thread(target=ask, args=(100 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_a_service_that_starts_meanwhile_is_waited_for(tmp_path: Path) -> None:
    running = Service(tmp_path)
    try:
        running.start()
        patient = Retries(attempts=10, first_wait=0.5, longest_wait=5.0)
        with Client(url(running), retries=patient, timeout=60.0) as early:
            assert early.classify(SAMPLE).best
    finally:
        running.stop()


def test_overload_is_waited_out(tmp_path: Path) -> None:
    """Requests beyond the limit come back after the time they are told, and all are answered."""
    with Service(tmp_path, "--in-flight", "2", "--fake-item-ms", "50") as running:

        async def ask() -> list[Any]:
            patient = Retries(attempts=10, reserve=1000, longest_wait=10.0)
            async with AsyncClient(url(running), retries=patient, timeout=30.0) as asking:
                return await asyncio.gather(*(asking.classify(SAMPLE) for _ in range(8)))

        assert all(answer.best for answer in asyncio.run(ask()))
        assert running.log_lines("request") and any(line["status"] == 429 for line in running.log_lines("request"))


def test_merged_patches_lie_where_the_model_looked(client: Client) -> None:
    wide = np.zeros((100, 300, 3), np.uint8)
    tokens = client.classify(wide, level="fast", explain="tokens").explain
    assert tokens is not None and tokens.tokens is not None
    assert tokens.tokens.box == (100.0, 0.0, 200.0, 100.0), "classification sees the middle"
    assert tokens.tokens.array().shape == tokens.tokens.grid
    whole = client.segment(wide, explain="all").explain
    assert whole is not None and whole.tokens is not None and whole.batch is not None
    assert whole.tokens.box == (0.0, 0.0, 300.0, 100.0) and whole.batch.items >= 1


@pytest.mark.parametrize("task", TASKS)
def test_answers_can_be_drawn(client: Client, task: str) -> None:
    original = pixels_of(SAMPLE)
    drawing = np.asarray(getattr(client, task)(SAMPLE, explain="tokens").draw(SAMPLE))
    assert drawing.shape == original.shape and (drawing != original).any()


# --- squint ask ------------------------------------------------------------------------------------------------


def squint(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "squint", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("task", TASKS)
def test_ask_prints_a_line_and_draws(service: Service, tmp_path: Path, task: str) -> None:
    place = tmp_path / "drawn.png"
    done = squint("ask", task, str(SAMPLE), "--url", url(service), "--save", str(place))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{SAMPLE}: ") and "level full" in done.stdout
    assert pixels_of(place).shape == pixels_of(SAMPLE).shape


def test_ask_takes_several_images_and_says_which_failed(service: Service, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    names = [str(SAMPLE), str(bad), str(tmp_path / "missing.jpg"), str(ROOT / "samples" / "detect.jpg")]
    done = squint("ask", "classify", *names, "--url", url(service), "--json", "--save", str(tmp_path / "drawn"))
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == names
    assert [line.get("code") for line in lines] == [None, "unsupported_media_type", "not_sent", None]
    assert lines[0]["predictions"][0]["label"] and lines[1]["request_id"]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["classify.png", "detect.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("classify", "x.jpg", "--url", "nowhere"), 1, "expected http://HOST:PORT"),
        (("classify", "samples/classify.jpg", "--url", "http://127.0.0.1:9"), 1, "is the service running?"),
        (("classify", "samples/classify.jpg", "samples/detect.jpg", "--save", "one.png"), 1, "need a folder"),
        (("classify", "a/x.jpg", "b/x.png", "--save", "folder"), 1, "the same name"),
        (("detect", "x.jpg", "--top-k", "3"), 2, "unrecognized arguments"),
        (("detect", "x.jpg", "--timeout", "0"), 2, "expected seconds"),
        (("detect", "x.jpg", "--api-key-file", "no/such"), 1, "No such file"),
    ],
)
def test_ask_fails_in_one_line(arguments: tuple[str, ...], code: int, words: str) -> None:
    done = squint("ask", *arguments)
    assert done.returncode == code and words in done.stderr and done.stderr.count("\n") == 1
    assert not (ROOT / "folder").exists()


def test_a_service_with_keys_is_asked_with_one(tmp_path: Path) -> None:
    key = keys(tmp_path / "keys", "add", "someone")
    (tmp_path / "key.txt").write_text(f"{key}\n")
    with Service(tmp_path, "--key-file", str(tmp_path / "keys")) as guarded:
        with Client(url(guarded)) as stranger, Client(url(guarded), api_key=key) as known:
            with pytest.raises(Refused, match="an API key is needed") as caught:
                stranger.classify(SAMPLE)
            assert (caught.value.status, caught.value.code) == (401, "unauthorized")
            assert stranger.ready() and known.classify(SAMPLE).best and known.models()
        where = ("--url", url(guarded), "--api-key-file", str(tmp_path / "key.txt"))
        for done in (
            squint("ask", "classify", str(SAMPLE), *where),
            squint("models", "evaluate", "toyscape-classify", "--scenes", "2", "--json", *where),
        ):
            assert done.returncode == 0, done.stderr
            assert key not in done.stdout + done.stderr
        refused = squint("ask", "classify", str(SAMPLE), "--url", url(guarded))
        assert refused.returncode == 1 and "unauthorized" in refused.stdout
        assert key not in guarded.log_text()


def test_evaluation_goes_through_the_client(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "always::ResourceWarning")
    done = squint(
        "models", "evaluate", "toyscape-detect", "--scenes", "4", "--url", url(service), "--json"
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), "and it closes what it opened"
    assert set(json.loads(done.stdout)) == {"map", "map50"}
