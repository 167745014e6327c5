"""Clients of Triton work unchanged: tritonclient over HTTP and gRPC, each in its plain and its asyncio form."""

from __future__ import annotations

import asyncio
import io
import json
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio
import tritonclient.http
from PIL import Image

from tests.e2e import images, versions
from tests.e2e.service import Service
from tests.e2e.triton import CALLS, KINDS, Client, decoded, refusal, solid
from tests.e2e.waiting import until

ROOT = Path(__file__).resolve().parents[2]
CLASSIFY, DETECT, SEGMENT = "toyscape-classify", "toyscape-detect", "toyscape-segment"
CLASSES = 14
EXTENSIONS = {"binary_tensor_data", "model_configuration", "model_repository", "statistics", "parameters"}
CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 413: "INVALID_ARGUMENT", 415: "INVALID_ARGUMENT"}
CODES |= {422: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 504: "DEADLINE_EXCEEDED"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("triton"), "--decoders", "1") as running:
        yield running


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("controlled"), "--decoders", "1", "--model-control", "explicit") as running:
        yield running


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, service: Service) -> Client:
    return Client(request.param, service)


def sample(name: str) -> bytes:
    return (ROOT / "samples" / f"{name}.jpg").read_bytes()


def said(client: Client, error: Any, status: int) -> str:
    """The error's text, once its status is as it should be."""
    expected = f"StatusCode.{CODES[status]}" if client.rpc else str(status)
    assert error.status() == expected, error
    return str(error.message())


