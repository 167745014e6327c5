from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.backends import store
from service.backends.store import SEAL, Store, StoreError, name_of
from tests.unit.crowd import first_together

ROOT = Path(__file__).resolve().parents[3]
KEY = {"model": "0123", "level": "full", "bucket": "4"}
OTHER = {**KEY, "bucket": "8"}


class Builder:
    """Fills a directory with two files, and counts how often."""

    def __init__(self, contents: bytes = b"code") -> None:
        self.contents = contents
        self.calls = 0

    def __call__(self, path: Path) -> None:
        self.calls += 1
        assert not list(path.iterdir())
        (path / "model.pt2").write_bytes(self.contents * 1000)
        (path / "notes").write_bytes(b"")


def is_whole(path: Path, contents: bytes = b"code") -> bool:
    return (path / "model.pt2").read_bytes() == contents * 1000


def test_it_is_made_once_and_then_found(tmp_path: Path) -> None:
    build, root = Builder(), tmp_path / "deep" / "artefacts"
    assert Store(root).find(KEY) is None and Store(root).problem(KEY) == "it is not there" and not root.exists()
    path = Store(root).get(KEY, build)
    assert is_whole(path) and Store(root).get(dict(reversed(KEY.items())), build) == path == Store(root).find(KEY)
    assert build.calls == 1
    assert Store(root).keys() == [KEY]
    assert root.stat().st_mode & 0o777 == path.stat().st_mode & 0o777 == 0o700
    assert {(path / name).stat().st_mode & 0o777 for name in os.listdir(path)} == {0o600}


@pytest.mark.parametrize(
    "key",
    [OTHER, {**KEY, "torch": "2.13"}, {"model": "0123"}, {"model": "0123", "level": "fullbucket", "": "4"}],
    ids=str,
)
def test_a_change_of_any_part_of_the_key_is_another_artefact(tmp_path: Path, key: dict[str, str]) -> None:
    build = Builder()
    one, two = Store(tmp_path / "a").get(KEY, build), Store(tmp_path / "a").get(key, build)
    assert one != two and build.calls == 2 and Store(tmp_path / "a").find(KEY) == one


def test_every_flipped_bit_is_seen_and_the_artefact_made_anew(tmp_path: Path) -> None:
    build, said = Builder(), list[str]()
    kept = Store(tmp_path / "a", report=said.append)
    path = kept.get(KEY, build)
    places = [(path / "model.pt2", place) for place in (0, 1999, 3999)]
    places += [(path / SEAL, place) for place in range(0, (path / SEAL).stat().st_size, 5)]
    for number, (file, place) in enumerate(places, 1):
        data = bytearray(file.read_bytes())
        data[place] ^= 1 << number % 8
        file.write_bytes(data)
        assert kept.find(KEY) is None, (file.name, place)
        assert is_whole(kept.get(KEY, build))
        assert build.calls == 1 + number
    assert len(said) == 2 * len(places) and all(line.startswith(f"artefact {path.name} is refused: ") for line in said)


def add(path: Path) -> None:
    (path / "more.so").write_bytes(b"x")


def cut(path: Path) -> None:
    os.truncate(path / "model.pt2", 3000)


def drop(path: Path) -> None:
    (path / "notes").unlink()


def unseal(path: Path) -> None:
    (path / SEAL).unlink()


def link(path: Path) -> None:
    (path / "model.pt2").rename(path.parent / ".elsewhere")
    (path / "model.pt2").symlink_to(path.parent / ".elsewhere")


def second_name(path: Path) -> None:
    os.link(path / "model.pt2", path.parent / ".elsewhere")


def open_to_all(path: Path) -> None:
    (path / "model.pt2").chmod(0o666)


def open_directory(path: Path) -> None:
    path.chmod(0o777)


def linked_directory(path: Path) -> None:
    path.rename(path.parent / ".elsewhere")
    path.symlink_to(path.parent / ".elsewhere")


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"x")


def given_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(path / "model.pt2", 12345, -1)


DAMAGES = [add, cut, drop, unseal, link, second_name, open_to_all, open_directory, linked_directory, a_file, given_away]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_not_as_it_was_made_is_refused_and_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    build, said = Builder(), list[str]()
    kept = Store(tmp_path / "a", report=said.append)
    path = kept.get(KEY, build)
    damage(path)
    assert kept.find(KEY) is None and kept.problem(KEY)
    assert len(said) == 1 and str(tmp_path) not in said[0]
    assert is_whole(kept.get(KEY, build)) and build.calls == 2 and kept.find(KEY) == path


