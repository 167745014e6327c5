"""timm models as a source: weights, input, labels, and what is folded into the first convolution."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

import huggingface_hub  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from models.sources import timm as source  # noqa: E402
from models.sources.artefact import SourceError  # noqa: E402
from models.sources.pixels import Normalise, fold  # noqa: E402
from models.sources.preparation import Preparation  # noqa: E402
from tests.models.lively import enliven  # noqa: E402

pytestmark = pytest.mark.torch

PLAIN = Preparation()


def image(side: int = 160, count: int = 2) -> Any:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)


# --- weights ----------------------------------------------------------------------------------------------------


def test_random_weights_are_always_the_same() -> None:
    one, other = (source.create("test_vit", "random", None, PLAIN).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_file_s_weights_are_taken_and_say_how_many_classes_there_are(tmp_path: Path) -> None:
    trained = enliven(timm.create_model("test_vit", num_classes=7))
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    model = source.create("test_vit", str(tmp_path / "w.safetensors"), None, PLAIN)
    x = torch.randn(1, 3, 160, 160)
    assert torch.allclose(model(x), trained(x), atol=1e-4)
    assert source.labels_of(model) == [f"class {number}" for number in range(7)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"norm.weight": None}, "without norm.weight"),
        ({"extra": (1,)}, "with, unknown here, extra"),
        ({"cls_token": (1, 1, 9)}, "with other shapes: cls_token (1, 1, 9) instead of (1, 1, 64)"),
        ({f"x{i}": (1,) for i in range(5)}, "x0, x1, x2 and 2 more"),
    ],
)
def test_a_file_of_other_weights_is_told_in_a_line(
    tmp_path: Path, change: dict[str, tuple[int, ...] | None], said: str
) -> None:
    state = timm.create_model("test_vit").state_dict()
    for name, shape in change.items():
        if shape is None:
            del state[name]
        else:
            state[name] = torch.zeros(shape)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SourceError, match="not the weights of this model") as caught:
        source.create("test_vit", str(tmp_path / "w.safetensors"), None, PLAIN)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("vit_smal_patch16_224", "random", "no such model; it has vit_small_patch16_224"),
        ("test_vit.nothing", "random", "no weights are called 'nothing'; there are r160_in1k"),
        ("test_vit", "w.pt", "expected random, pretrained, or a file that ends in .safetensors"),
        ("test_vit", "/absent.safetensors", "/absent.safetensors"),
        ("vit_small_patch16_dinov3", "pretrained", "have no classifier"),
    ],
)
def test_what_cannot_be_had_is_told_in_a_line(name: str, weights: str, said: str) -> None:
    with pytest.raises(SourceError) as caught:
        source.create(name, weights, None, PLAIN)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(SourceError, match=r"w\.safetensors: "):
        source.create("test_vit", str(tmp_path / "w.safetensors"), None, PLAIN)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A hub on this machine: path -> file."""
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def _send(self, body: bool) -> None:
            data = files.get(self.path)
            self.send_response(404 if data is None else 200)
            if data is not None:
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", '"1234"')
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if body and data:
                self.wfile.write(data)

        def do_HEAD(self) -> None:
            self._send(body=False)

        def do_GET(self) -> None:
            self._send(body=True)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield files
    server.shutdown()
    thread.join()
    server.server_close()


def test_pretrained_weights_come_from_the_hub_once(tmp_path: Path, hub: dict[str, bytes]) -> None:
    trained = enliven(timm.create_model("test_vit"))
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    hub["/timm/test_vit.r160_in1k/resolve/main/model.safetensors"] = (tmp_path / "w.safetensors").read_bytes()
    x = torch.randn(1, 3, 160, 160)
    model = source.create("test_vit", "pretrained", None, PLAIN)
    assert torch.allclose(model(x), trained(x), atol=1e-4)
    assert source.licence_of(model, "pretrained") == "apache-2.0"
    hub.clear()
    assert torch.allclose(source.create("test_vit", "pretrained", None, PLAIN)(x), trained(x), atol=1e-4)