def refused(service: Service, code: str) -> float:
    """How many requests were refused with this code so far."""
    text = service.request("GET", "/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith(f'squint_refused_total{{code="{code}"}}')]
    return float(lines[0].split()[-1]) if lines else 0.0


# --- questions -------------------------------------------------------------------------------------------------


def test_health(client: Client) -> None:
    assert client("is_server_live")
    assert client("is_server_ready")
    assert client("is_model_ready", CLASSIFY)
    assert client("is_model_ready", CLASSIFY, "1")


def test_a_model_that_is_not_there_is_not_ready(client: Client) -> None:
    if client.rpc:
        said(client, refusal(client, "is_model_ready", "nothing"), 404)
    else:
        assert not client("is_model_ready", "nothing")


def test_the_server_says_what_it_is(client: Client) -> None:
    told = client.ask("get_server_metadata")
    assert told["name"] == "squint"
    assert set(told["extensions"]) >= EXTENSIONS
    assert not {"sequence", "system_shared_memory", "trace"} & set(told["extensions"])


def test_a_model_says_what_it_takes_and_answers(client: Client) -> None:
    told = client.ask("get_model_metadata", CLASSIFY)
    assert told["name"] == CLASSIFY
    assert told["versions"] == ["1"]
    (taken,) = told["inputs"]
    assert (taken["name"], taken["datatype"], [*map(int, taken["shape"])]) == ("images", "BYTES", [-1])
    answered = {one["name"]: (one["datatype"], [*map(int, one["shape"])]) for one in told["outputs"]}
    assert answered["scores"] == ("FP32", [-1, -1])
    assert answered["labels"] == ("BYTES", [-1, -1])
    assert answered["json"] == ("BYTES", [-1])
    assert answered["raw_logits"] == ("FP32", [-1, CLASSES])
    assert answered["raw_embedding"] == ("FP32", [-1, 2])


def test_configuration_and_metadata_agree(client: Client) -> None:
    for model in (CLASSIFY, DETECT, SEGMENT):
        told, config = client.ask("get_model_metadata", model), client.ask("get_model_config", model, "1")
        config = config.get("config", config)
        assert config["name"] == model
        assert config["max_batch_size"] == 16
        for tensors, configured in (("inputs", "input"), ("outputs", "output")):
            shapes = {one["name"]: [*map(int, one["shape"])] for one in told[tensors]}
            dims = {one["name"]: [-1, *map(int, one.get("dims", []))] for one in config[configured]}
            assert shapes == dims
        assert "dynamic_batching" in config
        assert not config["model_transaction_policy"].get("decoupled", False)


def test_a_model_that_is_not_there(client: Client) -> None:
    for method in ("get_model_metadata", "get_model_config", "get_inference_statistics"):
        assert "no model of that name" in said(client, refusal(client, method, "nothing"), 404)
    assert "version" in said(client, refusal(client, "get_model_metadata", CLASSIFY, "7"), 404)


def test_the_repository_can_be_read_and_not_changed(client: Client) -> None:
    index = client.ask("get_model_repository_index")
    models = index["models"] if client.rpc else index
    assert {(one["name"], one["version"], one["state"]) for one in models} == {
        (name, "1", "READY") for name in (CLASSIFY, DETECT, SEGMENT)
    }
    for method in ("load_model", "unload_model"):
        assert "--model-control explicit" in said(client, refusal(client, method, CLASSIFY), 400)


@pytest.mark.parametrize("kind", KINDS)
def test_models_are_unloaded_and_loaded_where_that_is_permitted(controlled: Service, kind: str) -> None:
    client = Client(kind, controlled)
    client("unload_model", CLASSIFY)
    assert "no model of that name" in said(
        client, refusal(client.infer, CLASSIFY, client.files(images.png((9, 9, 9)))), 404
    )
    index = client.ask("get_model_repository_index")
    states = {one["name"]: one["state"] for one in (index["models"] if client.rpc else index)}
    assert states == {CLASSIFY: "UNAVAILABLE", DETECT: "READY", SEGMENT: "READY"}
    error = refusal(client, "load_model", CLASSIFY, config="{}")
    assert "no configuration" in said(client, error, 400)
    client("load_model", CLASSIFY)
    assert client("is_model_ready", CLASSIFY)
    assert client.infer(CLASSIFY, client.files(images.png((9, 9, 9)))).as_numpy("scores").shape == (1, 5)
    said(client, refusal(client, "load_model", "nothing"), 404)


def test_statistics_count_requests_images_and_batches(client: Client) -> None:
    def counts() -> dict[str, Any]:
        (told,) = client.ask("get_inference_statistics", DETECT, "1")["model_stats"]
        return dict(told)

    def count(told: dict[str, Any], *path: str) -> int:
        found: Any = told
        for part in path:
            found = found.get(part, 0 if part == path[-1] else {})
        return int(found)

    before = counts()
    began = time.time() * 1000
    for number in range(3):
        client.infer(DETECT, client.files(images.png(images.number(number)), images.png(images.number(number + 9))))
    refusal(client.infer, DETECT, client.files(b"no image"))
    after = counts()
    grown = {
        path: count(after, *path) - count(before, *path)
        for path in (
            ("inference_count",),
            ("execution_count",),
            *[("inference_stats", stage, unit) for stage in ("success", "fail", "queue") for unit in ("count", "ns")],
            *[("inference_stats", f"compute_{what}", unit) for what in ("input", "infer", "output")
              for unit in ("count", "ns")],
        )
    }  # fmt: skip
    assert grown["inference_count",] == 6
    assert 3 <= grown["execution_count",] <= 6
    assert grown["inference_stats", "success", "count"] == 3
    assert grown["inference_stats", "fail", "count"] == 1
    stages = ("queue", "compute_input", "compute_infer", "compute_output")
    assert [grown["inference_stats", stage, "count"] for stage in stages] == [3, 3, 3, 3]
    in_stages = sum(grown["inference_stats", stage, "ns"] for stage in stages)
    assert 0 < in_stages <= grown["inference_stats", "success", "ns"]
    assert began - 1000 < count(after, "last_inference") < time.time() * 1000 + 1000
    batches = {int(one["batch_size"]): int(one["compute_infer"]["count"]) for one in after["batch_stats"]}
    assert sum(batches.values()) == count(after, "execution_count")
    assert sum(size * times for size, times in batches.items()) >= count(after, "inference_count")
    everything = client.ask("get_inference_statistics")["model_stats"]
    assert {one["name"] for one in everything} == {CLASSIFY, DETECT, SEGMENT}


# --- inference -------------------------------------------------------------------------------------------------


def test_a_jpeg(client: Client) -> None:
    result = client.infer(CLASSIFY, client.files(sample("classify")))
    scores, labels = result.as_numpy("scores"), result.as_numpy("labels")
    assert scores.shape == labels.shape == result.as_numpy("indices").shape == (1, 5)
    assert scores.dtype == np.float32
    assert list(scores[0]) == sorted(scores[0], reverse=True)
    assert client.level(result) == "full"
    said_too = json.loads(result.as_numpy("json")[0])
    assert [one["label"] for one in said_too["predictions"]] == [label.decode() for label in labels[0]]
    assert said_too["predictions"][0]["score"] == pytest.approx(float(scores[0, 0]), abs=1e-6)


def test_several_images_in_one_request(client: Client) -> None:
    colours = [images.number(100 + number) for number in range(5)]
    result = client.infer(CLASSIFY, client.files(*map(images.png, colours)))
    assert list(result.as_numpy("indices")[:, 0]) == [images.expected_index(colour, CLASSES) for colour in colours]


def test_a_column_of_images_as_for_other_servers(client: Client) -> None:
    column = np.array([[images.png(images.number(3))], [images.png(images.number(4))]], dtype=np.object_)
    result = client.infer(CLASSIFY, client.input(column, "BYTES"))
    assert result.as_numpy("scores").shape == (2, 5)


def test_pixels_as_bytes(client: Client) -> None:
    colours = [images.number(200), images.number(201)]
    result = client.infer(CLASSIFY, client.input(np.stack([solid(colour) for colour in colours]), "UINT8"))
    assert list(result.as_numpy("indices")[:, 0]) == [images.expected_index(colour, CLASSES) for colour in colours]


def test_pixels_as_floats(client: Client) -> None:
    colour = images.number(300)
    pixels = solid(colour, 48)[None].astype(np.float32) / 255
    result = client.infer(CLASSIFY, client.input(pixels, "FP32"))
    assert result.as_numpy("indices")[0, 0] == images.expected_index(colour, CLASSES)


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), float("inf")])
def test_floats_beyond_0_to_1(client: Client, value: float) -> None:
    pixels = np.full((1, 16, 16, 3), 0.5, np.float32)
    pixels[0, 7, 7, 1] = value
    assert "from 0 to 1" in said(client, refusal(client.infer, CLASSIFY, client.input(pixels, "FP32")), 422)


