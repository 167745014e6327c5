"""What decoding and resizing one JPEG costs with each library at hand: `python -m tests.bench.decode`.

CPU milliseconds, the least of many runs, the candidates interleaved so that all see the same machine.
Libraries that are not installed are left out. Parity is against Pillow: largest and mean difference in steps of 255,
on a photo-like scene and on black and white noise.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import platform
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.config import Limits
from service.decoder import image
from service.decoder.main import return_memory
from service.decoder.resample import resample
from service.wire.messages.decoder import Fitting
from tests.unit.decoder.scenes import Pixels, noise, photo, save

SIDE = 224
SIZES = [(500, 375), (1280, 960), (2048, 1536), (4000, 3000)]
Box = tuple[float, float, float, float]


def optional(name: str) -> Any:
    """A module, or None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def decoders() -> dict[str, Callable[[bytes], Any]]:
    """Bytes of a JPEG to RGB pixels."""
    found: dict[str, Callable[[bytes], Any]] = {
        "Pillow": lambda data: np.asarray(Image.open(io.BytesIO(data), formats=["JPEG"]))
    }
    if simplejpeg := optional("simplejpeg"):
        found["simplejpeg"] = simplejpeg.decode_jpeg
        found["simplejpeg, fast DCT and upsampling"] = partial(simplejpeg.decode_jpeg, fastdct=True, fastupsample=True)
    if cv2 := optional("cv2"):
        cv2.setNumThreads(1)
        found["OpenCV"] = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if imagecodecs := optional("imagecodecs"):
        found["imagecodecs"] = imagecodecs.jpeg8_decode
    if kornia := optional("kornia_rs.io"):
        found["kornia-rs"] = lambda data: kornia.decode_image_jpegturbo(data, "rgb")
    return found


def resizers() -> dict[str, Callable[[Pixels, Box], Any]]:
    """The part `box` of an image [H, W, 3] to [SIDE, SIDE, 3]."""

    def ours(pixels: Pixels, box: Box) -> Pixels:
        out = np.empty((SIDE, SIDE, 3), np.uint8)
        resample(pixels, box, out)
        return out

    def cut(pixels: Pixels, box: Box) -> Pixels:
        x0, y0, x1, y1 = (int(side) for side in box)
        return np.ascontiguousarray(pixels[y0:y1, x0:x1])

    found: dict[str, Callable[[Pixels, Box], Any]] = {
        "ours (numpy)": ours,
        "Pillow": lambda pixels, box: np.asarray(
            Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC, box)
        ),
    }
    if kornia := optional("kornia_rs.imgproc"):
        found["kornia-rs"] = lambda pixels, box: kornia.resize(
            cut(pixels, box), (SIDE, SIDE), "bicubic", antialias=True
        )
    if cykooz := optional("cykooz_resizer"):
        found["cykooz_resizer"] = partial(in_two_passes, cykooz)
    if cv2 := optional("cv2"):

        def opencv(pixels: Pixels, box: Box, interpolation: int) -> Any:
            return cv2.resize(cut(pixels, box), (SIDE, SIDE), interpolation=interpolation)

        for name, kind in (("OpenCV area", cv2.INTER_AREA), ("OpenCV cubic", cv2.INTER_CUBIC)):
            found[name] = partial(opencv, interpolation=kind)
    return found


def in_two_passes(cykooz: Any, pixels: Pixels, box: Box) -> Pixels:
    """By cykooz_resizer, one axis at a time, since Pillow does the rows first and it the columns."""
    height, width = pixels.shape[:2]
    resizer = cykooz.Resizer()
    way = cykooz.ResizeAlg.convolution(cykooz.FilterType.catmull_rom)
    x0, y0, x1, y1 = box
    stored = cykooz.ImageData(width, height, cykooz.PixelType.U8x3, pixels.tobytes())
    narrow = cykooz.ImageData(SIDE, height, cykooz.PixelType.U8x3)
    final = cykooz.ImageData(SIDE, SIDE, cykooz.PixelType.U8x3)
    for source, target, part in (
        (stored, narrow, cykooz.CropBox(x0, 0, x1 - x0, height)),
        (narrow, final, cykooz.CropBox(0, y0, SIDE, y1 - y0)),
    ):
        resizer.resize(source, target, cykooz.ResizeOptions(resize_alg=way, crop_box=part, use_alpha=False))
    return np.frombuffer(final.get_buffer(), np.uint8).reshape(SIDE, SIDE, 3)