def test_without_the_hub_one_line_says_so(hub: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in (huggingface_hub.constants.ENDPOINT, "http://127.0.0.1:9"):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        with pytest.raises(SourceError, match="cannot be fetched from the hub") as caught:
            source.create("test_vit", "pretrained", None, PLAIN)
        assert "\n" not in str(caught.value)


# --- input, labels, licence -------------------------------------------------------------------------------------


def test_the_input_is_what_timm_evaluated_with() -> None:
    model = timm.create_model("test_resnet")  # 160 pixels, crop_pct 0.95, bilinear
    transform, mean, std = source.input_of(model, PLAIN)
    assert (transform.fit, transform.height, transform.width) == ("crop", 160, 160)
    assert (transform.keep, transform.filter) == (160 / 168, "bilinear")
    assert (mean, std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    model.pretrained_cfg |= {"crop_mode": "squash", "crop_pct": 1.0, "interpolation": "bicubic"}
    transform, _, _ = source.input_of(model, PLAIN)
    assert (transform.fit, transform.keep, transform.filter) == ("stretch", 1.0, "bicubic")


def test_a_transform_file_goes_first() -> None:
    model = timm.create_model("test_resnet")
    given = Preparation(fit="letterbox", divisor=1.0, mean=(120, 110, 100), std=(51, 51, 51))
    transform, mean, std = source.input_of(model, given)
    assert (transform.fit, transform.keep) == ("letterbox", 1.0)
    assert mean == pytest.approx((120 / 255, 110 / 255, 100 / 255))
    assert std == pytest.approx((0.2, 0.2, 0.2))


def test_another_size_is_for_models_that_are_made_for_one() -> None:
    model = source.create("test_vit", "random", None, Preparation(height=96, width=64))
    transform, _, _ = source.input_of(model, Preparation(height=96, width=64))
    assert (transform.height, transform.width) == (96, 64)
    assert model(torch.zeros(1, 3, 96, 64)).shape == (1, 1000)
    with pytest.raises(SourceError, match="both height and width, of a model of fixed input size"):
        source.create("test_resnet", "random", None, Preparation(height=96, width=64))


def test_the_labels_are_imagenet_s_where_the_count_is() -> None:
    model = timm.create_model("test_vit")
    assert source.labels_of(model)[0] == "tench, Tinca tinca"
    assert len(source.labels_of(model)) == 1000
    assert len(source.labels_of(timm.create_model("test_vit", num_classes=11821))) == 11821


def test_the_licence_is_that_of_the_weights() -> None:
    model = timm.create_model("vit_small_patch16_dinov3", depth=1, embed_dim=48, num_heads=3)
    assert source.licence_of(model, "pretrained") == "dinov3-license"
    assert source.licence_of(model, "random") == "none (random weights)"
    assert source.licence_of(model, "some.safetensors") == "unknown"


# --- normalisation ----------------------------------------------------------------------------------------------

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


class TwoEyes(nn.Module):
    """Looks at the image in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Any) -> Any:
        return self.conv(x).mean(dim=(2, 3)) + x.mean(dim=(1, 2, 3))[:, None]


@pytest.mark.parametrize(
    ("name", "padding", "bias", "left"),
    [
        ("conv", 0, True, (False, False)),
        ("conv", 0, False, (False, False)),
        ("conv", 1, False, (True, False)),
        ("other", 0, True, (True, True)),
        (("conv", "other"), 0, True, (True, True)),
    ],
)
def test_the_first_convolution_does_what_it_can(
    name: object, padding: int, bias: bool, left: tuple[bool, bool]
) -> None:
    convolution = nn.Conv2d(3, 8, 3, 2, padding, bias=bias)
    model = nn.Sequential()
    model.add_module("conv", convolution)
    model.add_module("act", nn.ReLU())
    enliven(model)
    with torch.no_grad():
        expected = model(Normalise(MEAN, STD)(image()))
        before = fold(model, name, MEAN, STD, image())
        assert torch.allclose(model(before(image())), expected, atol=1e-4)
    assert (before.shift, before.scale) == left


def test_a_network_that_looks_twice_gets_nothing_folded() -> None:
    model = enliven(TwoEyes())
    with torch.no_grad():
        expected = model(Normalise(MEAN, STD)(image()))
        before = fold(model, "conv", MEAN, STD, image())
        assert before.shift and before.scale
        assert torch.equal(model(before(image())), expected)