def test_the_id_of_a_request_comes_back(client: Client) -> None:
    result = client.infer(CLASSIFY, client.files(images.png((9, 9, 9))), request_id="my-17")
    response = result.get_response()
    assert (response.id if client.rpc else response["id"]) == "my-17"
    assert (response.model_version if client.rpc else response["model_version"]) == "1"


def test_options_travel_as_parameters(client: Client) -> None:
    given = {"level": "fast", "top_k": 2, "explain": "tokens"}
    result = client.infer(CLASSIFY, client.files(images.png((9, 9, 9))), parameters=given)
    assert client.level(result) == "fast"
    assert result.as_numpy("scores").shape == (1, 2)
    described = json.loads(result.as_numpy("json")[0])
    assert described["level"] == "fast"
    assert described["explain"]["tokens"]["grid"] == [14, 14]


def test_auto_with_a_floor(client: Client) -> None:
    result = client.infer(
        CLASSIFY, client.files(images.png((9, 9, 9))), parameters={"level": "auto", "min_level": "balanced"}
    )
    assert client.level(result) in ("full", "balanced")


def test_options_that_are_not_known(client: Client) -> None:
    for given, word in (({"colour": 1}, "unknown option"), ({"top_k": 0}, "top_k"), ({"level": "x y"}, "level")):
        error = refusal(client.infer, CLASSIFY, client.files(images.png((9, 9, 9))), parameters=given)
        assert word in said(client, error, 400)


def test_priority_as_triton_counts_it(client: Client) -> None:
    for priority in (1, 2, 3, 9):
        client.infer(CLASSIFY, client.files(images.png((9, 9, 9))), priority=priority)