def test_an_artefact_of_another_key_in_its_place_is_refused(tmp_path: Path) -> None:
    kept, build = Store(tmp_path / "a"), Builder()
    kept.get(KEY, Builder(b"evil"))
    other = kept.get(OTHER, build)
    shutil.rmtree(other)
    shutil.copytree(tmp_path / "a" / name_of(KEY), other)
    assert kept.problem(OTHER) == "it was made for something else"
    assert is_whole(kept.get(OTHER, build)) and build.calls == 2


def test_a_root_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    root = tmp_path / "a"
    Store(root).get(KEY, Builder())
    root.chmod(0o777)
    assert Store(root).find(KEY) is None
    with pytest.raises(StoreError, match="others than this user may write it"):
        Store(root).get(KEY, Builder())
    (tmp_path / "b").symlink_to(root)
    with pytest.raises(StoreError, match="a link"):
        Store(tmp_path / "b").get(KEY, Builder())


def test_what_fails_while_it_is_made_leaves_nothing(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        (path / "half").write_bytes(b"x")
        raise ValueError("no compiler")

    kept = Store(tmp_path / "a")
    with pytest.raises(ValueError, match="no compiler"):
        kept.get(KEY, fails)
    for wrong in (lambda path: None, lambda path: (path / "deep").mkdir(), lambda path: (path / SEAL).touch()):
        with pytest.raises(StoreError, match="an artefact has"):
            kept.get(KEY, wrong)
    assert os.listdir(tmp_path / "a") == [f"{name_of(KEY)}.lock"]
    assert is_whole(kept.get(KEY, Builder()))


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"artefacts cannot be kept"):
        Store(tmp_path / "file" / "a").get(KEY, Builder())


PROGRAM = """
import pathlib, sys, time
from service.backends.store import Store

def build(path):
    (path / "half").write_bytes(b"x")
    print("building", flush=True)
    sys.stdin.readline()
    (path / "model.pt2").write_bytes(b"code" * 1000)
    (path / "half").unlink()

key = {"model": "0123", "level": "full", "bucket": "4"}
print("done", Store(pathlib.Path(sys.argv[1])).get(key, build), flush=True)
"""


class Process:
    """Another process that gets the artefact; it builds when it is told to go on."""

    def __init__(self, root: Path) -> None:
        arguments = [sys.executable, "-c", PROGRAM, str(root)]
        self.process = subprocess.Popen(
            arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split(" ")[0].strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def test_of_two_processes_one_makes_it_and_the_other_waits(tmp_path: Path) -> None:
    root = tmp_path / "a"
    one = Process(root)
    assert one.says() == "building"
    two = Process(root)
    kept = Store(root, patience=0.3)
    assert kept.find(KEY) is None, "what is half written is not seen"
    with pytest.raises(StoreError, match="another process has been making this artefact"):
        kept.get(KEY, Builder())
    one.go_on()
    assert one.says() == "done" and two.says() == "done"
    assert is_whole(root / name_of(KEY))
    one.end()
    two.end()


def test_who_dies_while_making_it_is_followed_by_who_waits(tmp_path: Path) -> None:
    root = tmp_path / "a"
    one = Process(root)
    assert one.says() == "building"
    two = Process(root)
    one.process.send_signal(signal.SIGKILL)
    one.process.wait(10)
    assert two.says() == "building" and Store(root).find(KEY) is None
    two.go_on()
    assert two.says() == "done" and Store(root).find(KEY) is not None
    assert not [name for name in os.listdir(root) if name.startswith(".")], "nothing half written stays"
    one.end()
    two.end()


def test_what_was_not_used_for_the_longest_time_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Store(tmp_path / "a", limit=9000)
    keys = [{**KEY, "bucket": str(number)} for number in range(4)]
    now = time.time()
    paths = [kept.get(key, Builder()) for key in keys[:3]]  # 4000 bytes each
    for number, path in enumerate(paths):
        os.utime(path / SEAL, (now - 9000 - number, now - 9000 - number))
    assert len(kept.keys()) == 3, "what may be about to be loaded stays"
    assert kept.find(keys[2]) is not None
    kept.get(keys[3], Builder())
    assert [kept.find(key) is not None for key in keys] == [False, False, True, True]
    monkeypatch.setattr(store, "IN_USE", -1.0)
    kept.get(keys[0], Builder())
    assert kept.find(keys[0]) is not None and len(kept.keys()) == 2


def test_threads_may_look_for_the_first_artefacts_together(tmp_path: Path) -> None:
    Store(tmp_path / "a").get(KEY, Builder())
    setup = f"from pathlib import Path; from service.backends.store import Store; key = {KEY!r}"
    assert first_together(setup, "assert Store(Path(sys.argv[1])).find(key)", str(tmp_path / "a")) == (0, "")
