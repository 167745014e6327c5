"""Inside the sandbox nothing works but decoding. Each check runs in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys
import textwrap

import pytest

from service.decoder import seccomp
from tests.unit.decoder.golden import GOLDEN

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no table for this machine")

_ENTER = """
import ctypes, mmap, os, resource, socket, sys, threading
from service.decoder import sandbox, warmup
warmup.run()
layers = sandbox.enter(256 << 20)
libc = ctypes.CDLL(None, use_errno=True)
"""


def inside(code: str, body: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run code after entering."""
    script = _ENTER + textwrap.dedent(code)
    environment = {"OPENBLAS_NUM_THREADS": "1", "SECRET": "token"}
    return subprocess.run([sys.executable, "-c", script], input=body, capture_output=True, timeout=60, env=environment)


def test_all_layers_that_every_linux_has() -> None:
    done = inside("print(*sorted(layers))")
    assert {b"environment", b"limits", b"no_new_privs", b"seccomp"} <= set(done.stdout.split()), done.stderr


FORBIDDEN = {
    "socket": "socket.socket()",
    "unix-socket": "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "socketpair": "socket.socketpair()",
    "execve": "os.execv('/bin/true', ['true'])",
    "fork": "os.fork()",
    "read-a-file": "open('/etc/passwd')",
    "write-a-file": "open('/tmp/squint-sandbox-test', 'w')",
    "list-a-folder": "os.listdir('/')",
    "read-proc": "open('/proc/self/environ')",
    "stat": "os.stat('/etc/passwd')",
    "kill": "os.kill(os.getppid(), 0)",
    "unlink": "os.unlink('/tmp/squint-sandbox-test')",
    "memfd": "os.memfd_create('x')",
    "pipe": "os.pipe()",
    "executable-memory": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "chroot": "os.chroot('/')",
    "setuid": "os.setuid(0)",
    "import": "import wave",
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_forbidden(name: str) -> None:
    done = inside(
        f"""
        try:
            {FORBIDDEN[name]}
        except OSError as error:
            print(error.errno)
        """
    )
    assert (done.returncode, done.stdout) == (0, b"1\n"), done.stderr.decode()


def test_no_threads_no_children_no_shell() -> None:
    done = inside(
        """
        spawn = lambda: os.posix_spawn("/bin/true", ["true"], {})
        for attempt in (threading.Thread(target=print).start, spawn):
            try:
                attempt()
            except (RuntimeError, OSError):
                print("no")
        print(os.system("true") != 0)
        """
    )
    assert done.stdout.split() == [b"no", b"no", b"True"], done.stderr.decode()


def test_environment_and_memory() -> None:
    done = inside(
        """
        print(os.environ.get("SECRET"), libc.getenv(b"SECRET"))
        try:
            bytearray(300 << 20)
        except MemoryError:
            print("bounded")
        """
    )
    assert done.stdout.split() == [b"None", b"0", b"bounded"], done.stderr.decode()


def test_filter_and_limits_cannot_be_lifted() -> None:
    done = inside(
        """
        print(libc.prctl(22, 0, 0, 0, 0), libc.prctl(38, 0, 0, 0, 0))
        try:
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        except (OSError, ValueError):
            print("no")
        """
    )
    assert done.stdout.split() == [b"-1", b"-1", b"no"], done.stderr.decode()


def test_the_other_numbering_of_system_calls_is_closed() -> None:
    """x32 numbers reach the same calls on some kernels."""
    if platform.machine() != "x86_64":
        pytest.skip("x86_64 only")
    done = inside("print(libc.syscall(0x40000000 + 39), ctypes.get_errno())")
    assert done.stdout.split() == [b"-1", b"1"], done.stderr.decode()


_DECODE = """
from service.config import Limits
from service.decoder import image
from service.errors import Refusal
from service.wire.messages.decoder import Fitting
failed = 0
read = sys.stdin.buffer.read
for size in iter(lambda: int.from_bytes(read(4), "big"), 0):
    data = read(size)
    for fit in ("crop", "stretch", "letterbox"):
        for part in (data, data[: size // 2]):
            try:
                image.decode(part, memoryview(bytearray(64 * 64 * 3)),
                             Fitting(fit=fit, height=64, width=64, fill=(1, 2, 3)), Limits())
            except Refusal as refusal:
                failed += part is data
print(failed)
"""


def test_every_kind_is_decoded_inside() -> None:
    bodies = [make().data for make in GOLDEN.values()]
    stream = b"".join(len(body).to_bytes(4, "big") + body for body in bodies) + bytes(4)
    done = inside(_DECODE, stream)
    assert (done.returncode, done.stdout) == (0, b"0\n"), done.stderr.decode()


def test_a_table_for_each_machine() -> None:
    for machine in ("x86_64", "aarch64"):
        assert len(seccomp.program(machine)) % 8 == 0
        assert len(seccomp.program(machine)) // 8 < 256
    with pytest.raises(KeyError):
        seccomp.program("riscv64")


def test_without_seccomp_the_other_layers_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert not seccomp.install()