def test_only_the_outputs_that_were_asked_for(client: Client) -> None:
    wanted = [client.output("labels"), client.output("raw_logits")]
    result = client.infer(CLASSIFY, client.files(images.png((9, 9, 9))), outputs=wanted)
    assert result.as_numpy("scores") is None
    logits = result.as_numpy("raw_logits")
    assert logits.shape == (1, CLASSES)
    assert logits.argmax() == images.expected_index((9, 9, 9), CLASSES)


def test_an_output_that_is_not_there(client: Client) -> None:
    wanted = [client.output("probabilities")]
    error = refusal(client.infer, CLASSIFY, client.files(images.png((9, 9, 9))), outputs=wanted)
    assert "scores, indices, labels" in said(client, error, 400)


def test_highest_classes_as_texts(client: Client) -> None:
    wanted = [client.output("scores", classes=3), client.output("raw_logits", classes=7), client.output("labels")]
    result = client.infer(
        CLASSIFY, client.files(images.png((9, 9, 9)), images.png((8, 8, 8))), outputs=wanted, parameters={"top_k": 2}
    )
    best = result.as_numpy("scores")
    assert best.shape == (2, 3)
    value, index, label = best[0, 0].decode().split(":")
    assert int(index) == images.expected_index((9, 9, 9), CLASSES)
    assert label == result.as_numpy("labels")[0, 0].decode()
    assert 0 < float(value) <= 1
    assert result.as_numpy("labels").shape == (2, 2)
    assert result.as_numpy("raw_logits").shape == (2, 7)


def test_detection(client: Client) -> None:
    wide = images.png(images.number(77), 64, 32)
    result = client.infer(DETECT, client.files(wide, images.png(images.number(78))))
    boxes = result.as_numpy("boxes")
    assert list(result.as_numpy("count")) == [1, 1]
    assert boxes.shape == (2, 1, 4)
    assert result.as_numpy("scores").shape == result.as_numpy("indices").shape == (2, 1)
    described = json.loads(result.as_numpy("json")[0])["predictions"][0]
    assert described["box"] == pytest.approx(list(boxes[0, 0]), abs=1e-4)
    assert list(boxes[0, 0, 2:]) == pytest.approx([48.0, 24.0])
    assert result.as_numpy("raw_boxes").shape == (2, 8, 4)
    assert result.as_numpy("raw_scores")[0, 0] == pytest.approx(0.9)


def test_nothing_detected(client: Client) -> None:
    result = client.infer(DETECT, client.files(images.png((9, 9, 9))), parameters={"threshold": 0.99})
    assert list(result.as_numpy("count")) == [0]
    assert result.as_numpy("boxes").shape == (1, 0, 4)
    assert result.as_numpy("labels").shape == (1, 0)


def test_segmentation(client: Client) -> None:
    result = client.infer(SEGMENT, client.files(images.png(images.number(5), 40, 24), images.png((9, 9, 9))))
    assert [list(size) for size in result.as_numpy("size")] == [[24, 40], [32, 32]]
    first, second = (decoded(file) for file in result.as_numpy("mask"))
    assert first.shape == (24, 40)
    assert second.shape == (32, 32)
    index, area = result.as_numpy("indices")[0, 0], result.as_numpy("areas")[0, 0]
    assert (first == index).sum() == area > 0
    assert result.as_numpy("raw_mask").ndim == 3


def test_a_mask_as_run_lengths(client: Client) -> None:
    result = client.infer(
        SEGMENT, client.files(images.png((9, 9, 9))), outputs=[client.output("mask")], parameters={"mask": "rle"}
    )
    described = client.infer(
        SEGMENT, client.files(images.png((9, 9, 9))), outputs=[client.output("json")], parameters={"mask": "rle"}
    )
    counts = json.loads(described.as_numpy("json")[0])["mask"]["counts"]
    assert result.as_numpy("mask")[0].decode() == counts


# --- errors, deadlines, cancelling -----------------------------------------------------------------------------


def test_images_that_cannot_be_read(client: Client) -> None:
    good = images.png((9, 9, 9))
    assert "JPEG, PNG or WebP" in said(client, refusal(client.infer, CLASSIFY, client.files(b"text")), 415)
    text = said(client, refusal(client.infer, CLASSIFY, client.files(good, good[:-30])), 422)
    assert text.startswith("image 1: ")


