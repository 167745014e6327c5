"""A model that is damaged, incomplete or mixed up is refused before any parser sees it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from models import manifest
from models.levels import Trunk
from models.manifest import Level, Manifest, ManifestError, Tolerance, Transform
from tests.unit.crowd import first_together

FILES = {"model.onnx": b"graph" * 100, "reference.safetensors": b"answers" * 50}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "toy" / "1"
    directory.mkdir(parents=True)
    for name, data in FILES.items():
        (directory / name).write_bytes(data)
    described = Manifest(
        format=1,
        name="toy",
        version="1",
        task="classify",
        labels=["a", "b"],
        licence="Apache-2.0",
        transform=Transform(fit="crop", height=224, width=224),
        graph="model.onnx",
        reference="reference.safetensors",
        files={name: manifest.describe_file(directory / name) for name in FILES},
        levels=[Level(name="full", gmacs=1.0, tokens=197)],
        tolerance=Tolerance(agreement=0.99, score=0.05),
    )
    manifest.write(directory, described)
    return directory


def read_all(directory: Path) -> dict[str, bytes]:
    loaded = manifest.load(directory)
    for name in loaded.files:
        assert refusal(manifest.check_file, directory, loaded, name) == refusal(
            manifest.read_file, directory, loaded, name
        )
    return {name: manifest.read_file(directory, loaded, name) for name in loaded.files}


def refusal(check: Callable[[Path, Manifest, str], object], directory: Path, loaded: Manifest, name: str) -> str:
    try:
        check(directory, loaded, name)
    except ManifestError as error:
        return str(error)
    return ""


def test_a_whole_model_is_read(model: Path) -> None:
    assert read_all(model) == FILES


def test_every_flipped_bit_is_seen(model: Path) -> None:
    source = random.Random(1)
    paths = sorted(model.iterdir())
    for _ in range(1000):
        path = source.choice(paths)
        original = path.read_bytes()
        damaged = bytearray(original)
        damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
        path.write_bytes(damaged)
        try:
            changed = read_all(model) != FILES
        except ManifestError as error:
            assert path.name in str(error) and "\n" not in str(error)
        else:
            # White space between two keys of the manifest may become another white space and mean the same.
            assert path.name == manifest.MANIFEST and not changed
            assert damaged.split() == original.split()
        path.write_bytes(original)
    assert read_all(model) == FILES


def test_missing_extra_and_swapped_files_are_named(model: Path) -> None:
    (model / "extra.bin").write_bytes(b"x")
    with pytest.raises(ManifestError, match=r"extra\.bin: not listed"):
        read_all(model)
    (model / "extra.bin").unlink()
    (model / "model.onnx").write_bytes(FILES["reference.safetensors"])
    with pytest.raises(ManifestError, match=r"model\.onnx: does not match"):
        read_all(model)
    (model / "model.onnx").unlink()
    with pytest.raises(ManifestError, match=r"model\.onnx: missing"):
        read_all(model)


def test_links_are_not_followed(model: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(FILES["model.onnx"])
    (model / "model.onnx").unlink()
    (model / "model.onnx").symlink_to(elsewhere)
    with pytest.raises(ManifestError, match=r"model\.onnx"):
        read_all(model)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", ".hidden", "a/b"])
def test_file_names_stay_in_the_directory(model: Path, name: str) -> None:
    loaded = manifest.load(model)
    files = {**loaded.files, name: loaded.files["model.onnx"]}
    manifest.write(model, msgspec.structs.replace(loaded, files=files))
    with pytest.raises(ManifestError, match="not a plain file name"):
        manifest.load(model)


def test_a_level_that_its_graph_does_not_take_is_refused(model: Path) -> None:
    loaded = manifest.load(model)
    trunk = Trunk(blocks=2, width=64, hidden=256, patches=196, prefix=1, fixed=0, merge=True)
    for explicit, fault in (("tome:8", ""), ("width:1/2", "level 'fast'"), ("nonsense", "level 'fast'")):
        levels = [*loaded.levels, Level(name="fast", gmacs=0.5, tokens=181, explicit=explicit)]
        manifest.write(model, msgspec.structs.replace(loaded, levels=levels, trunk=trunk))
        if not fault:
            assert manifest.load(model).levels[1].explicit == explicit
            continue
        with pytest.raises(ManifestError, match=fault):
            manifest.load(model)


def test_the_newest_version_and_the_later_directory_win(model: Path, tmp_path: Path) -> None:
    root = tmp_path
    (root / "toy" / "10").mkdir()
    (root / "toy" / "9").mkdir()
    (root / "toy" / "draft").mkdir()
    assert manifest.find([root]) == {"toy": root / "toy" / "10"}
    other = tmp_path / "other"
    (other / "toy" / "2").mkdir(parents=True)
    assert manifest.find([root, other])["toy"] == other / "toy" / "2"
    with pytest.raises(ManifestError, match="no such model directory"):
        manifest.find([tmp_path / "nowhere"])


def test_threads_may_read_the_first_manifests_together(model: Path) -> None:
    setup = "from pathlib import Path; from models import manifest"
    assert first_together(setup, "manifest.load(Path(sys.argv[1]))", str(model)) == (0, "")
