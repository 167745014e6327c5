"""JPEGs decoded on the device (`--decode-on device`) against what a decoder makes of the same bytes: every kind, every
fit and every orientation at the network's input, images that are damaged, and how many per second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from models.manifest import Transform
from service.backends import arrays
from service.config import Limits
from service.decoder import handing, image
from service.errors import ConfigError
from service.wire.messages.decoder import Coded, Fitting
from service.worker.codec import Codec
from service.worker.coded import Unpacker
from tests.gpu.plan import Cannot, Settings
from tests.unit.decoder.golden import GOLDEN
from tests.unit.decoder.scenes import exif, photo, save, with_exif

LARGEST, MEAN = 8, 0.5
"""Of 255: how far a pixel of the network's input may be from the decoder's, and how far all are on average."""
FILL = (114, 50, 200)
FITTINGS = (
    Fitting(fit="crop", height=224, width=224, fill=FILL),
    Fitting(fit="stretch", height=96, width=160, fill=FILL),
    Fitting(fit="letterbox", height=224, width=288, fill=FILL),
    Fitting(fit="crop", height=96, width=128, fill=FILL, keep=0.8, filter="bilinear"),
)
SIZES = ((500, 375), (375, 501), (1280, 960), (50, 31))
BATCH, SECONDS = 64, 5.0
Asked = tuple[bytes, Coded]


def run(settings: Settings, save_data: Callable[[dict[str, Any]], None]) -> None:
    """Raises RuntimeError when a kind is outside its tolerance, or a damaged image was taken for one."""
    try:
        there = arrays.on(settings.device)
        unpacker = Unpacker(Codec(settings.device), there)
    except ConfigError as error:
        raise Cannot(str(error)) from None
    rows: list[dict[str, Any]] = []
    data: dict[str, Any] = {"tolerance": {"largest": LARGEST, "mean": MEAN}, "resampled_by": there.name, "rows": rows}
    for name, body in kinds(settings):
        for fitting in FITTINGS:
            rows.append({"kind": name, "fit": fitting.fit, **compared(unpacker, body, fitting)})
        save_data(data)
    data["damaged"] = {name: refused(unpacker, asked) for name, asked in damaged()}
    data["images_per_second"] = {f"{width}x{height}": rate(unpacker, width, height) for width, height in SIZES[:1]}
    save_data(data)
    wrong = [f"{row['kind']} {row['fit']}: {row['problem']}" for row in rows if row["problem"]]
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {len(rows)}: {', '.join(wrong[:5])}")


def kinds(settings: Settings) -> Iterator[tuple[str, bytes]]:
    """What decoders hand on."""
    for name, make in GOLDEN.items():
        if name.startswith("jpeg") and handed(make().data, FITTINGS[0]) is not None:
            yield name, make().data
    for width, height in SIZES[-1:] if settings.small else SIZES:
        scene = photo(width, height)
        for number in range(8):
            body = save(scene, "JPEG", quality=90, subsampling=number % 3, progressive=bool(number & 4))
            yield f"photo-{width}x{height}-orientation-{number + 1}", with_exif(body, exif(number + 1))


def handed(body: bytes, fitting: Fitting) -> Asked | None:
    """As a decoder hands it on."""
    out = memoryview(bytearray(4 << 20))
    found = handing.hand_on(body, out, fitting, Limits())
    return None if found is None else (bytes(out[: found[1].size]), found[1])


def compared(unpacker: Unpacker, body: bytes, fitting: Fitting) -> dict[str, Any]:
    """How far one image is from what a decoder makes of it."""
    asked = handed(body, fitting)
    (pixels,) = unpacker.decode([asked]) if asked else (None,)
    if asked is None or pixels is None:
        return {"largest": None, "mean": None, "problem": "refused"}
    got = np.empty((fitting.height, fitting.width, 3), np.uint8)
    unpacker.fit([(pixels, asked[1], got)], transform(fitting))
    expected = bytearray(got.nbytes)
    image.decode(body, memoryview(expected), fitting, Limits())
    difference = np.abs(got.astype(int) - np.frombuffer(expected, np.uint8).reshape(got.shape))
    largest, mean = int(difference.max()), float(difference.mean())
    near = largest <= LARGEST and mean <= MEAN
    return {"largest": largest, "mean": round(mean, 3), "problem": "" if near else f"off by {largest}, mean {mean:.2f}"}


def transform(fitting: Fitting) -> Transform:
    """What a manifest says of the same."""
    return Transform(fitting.fit, fitting.height, fitting.width, fitting.fill, fitting.keep, fitting.filter)


def damaged() -> Iterator[tuple[str, Asked]]:
    """Images that are none, though their header is right."""
    whole = handed(save(photo(500, 375), "JPEG", quality=90), FITTINGS[0])
    if whole is None:
        raise RuntimeError("an ordinary photo is not handed on")
    data, coded = whole
    tables, frame = data.index(b"\xff\xdb"), data.index(b"\xff\xc0")
    yield "cut in half", (data[: len(data) // 2], coded)
    yield "without its tables", (data[:tables] + data[frame:], coded)
    yield "another size", (save(photo(640, 480), "JPEG"), coded)


def refused(unpacker: Unpacker, asked: Asked) -> bool:
    """Whether the library notices; where it does not, the picture is half grey."""
    return unpacker.decode([asked])[0] is None


def rate(unpacker: Unpacker, width: int, height: int) -> float:
    """Images per second from bytes to the network's input, by one thread, in batches."""
    asked = handed(save(photo(width, height), "JPEG", quality=90), FITTINGS[0])
    if asked is None:
        raise RuntimeError("an ordinary photo is not handed on")
    batch = [asked] * BATCH
    canvases = np.empty((BATCH, FITTINGS[0].height, FITTINGS[0].width, 3), np.uint8)
    done, began = 0, 0.0
    while not done or time.monotonic() < began + SECONDS:
        found = unpacker.decode(batch)
        told = [(pixels, one[1], canvas) for pixels, one, canvas in zip(found, batch, canvases, strict=True)]
        unpacker.fit(told, transform(FITTINGS[0]))
        done += 1
        if done == 1:  # what a first batch sets up
            began = time.monotonic()
    return round((done - 1) * BATCH / (time.monotonic() - began), 1)