def test_requests_that_are_no_such_request(client: Client) -> None:
    good = images.png((9, 9, 9))
    cases = [
        (client.files(*[good] * 17), "1 to 16 images"),
        (client.input(np.array([good], np.object_), "BYTES", name="image"), "one input, images"),
        (client.input(np.zeros((1, 8, 8, 4), np.uint8), "UINT8"), "[N, height, width, 3]"),
        (client.input(np.zeros((1, 8, 8, 3), np.int32), "INT32"), "BYTES, UINT8 or FP32"),
        (client.input(np.array([[good, good]], np.object_), "BYTES"), "shape [N]"),
    ]
    for tensor, words in cases:
        assert words in said(client, refusal(client.infer, CLASSIFY, tensor), 400)
    assert "no model" in said(client, refusal(client.infer, "nothing", client.files(good)), 404)
    error = refusal(client.infer, CLASSIFY, client.files(good), model_version="9")
    assert "no such version" in said(client, error, 404)


def test_a_deadline_in_the_request(client: Client) -> None:
    slow = client.files(images.png(images.sleep(60)))
    error = refusal(client.infer, CLASSIFY, slow, timeout=100_000)
    assert "deadline" in said(client, error, 504)


@pytest.mark.parametrize("kind", ["grpc", "grpc.aio"])
def test_the_deadline_of_a_call(service: Service, kind: str) -> None:
    client = Client(kind, service)
    before = refused(service, "deadline_exceeded") + refused(service, "client_closed_request")
    # Enough for a connection and for the request to arrive, and less than the answer takes.
    error = refusal(client.infer, CLASSIFY, client.files(images.png(images.sleep(150))), client_timeout=0.8)
    assert error.status() == "StatusCode.DEADLINE_EXCEEDED"
    until(lambda: refused(service, "deadline_exceeded") + refused(service, "client_closed_request") == before + 1)


def test_cancelling_over_grpc(service: Service) -> None:
    kind = Client("grpc", service)
    before = refused(service, "client_closed_request")
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with kind.make() as client:
        CALLS["infer"] += 1
        slow = kind.files(images.png(images.sleep(120)))
        handed_on = asyncio.run(service.handed_on())
        context = client.async_infer(CLASSIFY, [slow], lambda result, error: answers.put((result, error)))
        asyncio.run(service.until_handed_on(handed_on))
        context.cancel()
        result, error = answers.get(timeout=5)
    assert result is None
    assert "CANCELLED" in error.status()
    until(lambda: refused(service, "client_closed_request") == before + 1)


@pytest.mark.parametrize("kind", ["grpc.aio", "http.aio"])
def test_cancelling_a_task(service: Service, kind: str) -> None:
    client = Client(kind, service)
    before = refused(service, "client_closed_request")

    async def give_up() -> None:
        library = client.make()
        try:
            handed_on = await service.handed_on()
            asking = asyncio.ensure_future(library.infer(CLASSIFY, [client.files(images.png(images.sleep(120)))]))
            await service.until_handed_on(handed_on)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        finally:
            await library.close()

    CALLS["infer"] += 1
    asyncio.run(give_up())
    until(lambda: refused(service, "client_closed_request") == before + 1)


def test_an_http_client_that_gives_up(service: Service) -> None:
    kind = Client("http", service)
    before = refused(service, "client_closed_request")
    CALLS["infer"] += 1
    client = tritonclient.http.InferenceServerClient(kind.url, network_timeout=0.8)
    with pytest.raises(Exception, match="timed out"):
        client.infer(CLASSIFY, [kind.files(images.png(images.sleep(150)))])
    client.close()
    until(lambda: refused(service, "client_closed_request") == before + 1)


