"""Who is asking: keys and their file, limits, addresses and proxies."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import keys
from service.core.rates import Rates
from service.errors import Refusal, StartError
from service.gateway.addresses import Proxies, place
from service.gateway.auth import Guard, Keys, shown
from service.gateway.tls import Clients, grpc_names, names
from service.keys import KeyFileError

ALICE, ROOT, OLD = "squint_alice", "squint_root", "squint_old"


class Clock:
    """A clock that stands still unless told otherwise."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def line(name: str, key: str, role: str = "") -> str:
    return f"{name}:{hashlib.sha256(key.encode()).hexdigest()}{role}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# ours\n\n" + line("alice", ALICE) + line("alice", OLD) + line("root", ROOT, ":admin"))
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refused(guard: Guard, key: str | None, admin: bool = False) -> str:
    """The code of the refusal, or the client."""
    try:
        return guard.identify(None, key, "192.0.2.1", admin)
    except Refusal as refusal:
        return refusal.code


def test_a_client_is_the_name_of_its_key(file: Path, clock: Clock) -> None:
    guard = Guard(Keys(str(file), clock))
    assert refused(guard, ALICE) == refused(guard, OLD) == "alice"
    assert refused(guard, ROOT) == refused(guard, ROOT, admin=True) == "root"
    assert refused(guard, ALICE, admin=True) == "forbidden"
    strangers = (None, "", "squint_alicf", ALICE.upper(), ALICE + "x", keys.digest(ALICE), "é" * 300)
    assert {refused(guard, stranger) for stranger in strangers} == {"unauthorized"}


def test_a_key_that_is_wrong_is_told_from_one_that_is_missing(file: Path, clock: Clock) -> None:
    guard = Guard(Keys(str(file), clock))
    with pytest.raises(Refusal, match=r"^an API key is needed:"):
        guard.identify(None, None, "192.0.2.1")
    with pytest.raises(Refusal, match=r"^this API key is not, or no longer, valid here:") as caught:
        guard.identify("Bearer squint_alicf", None, "192.0.2.1")
    assert "alicf" not in str(caught.value)


def test_without_keys_a_client_is_its_address() -> None:
    assert Guard().identify(None, None, "192.0.2.1") == "192.0.2.1"
    assert Guard().identify(None, None, "2001:db8:1:2:3::4") == Guard().identify(None, None, "2001:db8:1:2::9")
    assert not Guard().closed


@pytest.mark.parametrize(
    ("authorization", "api_key", "expected"),
    [
        ("Bearer a", None, "a"),
        ("bearer a", "b", "a"),
        ("Basic a", "b", "b"),
        ("Bearer", "b", ""),
        ("a", None, ""),
        (None, " b ", "b"),
        (None, None, ""),
    ],
)
def test_where_a_key_stands(authorization: str | None, api_key: str | None, expected: str) -> None:
    assert shown(authorization, api_key) == expected


def test_the_file_is_read_again_when_it_changes(file: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    guard = Guard(Keys(str(file), clock))
    file.write_text(line("bob", "squint_bob"))
    assert refused(guard, "squint_bob") == "unauthorized", "it is looked at once a second"
    clock.now += 1.0
    assert refused(guard, "squint_bob") == "bob"
    assert refused(guard, ALICE) == "unauthorized"
    for broken in ("nonsense", "bob:abc\n", "BOB:" + "0" * 64, "bob:" + "0" * 64 + ":owner"):
        file.write_text(broken)
        clock.now += 1.0
        assert refused(guard, "squint_bob") == "bob", "a broken file changes nothing"
    file.unlink()
    clock.now += 1.0
    assert refused(guard, "squint_bob") == "bob"
    file.write_text("")
    clock.now += 1.0
    assert refused(guard, "squint_bob") == "unauthorized", "an empty file lets nobody in"
    assert "keys_unreadable" in capsys.readouterr().err


def test_a_file_that_anybody_may_write_is_no_file_of_keys(file: Path) -> None:
    file.chmod(0o666)
    with pytest.raises(KeyFileError, match="chmod"):
        keys.read(file)
    with pytest.raises(StartError, match="--key-file"):
        Keys(str(file))


def test_what_is_no_file_of_keys_is_told_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="line 2"):
        keys.parse("# one\nalice\n")
    with pytest.raises(KeyFileError, match="more than"):
        keys.parse("a:" + "0" * 64 + "\n" + ("b:" + "1" * 64 + "\n") * keys.MAX_KEYS)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(KeyFileError, match="UTF-8"):
        keys.read(tmp_path / "binary")
    with pytest.raises(KeyFileError):
        keys.read(tmp_path / "nowhere")
    (tmp_path / "long").write_bytes(b"#" * (keys.MAX_FILE_BYTES + 1))
    with pytest.raises(KeyFileError, match="longer"):
        keys.read(tmp_path / "long")


