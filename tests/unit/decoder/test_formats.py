"""Whatever is not JPEG, PNG or WebP by content is 415, and no reader but those three is ever loaded."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys

import pytest
from PIL import Image

from service.config import Limits
from service.decoder import headers
from service.errors import Refusal
from tests.unit.decoder.scenes import photo, png, riff, save

SCENE = Image.fromarray(photo(32, 24))
MADE = ["BMP", "DIB", "GIF", "ICO", "JPEG2000", "PCX", "PPM", "SGI", "TGA", "TIFF", "PDF", "EPS", "DDS", "SPIDER"]


def _made(kind: str) -> bytes:
    image = SCENE.convert("F") if kind == "SPIDER" else SCENE
    return save(image, kind)


OTHERS: dict[str, bytes] = {
    "avif": b"\0\0\0 ftypavif\0\0\0\0avifmif1miafMA1B" + b"\0" * 200,
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 200,
    "jxl": b"\xff\x0a" + b"\0" * 100,
    "jxl-box": b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0" * 100,
    "jpeg-xr": b"II\xbc\x01" + b"\0" * 100,
    "jpeg-ls-head": b"\xff\xd8" + b"\0" * 50,
    "psd": b"8BPS\0\1" + b"\0" * 100,
    "fits": b"SIMPLE  =                    T" + b" " * 2000,
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "html": b"<!doctype html><img src=x>",
    "ps": b"%!PS-Adobe-3.0\n(/etc/passwd) (r) file",
    "wmf": b"\xd7\xcd\xc6\x9a" + b"\0" * 100,
    "emf": b"\1\0\0\0" + b"\0" * 40 + b" EMF",
    "mpeg": b"\0\0\1\xb3" + b"\0" * 100,
    "mp4": b"\0\0\0\x18ftypisom" + b"\0" * 100,
    "wav": riff().replace(b"WEBP", b"WAVE"),
    "zip": b"PK\3\4" + b"\0" * 100,
    "gzip": gzip.compress(b"x" * 100),
    "elf": b"\x7fELF" + b"\0" * 100,
    "qoi": b"qoif" + b"\0" * 100,
    "hdf5": b"\x89HDF\r\n\x1a\n" + b"\0" * 100,
    "mng": b"\x8aMNG\r\n\x1a\n" + b"\0" * 100,
    "jng": b"\x8bJNG\r\n\x1a\n" + b"\0" * 100,
    "png-damaged-by-text-mode": b"\x89PNG\n\x1a\n" + b"\0" * 100,
    "xpm": b"/* XPM */ static char *x[] = {};",
    "text": b"hello",
    "json": b'{"image": "..."}',
    "one-byte": b"\xff",
    "zeros": bytes(1000),
    "space-before-a-png": b" " + png(photo(4, 4), 2),
    "webp-in-lower-case": b"riff\0\0\0\0webp" + b"\0" * 100,
}


@pytest.mark.parametrize("name", [*OTHERS, *MADE])
def test_other_formats(name: str) -> None:
    data = OTHERS[name] if name in OTHERS else _made(name)
    with pytest.raises(Refusal) as caught:
        headers.read(data, Limits())
    assert caught.value.code == "unsupported_media_type"
    assert caught.value.status == 415


_PROBE = """
import sys
from service.config import Limits
from service.decoder import image, warmup
from service.errors import Refusal
from service.wire.messages.decoder import Fitting

started = []
sys.addaudithook(lambda event, _: started.append(event) if event in ("subprocess.Popen", "os.system", "os.exec") else 0)
warmup.run()
for size in iter(lambda: int.from_bytes(sys.stdin.buffer.read(4), "big"), 0):
    data = sys.stdin.buffer.read(size)
    fitting = Fitting(fit="crop", height=32, width=32, fill=(0, 0, 0))
    try:
        image.decode(data, memoryview(bytearray(32 * 32 * 3)), fitting, Limits())
    except Refusal:
        pass
plugins = sorted(name for name in sys.modules if name.startswith("PIL.") and name.endswith("Plugin"))
print(*plugins, len(started))
"""


def test_no_other_reader_is_loaded() -> None:
    multi_picture = io.BytesIO()
    SCENE.save(multi_picture, "MPO", save_all=True, append_images=[SCENE])
    cmyk = save(SCENE.convert("CMYK"), "JPEG")
    bodies = [
        *OTHERS.values(),
        *map(_made, MADE),
        multi_picture.getvalue(),
        cmyk,
        save(SCENE, "WEBP"),
        png(photo(4, 4), 2),
    ]
    stream = b"".join(len(body).to_bytes(4, "big") + body for body in bodies) + bytes(4)
    done = subprocess.run([sys.executable, "-c", _PROBE], input=stream, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.split() == [b"PIL.JpegImagePlugin", b"PIL.PngImagePlugin", b"PIL.WebPImagePlugin", b"0"]