# --- what only one of the two has ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "http.aio"])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_pixels_and_results_as_binary_or_json(service: Service, kind: str, binary_in: bool, binary_out: bool) -> None:
    client = Client(kind, service)
    colour = images.number(400)
    tensor = client.input(solid(colour, 8)[None], "UINT8", binary_data=binary_in)
    wanted = [client.output(name, binary=binary_out) for name in ("indices", "scores", "labels", "raw_logits")]
    result = client.infer(CLASSIFY, tensor, outputs=wanted)
    assert result.as_numpy("indices")[0, 0] == images.expected_index(colour, CLASSES)
    assert result.as_numpy("raw_logits").argmax() == result.as_numpy("indices")[0, 0]
    assert ("data" in result.get_output("scores")) is not binary_out
    label = result.as_numpy("labels")[0, 0]
    assert label in json.loads((ROOT / "models/zoo" / CLASSIFY / "1/manifest.json").read_text())["labels"] or binary_out


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_compressed_both_ways(service: Service, client: Client, packing: str) -> None:
    """Over gRPC it is the client's part alone."""
    both = {"request_compression_algorithm": packing, "response_compression_algorithm": packing}
    how = {"compression_algorithm": packing} if client.rpc else both
    colours = [images.number(500 + number) for number in range(16)]
    result = client.infer(
        CLASSIFY,
        client.input(np.stack([solid(colour) for colour in colours]), "UINT8"),
        **how,
    )
    assert list(result.as_numpy("indices")[:, 0]) == [images.expected_index(colour, CLASSES) for colour in colours]


def test_many_at_a_time_over_http(service: Service) -> None:
    kind = Client("http", service)
    colours = [images.number(600 + number) for number in range(12)]
    with tritonclient.http.InferenceServerClient(kind.url, concurrency=4) as client:
        asked = [client.async_infer(CLASSIFY, [kind.files(images.png(colour))]) for colour in colours]
        CALLS["infer"] += len(asked)
        found = [int(one.get_result().as_numpy("indices")[0, 0]) for one in asked]
    assert found == [images.expected_index(colour, CLASSES) for colour in colours]


def test_a_stream_keeps_its_order_and_outlives_errors(service: Service) -> None:
    kind = Client("grpc", service)
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    colours = [images.number(700 + number) for number in range(30)]
    with kind.make() as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number, colour in enumerate(colours):
            file = b"no image" if number == 11 else images.png(colour)
            CALLS["infer"] += 1
            client.async_stream_infer(
                CLASSIFY, [kind.files(file)], request_id=str(number), enable_empty_final_response=True
            )
        found = [answers.get(timeout=20) for _ in colours]
        client.stop_stream()
    assert "JPEG, PNG or WebP" in str(found[11][1])
    for number, (result, error) in enumerate(found):
        if number != 11:
            assert error is None
            response = result.get_response()
            assert response.id == str(number)
            assert response.parameters["triton_final_response"].bool_param
            assert result.as_numpy("indices")[0, 0] == images.expected_index(colours[number], CLASSES)


def test_a_stream_in_asyncio(service: Service) -> None:
    kind = Client("grpc.aio", service)
    colours = [images.number(800 + number) for number in range(8)]

    async def stream() -> list[int]:
        async def requests() -> Any:
            for colour in colours:
                CALLS["infer"] += 1
                yield {"model_name": CLASSIFY, "inputs": [kind.files(images.png(colour))]}

        async with tritonclient.grpc.aio.InferenceServerClient(kind.url) as client:
            found = []
            async for result, error in client.stream_infer(requests()):
                assert error is None
                found.append(int(result.as_numpy("indices")[0, 0]))
            return found

    assert asyncio.run(stream()) == [images.expected_index(colour, CLASSES) for colour in colours]


def test_typed_contents_over_grpc(service: Service) -> None:
    """As KServe's own clients send them."""
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    colour = images.number(900)
    request = service_pb2.ModelInferRequest(model_name=CLASSIFY, id="typed")
    tensor = request.inputs.add(name="images", datatype="UINT8", shape=[1, 4, 4, 3])
    tensor.contents.uint_contents.extend(solid(colour, 4).ravel().tolist())
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        CALLS["infer"] += 1
        answer = stub.ModelInfer(request)
        names = [output.name for output in answer.outputs]
        indices = np.frombuffer(answer.raw_output_contents[names.index("indices")], "<i4")
        assert indices[0] == images.expected_index(colour, CLASSES)
        for name in ("timeout", "priority"):
            odd = service_pb2.ModelInferRequest()
            odd.CopyFrom(request)
            odd.parameters[name].double_param = float("nan")
            with pytest.raises(grpc.RpcError, match=name):
                stub.ModelInfer(odd)
        tensor.contents.uint_contents[0] = 256
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelInfer(request)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    trailing: dict[str, Any] = {one.key: one.value for one in raised.value.trailing_metadata()}
    assert trailing["x-squint-code"] == "bad_request"


