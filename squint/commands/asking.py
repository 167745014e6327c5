"""`squint ask`: have a running service look at images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squint.commands.named import api_key, command, needs, of_service, share, whole_number
from squint.errors import Failure

if TYPE_CHECKING:
    from squint.client import Classification, Client, Detections, Segmentation

URL = "http://127.0.0.1:8000"
TASKS = {
    "classify": "name the main thing in images",
    "detect": "find the things in images and where they are",
    "segment": "say for every pixel of images what it shows",
}
_NOT_OPTIONS = {"run", "task", "images", "url", "api_key_file", "save", "json", "traceback"}


def add(commands: Any) -> None:
    """Describe the commands, one for each task."""
    group = commands.add_parser(
        "ask",
        help="have a running service look at images",
        description="Send images to a running service and print its answers; with --save also draw them.",
        allow_abbrev=False,
    ).add_subparsers(metavar="TASK", required=True)
    for task, words in TASKS.items():
        parser = command(group, task, ask, words)
        parser.set_defaults(task=task)
        parser.add_argument("images", metavar="IMAGE", nargs="+", help="a JPEG, PNG or WebP file")
        of_service(parser, URL, f"the service (default {URL})")
        parser.add_argument("--model", metavar="NAME", help="needed where several models do the task")
        parser.add_argument(
            "--level", metavar="L", help="a level by name, auto, or an explicit one (default: the model's)"
        )
        parser.add_argument("--min-level", metavar="L", help="with --level auto: the lowest that is acceptable")
        _of_task(parser, task)
        parser.add_argument("--explain", choices=("tokens", "batch", "all"), help="have the answer tell more")
        parser.add_argument("--timeout", type=_seconds, metavar="S", help="seconds for each image (default 10)")
        parser.add_argument(
            "--save", metavar="PATH", help="draw the answer on the image and write it here; a folder for several images"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object a line and nothing else")


def ask(options: argparse.Namespace) -> int:
    """Each image in a request of its own; 1 if one was not answered."""
    with needs("asking a service", "client"):
        from squint.client import Client, ClientError, Unreachable
    asked = {name: value for name, value in vars(options).items() if name not in _NOT_OPTIONS and value is not None}
    places = _places(options)
    failed = 0
    try:
        client = Client(options.url, api_key=api_key(options))
    except ValueError as error:
        raise Failure(str(error)) from None
    with client:
        for image in options.images:
            try:
                answer = _answer(client, options.task, image, asked)
            except Unreachable as error:
                raise Failure(f"{error} (is the service running?)") from None
            except (ClientError, OSError, ValueError) as error:
                failed += 1
                _say_failed(image, error, options.json)
                continue
            print(json.dumps({"image": image, **_plain(answer)}) if options.json else _line(image, answer))
            if places:
                _save(answer, image, places[image])
    return 1 if failed else 0


def _of_task(parser: argparse.ArgumentParser, task: str) -> None:
    if task == "classify":
        parser.add_argument("--top-k", type=whole_number(1, 1000), metavar="N", help="how many classes (default 5)")
    elif task == "detect":
        parser.add_argument("--threshold", type=share, metavar="X", help="least score of an object (default 0.3)")
        parser.add_argument(
            "--max-detections", type=whole_number(1, 1000), metavar="N", help="most objects (default 100)"
        )
    else:
        parser.add_argument("--mask", choices=("rle", "png", "polygons"), help="how the mask travels (default rle)")


def _seconds(text: str) -> float:
    """An argument's type: a timeout."""
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, more than 0 and at most 3600")
    return value


def _answer(
    client: Client, task: str, image: str, asked: Mapping[str, Any]
) -> Classification | Detections | Segmentation:
    path = Path(image)
    if task == "classify":
        return client.classify(path, **asked)
    return client.detect(path, **asked) if task == "detect" else client.segment(path, **asked)


def _line(image: str, answer: Classification | Detections | Segmentation) -> str:
    """One image's answer for a person."""
    from squint.client import Segmentation

    if isinstance(answer, Segmentation):
        height, width = answer.size
        largest = sorted(answer.segments, key=lambda segment: -segment.area)
        found = [f"{segment.label} {100 * segment.area / (height * width):.1f} %" for segment in largest]
    else:
        found = [f"{prediction.label} {prediction.score:.2f}" for prediction in answer.predictions]
    return f"{image}: {', '.join(found) or 'nothing'} (level {answer.level}, {answer.timing_ms.total:.1f} ms)"


def _plain(answer: Any) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(answer)
    return plain


def _say_failed(image: str, error: Exception, as_json: bool) -> None:
    """One image's error, in the service's own words where it answered."""
    from squint.client import Refused

    words = error.strerror or "unreadable" if isinstance(error, OSError) else str(error)
    if not as_json:
        print(f"{image}: {words}")
        return
    code = error.code if isinstance(error, Refused) else "not_sent"
    told = error.message if isinstance(error, Refused) else words
    print(json.dumps({"image": image, "error": told, "code": code, "request_id": getattr(error, "request_id", "")}))


def _places(options: argparse.Namespace) -> dict[str, Path]:
    """Where each image's drawing goes; empty when none is wanted."""
    if options.save is None:
        return {}
    with needs("drawing", "client"):
        import squint.client.drawing  # noqa: F401 - so that nothing is asked in vain
    place = Path(options.save)
    if len(options.images) == 1 and not place.is_dir():
        return {options.images[0]: place}
    if place.suffix:
        raise Failure(f"--save {place}: several images need a folder")
    places = {image: place / f"{Path(image).stem}.png" for image in options.images}
    if len(set(places.values())) < len(places):
        raise Failure(f"--save {place}: some images have the same name and would overwrite one another")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"--save {place}: {error.strerror}") from None
    return places


def _save(answer: Classification | Detections | Segmentation, image: str, place: Path) -> None:
    try:
        answer.draw(Path(image)).save(place)
    except OSError as error:
        raise Failure(f"--save {place}: {error.strerror or 'cannot be written'}") from None
    except ValueError as error:
        raise Failure(f"--save {place}: {error}") from None