def shrunk(scene: Pixels, body: bytes) -> dict[str, list[str]]:
    """Decoding one JPEG at each eighth: its time, and how far the fitted result is from that of the whole image."""
    simplejpeg = importlib.import_module("simplejpeg")
    height, width = scene.shape[:2]
    rows: dict[str, list[str]] = {}
    fitted: dict[int, NDArray[np.int64]] = {}
    for eighths in (8, 6, 5, 4, 3, 2, 1):
        sides = {"min_width": -(-width * eighths // 8), "min_height": -(-height * eighths // 8)}
        call = partial(simplejpeg.decode_jpeg, body, **sides)
        best = milliseconds({"": call}, 8)[""]
        out = np.empty((SIDE, SIDE, 3), np.uint8)
        x0, y0, x1, y1 = (side * eighths / 8 for side in middle(scene))
        resample(call(), (x0, y0, x1, y1), out)
        fitted[eighths] = out.astype(int)
        difference = np.abs(fitted[eighths] - fitted[8])
        spare = height * eighths / 8 / SIDE
        rows[f"{eighths}/8"] = [f"{best:.2f}", f"{spare:.2f}", f"{difference.max()}, {difference.mean():.3f}"]
    return rows


def milliseconds(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The least CPU time of each call, helper threads of its library included."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.process_time_ns()
            call()
            best[name] = min(best[name], (time.process_time_ns() - started) / 1e6)
    return best


def measured(ways: Mapping[str, Callable[..., Any]], inputs: list[tuple[Any, ...]]) -> dict[str, list[str]]:
    """Each way's time for each input, as cells of a table."""
    rows: dict[str, list[str]] = {name: [] for name in ways}
    for size, arguments in zip(SIZES, inputs, strict=True):
        rounds = max(8, 40_000_000 // (size[0] * size[1]))
        for name, best in milliseconds({n: partial(way, *arguments) for n, way in ways.items()}, rounds).items():
            rows[name].append(f"{best:.2f}")
    return rows


def middle(pixels: NDArray[np.uint8]) -> Box:
    """The largest square in the middle."""
    height, width = pixels.shape[:2]
    side = min(width, height)
    return ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)


def parity(resize: Callable[[Pixels, Box], Any], pixels: Pixels) -> str:
    """Largest and mean difference from Pillow."""
    expected = resizers()["Pillow"](pixels, middle(pixels))
    difference = np.abs(resize(pixels, middle(pixels)).astype(int) - expected)
    return f"{difference.max()}, {difference.mean():.3f}"


def table(title: str, rows: dict[str, list[str]], columns: list[str]) -> None:
    """Print Markdown."""
    print(f"\n| {title} | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    """Measure and print the tables."""
    names = ("numpy", "pillow", "simplejpeg", "kornia-rs", "cykooz-resizer", "opencv-python-headless", "imagecodecs")
    versions = {name: version for name in names if (version := optional_version(name))}
    print(platform.machine(), ", ".join(f"{name} {version}" for name, version in versions.items()))
    return_memory()
    scenes = [photo(*size) for size in SIZES]
    bodies = [save(scene, "JPEG", quality=92) for scene in scenes]
    headings = [f"{w}x{h}, {len(body) // 1000} kB" for (w, h), body in zip(SIZES, bodies, strict=True)]
    table("decode, CPU ms", measured(decoders(), [(body,) for body in bodies]), headings)
    rows = measured(resizers(), [(scene, middle(scene)) for scene in scenes])
    # One column less, so that the middle lies on whole pixels: not every library knows fractions of them.
    hard = np.repeat((noise(499, 375, 1) // 128) * 255, 3, axis=2)
    for name, resize in resizers().items():
        rows[name] += [parity(resize, np.ascontiguousarray(scenes[0][:, :499])), parity(resize, hard)]
    table(f"resize the middle to {SIDE}x{SIDE}, CPU ms", rows, [*headings, "parity, photo", "parity, noise"])
    for scene, body, heading in list(zip(scenes, bodies, headings, strict=True))[1:]:
        columns = ["CPU ms", "rows per row of the result", "difference, largest and mean"]
        table(f"decode {heading} at", shrunk(scene, body), columns)
    fitting = Fitting(fit="crop", height=SIDE, width=SIDE, fill=(0, 0, 0))
    out = memoryview(bytearray(SIDE * SIDE * 3))
    whole = {"image.decode": partial(image.decode, out=out, fitting=fitting, limits=Limits())}
    table("the decoder's whole way, CPU ms", measured(whole, [(body,) for body in bodies]), headings)


def optional_version(name: str) -> str:
    """The installed version, or nothing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