def test_versions_of_a_model(tmp_path: Path) -> None:
    """A version can be named; a request that names none may get the canary; each has statistics of its own."""
    root = tmp_path / "models"
    root.mkdir()
    versions.put(root, "1")
    versions.put(root, "2")
    settings = tmp_path / "squint.toml"
    settings.write_text('[model.toy]\nversions = "1"\ncanary = "2:0.5"\n')
    with versions.Repository(tmp_path, root, "--decoders", "1", "--config", str(settings)) as running:
        for kind in ("http", "grpc"):
            client = Client(kind, running)

            def served(version: str = "", client: Client = client) -> str:
                told = client.infer("toy", client.files(images.png((9, 9, 9))), model_version=version).get_response()
                return str(told.model_version if client.rpc else told["model_version"])

            assert [served("1"), served("2")] == ["1", "2"]
            assert {served() for _ in range(8)} == {"1", "2"}
            assert client.ask("get_model_metadata", "toy")["versions"] == ["1", "2"]
        told = client.ask("get_inference_statistics", "toy")["model_stats"]
        counts = {one["version"]: int(one["inference_count"]) for one in told}
        assert sum(counts.values()) == 20
        assert min(counts.values()) >= 4


def test_shipped_models_answer_alike_by_every_protocol_and_form(tmp_path: Path) -> None:
    """A file and its pixels, over HTTP and gRPC, beside REST: the same classes, objects and areas."""
    with Service(tmp_path, "--backend", "onnxruntime", "--threads", "1", fake=False) as real:
        clients = [Client("http", real), Client("grpc", real)]
        for model, task in ((CLASSIFY, "classify"), (DETECT, "detect"), (SEGMENT, "segment")):
            pixels = np.asarray(Image.open(io.BytesIO(sample(task))).convert("RGB"))
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            told = real.request("POST", f"/{task}", buffer.getvalue()).json()
            for client in clients:
                forms = [
                    client.files(buffer.getvalue()),
                    client.input(pixels[None], "UINT8"),
                    client.input(pixels[None].astype(np.float32) / 255, "FP32"),
                ]
                for form in forms:
                    result = client.infer(model, form)
                    found = told["segments"] if task == "segment" else told["predictions"]
                    assert found
                    assert list(result.as_numpy("indices")[0]) == [one["index"] for one in found]
                    assert [label.decode() for label in result.as_numpy("labels")[0]] == [one["label"] for one in found]
                    if task != "segment":
                        scores = [one["score"] for one in found]
                        assert list(result.as_numpy("scores")[0]) == pytest.approx(scores, abs=1e-5)
                    if task == "classify":
                        logits = result.as_numpy("raw_logits")[0].astype(np.float64)
                        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
                        assert shares.max() == pytest.approx(found[0]["score"], abs=1e-5)
                    if task == "detect":
                        assert np.allclose(result.as_numpy("boxes")[0], [one["box"] for one in found], atol=1e-2)
                        assert result.as_numpy("raw_boxes").shape[2] == 4
                    if task == "segment":
                        assert list(result.as_numpy("areas")[0]) == [one["area"] for one in found]
                        assert (decoded(result.as_numpy("mask")[0]) == found[0]["index"]).sum() == found[0]["area"]


def test_the_suite_is_as_large_as_was_promised(request: pytest.FixtureRequest) -> None:
    """Runs last."""
    mine = [item for item in request.session.items if item.path == request.path]
    if len(mine) < 100:
        pytest.skip("only a part of the tests runs")
    assert CALLS["infer"] >= 40
    assert sum(CALLS.values()) >= 60
