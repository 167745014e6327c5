from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.backends import cache


def test_what_is_written_is_read_back_and_replaced(tmp_path: Path) -> None:
    directory = str(tmp_path / "deep" / "cache")
    assert cache.read(directory, "a") is None
    assert cache.write(directory, "a", b"one")
    assert cache.read(directory, "a") == b"one"
    assert cache.write(directory, "a", b"")
    assert cache.read(directory, "a") == b""
    assert cache.mapped(directory, "b") is None
    assert os.listdir(directory) == ["a"], "no temporary file stays"
    assert (Path(directory) / "a").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"", lambda data: b"x" + data[1:]]
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, damage: object) -> None:
    cache.write(str(tmp_path), "a", b"contents")
    file = tmp_path / "a"
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    assert cache.read(str(tmp_path), "a") is None
    assert cache.mapped(str(tmp_path), "a") is None


def test_a_mapped_file_is_all_there_after_its_pages_were_dropped_and_it_was_replaced(tmp_path: Path) -> None:
    contents = os.urandom(300_000)
    cache.write(str(tmp_path), "a", contents)
    found = cache.mapped(str(tmp_path), "a")
    assert found is not None and found.contents == contents and found.contents.readonly
    cache.write(str(tmp_path), "a", b"other")
    found.forget()
    assert found.contents == contents


def test_without_a_directory_or_in_one_that_cannot_be_written_nothing_is_kept(tmp_path: Path) -> None:
    assert not cache.write("", "a", b"x") and cache.read("", "a") is None and cache.mapped("", "a") is None
    (tmp_path / "file").write_bytes(b"")
    assert not cache.write(str(tmp_path / "file"), "a", b"x")
    (tmp_path / "b").mkdir()
    assert not cache.write(str(tmp_path), "b", b"x")
    assert sorted(os.listdir(tmp_path)) == ["b", "file"]


def test_a_key_tells_its_parts_apart() -> None:
    assert cache.key("ab", "c") != cache.key("a", "bc")
    assert cache.key("a", b"b") == cache.key(b"a", "b")


def test_this_cpu_has_a_name() -> None:
    model, flags = cache.cpu()
    assert model.strip() and flags
