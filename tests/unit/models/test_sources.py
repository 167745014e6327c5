"""What all sources share: labels, pictures, and a directory that is written whole or not at all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models import manifest
from models.manifest import Transform
from models.sources.artefact import Source, SourceError, check_name, fill, staged
from models.sources.labels import check_count, read_labels
from models.sources.pictures import fitted, reference_images
from models.sources.preparation import Detect, Outputs, Preparation, read_preparation
from service.config import Limits
from service.decoder.image import decode
from service.wire.messages.decoder import Fitting
from tests.unit.decoder.scenes import photo, save
from tests.walls import ROOT

SOURCE = Source(
    task="classify",
    labels=["a", "b"],
    licence="mit",
    transform=Transform(fit="crop", height=4, width=4),
    graph=b"graph",
    gmacs=1.5,
    tokens=0,
)
ANSWERS: dict[str, NDArray[Any]] = {
    "images": np.zeros((1, 4, 4, 3), np.uint8),
    "logits": np.array([[1.0, 2.0]], np.float32),
}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat\ndog\n", ["cat", "dog"]),
        ("\ufeffcat\r\ndog\r\n\r\n", ["cat", "dog"]),
        ('["cat", "dog"]', ["cat", "dog"]),
        ('{"1": "dog", "0": "cat"}', ["cat", "dog"]),
    ],
)
def test_labels_come_as_lines_or_as_json(tmp_path: Path, text: str, names: list[str]) -> None:
    path = tmp_path / "labels"
    path.write_text(text)
    assert read_labels(path) == names


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no names"),
        (b"cat\n\ndog\n", "name number 2 is empty"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[1, 2]", "Expected `str`"),
        (b'{"0": "cat", "2": "dog"}', "the indices are not 0 to 1"),
        (b"x" * (1 << 22) + b"y", "at most"),
    ],
)
def test_labels_that_are_none_are_told_in_a_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(data)
    with pytest.raises(SourceError, match="labels: ") as caught:
        read_labels(path)
    assert said in str(caught.value)
    with pytest.raises(SourceError, match="absent: No such file"):
        read_labels(tmp_path / "absent")


def test_there_is_a_label_for_each_class() -> None:
    assert check_count(["a", "b"], 2) == ["a", "b"]
    with pytest.raises(SourceError, match="holds 2 names, the model has 3 classes"):
        check_count(["a", "b"], 3)


def test_a_transform_file_says_what_differs(tmp_path: Path) -> None:
    own = Transform(fit="crop", height=224, width=224, keep=0.875)
    assert Preparation().applied(own) == own
    for name, text in (("t.toml", 'fit = "stretch"\nheight = 96'), ("t.json", '{"fit": "stretch", "height": 96}')):
        (tmp_path / name).write_text(text)
        applied = read_preparation(tmp_path / name).applied(own)
        assert applied == Transform(fit="stretch", height=96, width=224, keep=0.875)
    assert Preparation(fit="letterbox").applied(own).keep == 1.0


def test_the_document_has_every_key_and_its_examples_can_be_read(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "models.md").read_text()
    for table in (Preparation, Outputs, Detect):
        for key in set(table.__struct_fields__) - {"outputs", "detect"}:
            assert f"`{key}`" in document, key
    examples = re.findall(r"```toml\n(.*?)```", document, re.DOTALL)
    assert len(examples) == 3
    for text in examples:
        (tmp_path / "t.toml").write_text(text)
        assert read_preparation(tmp_path / "t.toml") != Preparation()


@pytest.mark.parametrize("size", [(300, 200), (120, 310)])
@pytest.mark.parametrize(
    "transform",
    [
        Transform(fit="crop", height=96, width=128, keep=0.9),
        Transform(fit="stretch", height=90, width=64, keep=0.8, filter="bilinear"),
        Transform(fit="letterbox", height=96, width=128, fill=(9, 8, 7)),
    ],
    ids=lambda transform: transform.fit,
)
def test_pictures_are_fitted_as_the_service_does_it(size: tuple[int, int], transform: Transform) -> None:
    scene = photo(*size)
    served = np.zeros((transform.height, transform.width, 3), np.uint8)
    fitting = Fitting(
        fit=transform.fit,
        height=transform.height,
        width=transform.width,
        fill=transform.fill,
        keep=transform.keep,
        filter=transform.filter,
    )
    decode(save(scene, "PNG"), memoryview(served.data).cast("B"), fitting, Limits())
    assert np.abs(fitted(Image.fromarray(scene), transform).astype(int) - served).max() <= 1


def test_reference_images_are_of_the_input_s_size_and_differ() -> None:
    images = reference_images(Transform(fit="crop", height=32, width=48))
    assert images.shape == (8, 32, 48, 3)
    assert len({image.tobytes() for image in images}) == 8


@pytest.mark.parametrize("name", ["", "A", "-a", "a b", "a/b", "..", "a" * 65])
def test_names_that_a_model_cannot_have(name: str) -> None:
    with pytest.raises(SourceError, match="--name"):
        check_name(name)
    assert check_name("vit_tiny.a1-b") == "vit_tiny.a1-b"


def test_a_model_takes_the_place_of_an_older_one_only_when_it_is_whole(tmp_path: Path) -> None:
    with staged(tmp_path / "new", "toy") as directory:
        fill(directory, SOURCE, "toy", ANSWERS)
    final = tmp_path / "new" / "toy" / "1"
    described = manifest.load(final)
    assert (described.name, described.licence, described.levels[0].gmacs) == ("toy", "mit", 1.5)
    assert manifest.read_file(final, described, described.graph) == b"graph"
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "new", "toy") as directory:
        (directory / "half").touch()
        raise KeyboardInterrupt
    assert manifest.load(final) == described
    assert [path.name for path in final.parent.iterdir()] == ["1"]
    with staged(tmp_path / "new", "toy") as directory:
        fill(directory, SOURCE, "toy", {**ANSWERS, "logits": np.zeros((1, 2), np.float32)})
    assert manifest.load(final).digest != described.digest
    assert [path.name for path in final.parent.iterdir()] == ["1"]


def test_what_was_never_whole_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), staged(tmp_path / "new", "toy"):
        raise RuntimeError
    assert not (tmp_path / "new").exists()