@given(st.text(max_size=300))
def test_any_text_is_keys_or_one_line_of_complaint(text: str) -> None:
    try:
        assert all(keys.NAME.fullmatch(key.name) for key in keys.parse(text))
    except KeyFileError as error:
        assert "\n" not in str(error)


def test_revoking_keeps_comments_and_the_others() -> None:
    text = "# top\n" + line("a", "1") + line("b", "2").strip() + "  # of b\n"
    gone = [key for key in keys.parse(text) if key.name == "a"]
    assert "\n".join(keys.without(text, gone)) == "# top\n" + line("b", "2").strip() + "  # of b"


def test_limits_are_by_client_and_hold_up_who_guesses(file: Path, clock: Clock) -> None:
    guard = Guard(Keys(str(file), clock), Rates(1.0, 2.0), clock)
    assert [refused(guard, ALICE) for _ in range(3)] == ["alice", "alice", "rate_limited"]
    assert refused(guard, OLD) == "rate_limited", "two keys of one client share its limit"
    assert refused(guard, ROOT) == "root"
    assert [refused(guard, f"guess {number}") for number in range(3)] == ["unauthorized"] * 2 + ["rate_limited"]
    with pytest.raises(Refusal) as told:
        guard.identify(None, ALICE, "192.0.2.1")
    assert told.value.retry_after == pytest.approx(1.0)
    clock.now += 1.0
    assert refused(guard, ALICE) == "alice"


def test_secrets_are_compared_in_constant_time() -> None:
    """Nothing but `compare_digest` compares a digest in the files that handle keys."""
    import ast

    for module in ("service/gateway/auth.py", "service/keys.py"):
        tree = ast.parse((Path(__file__).parents[3] / module).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                compared = ast.unparse(node)
                assert "digest" not in compared and "key" not in compared
    assert "compare_digest" in (Path(__file__).parents[3] / "service/gateway/auth.py").read_text()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("camera-7", "camera-7"),
    ],
)
def test_who_stands_behind_an_address(address: str, expected: str) -> None:
    assert place(address) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "10.0.0.1"),
        ("192.0.2.7", "192.0.2.7"),
        ("203.0.113.9, 192.0.2.7", "192.0.2.7"),
        ("203.0.113.9, 192.0.2.7, 10.1.1.1", "192.0.2.7"),
        ("192.0.2.7, nonsense", "10.0.0.1"),
        ("nonsense, 10.1.1.1", "10.1.1.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("1.1.1.1," * 100 + "10.1.1.1", "1.1.1.1"),
    ],
)
def test_whom_a_trusted_proxy_forwards(header: str, expected: str) -> None:
    proxies = Proxies(["10.0.0.0/8"])
    assert "10.0.0.1" in proxies and "::ffff:10.0.0.1" in proxies
    assert "11.0.0.1" not in proxies and "camera" not in proxies
    header = header.rstrip(",")
    assert proxies.forwarded("10.0.0.1", header) == expected


def test_names_in_certificates() -> None:
    certificate = {
        "subject": ((("organizationName", "x"),), (("commonName", "camera-7"),)),
        "subjectAltName": (("DNS", "camera.example"), ("URI", "spiffe://example/camera"), ("othername", "?")),
    }
    assert names(certificate) == ["camera-7", "camera.example", "spiffe://example/camera"]
    assert names(None) == names({}) == []
    told = {"x509_common_name": [b"camera-7"], "x509_subject_alternative_name": [b"a", b"b"], "transport": [b"ssl"]}
    assert grpc_names(told) == ["camera-7", "a", "b"]
    assert Clients(()).name(names(certificate)) == "camera-7"
    assert Clients(("camera.example",)).name(names(certificate)) == "camera.example"
    for allowed, there in ((("other",), ["camera-7"]), ((), []), ((), [""])):
        with pytest.raises(Refusal):
            Clients(allowed).name(there)


def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path, clock: Clock) -> None:
    """As Kubernetes replaces a mounted secret."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(line(name, name))
    (tmp_path / "keys").symlink_to("one")
    guard = Guard(Keys(str(tmp_path / "keys"), clock))
    assert refused(guard, "one") == "one"
    (tmp_path / "new").symlink_to("two")
    os.replace(tmp_path / "new", tmp_path / "keys")
    clock.now += 1.0
    assert (refused(guard, "one"), refused(guard, "two")) == ("unauthorized", "two")
