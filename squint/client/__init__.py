"""A client for a running service: images in, typed results out.

    from squint.client import Client

    with Client("http://127.0.0.1:8000") as client:
        print(client.classify("cat.jpg").best.label)

`Client` blocks, `AsyncClient` is for asyncio; both do the same. It needs httpx and msgspec; Pillow and numpy only where
their images go in, or masks and drawings come out. docs/client.md shows all of it.
"""

from squint.client.calls import AsyncClient, Client
from squint.client.errors import ClientError, DeadlineExceeded, Refused, Unreachable, Unreadable
from squint.client.images import ImageLike
from squint.client.model import Level, Model
from squint.client.options import ClassifyOptions, DetectOptions, SegmentOptions
from squint.client.results import (
    Answer,
    Classification,
    Detection,
    Detections,
    Prediction,
    Segment,
    Segmentation,
    Timing,
    TokenGroups,
)
from squint.client.retries import Retries

__all__ = [
    "Answer",
    "AsyncClient",
    "Classification",
    "ClassifyOptions",
    "Client",
    "ClientError",
    "DeadlineExceeded",
    "DetectOptions",
    "Detection",
    "Detections",
    "ImageLike",
    "Level",
    "Model",
    "Prediction",
    "Refused",
    "Retries",
    "Segment",
    "SegmentOptions",
    "Segmentation",
    "Timing",
    "TokenGroups",
    "Unreachable",
    "Unreadable",
]
