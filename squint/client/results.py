"""What a service answers, typed. Names are those of the JSON (docs/api.md); what newer services add is left aside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from squint.client.images import ImageLike

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the image as displayed (EXIF orientation applied)."""


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all parts of an answer."""


class Timing(Struct, frozen=True, kw_only=True):
    """Milliseconds in each stage: in a decoder, waiting for a batch, in the model, making the answer; and in all."""

    decode: float
    queue: float
    infer: float
    post: float
    total: float


class Runs(Struct, frozen=True, kw_only=True):
    """Pairs of a group and how many patches in a row are of it."""

    runs: list[tuple[int, int]]


class TokenGroups(Struct, frozen=True, kw_only=True):
    """Which patches of the image were merged with which, as `explain="tokens"` tells."""

    grid: tuple[int, int]
    """Rows and columns of patches."""
    groups: Runs
    sizes: list[int]
    """How many patches each group holds."""
    box: Box | None = None
    """Where the grid lies in the image; with letterbox it reaches beyond."""

    def array(self) -> NDArray[Any]:
        """The group of each patch, int64 [rows, columns]."""
        from squint.client import masks

        return masks.groups(self.groups.runs, self.grid)


class Waited(Struct, frozen=True, kw_only=True):
    """Milliseconds that an image waited, by what for."""

    body: float
    decoder: float
    worker: float


class Course(Struct, frozen=True, kw_only=True):
    """What became of an image on its way, as `explain="batch"` tells."""

    items: int
    """Images in its batch."""
    closed: str
    """Why that was closed."""
    waited_ms: Waited


class Explanation(Struct, frozen=True, kw_only=True):
    """What `explain` asked for."""

    tokens: TokenGroups | None = None
    batch: Course | None = None


class Answer(Struct, frozen=True, kw_only=True):
    """What every result carries."""

    request_id: str
    model: str
    version: str
    level: str
    """The level that was served."""
    backend: str
    timing_ms: Timing
    tokens: int = 0
    """Tokens left after the model's last block."""
    gmacs: float = 0.0
    explain: Explanation | None = None


class Prediction(Struct, frozen=True, kw_only=True):
    """One class."""

    label: str
    index: int
    score: float


class Classification(Answer, frozen=True, kw_only=True):
    """Classes, best first."""

    predictions: list[Prediction]

    @property
    def best(self) -> Prediction:
        """The best class."""
        return self.predictions[0]

    def draw(self, image: ImageLike, *, tokens: bool = True) -> Image.Image:
        """A new image with the classes and their scores on it; `tokens`: and the merged patches, if they were told."""
        from squint.client import drawing

        return drawing.classification(self, image, tokens)


class Detection(Prediction, frozen=True, kw_only=True):
    """One object."""

    box: Box


class Detections(Answer, frozen=True, kw_only=True):
    """Objects, best first."""

    predictions: list[Detection]

    def draw(self, image: ImageLike, *, tokens: bool = True) -> Image.Image:
        """A new image with boxes and labels on it; `tokens`: and the merged patches, if they were told."""
        from squint.client import drawing

        return drawing.detections(self, image, tokens)


class Mask(Struct, frozen=True, kw_only=True):
    """How the mask travelled, and what it holds as a whole."""

    format: Literal["rle", "png", "polygons"]
    counts: str | None = None
    data: str | None = None


class Segment(Struct, frozen=True, kw_only=True):
    """One class that is present, and its area in pixels."""

    label: str
    index: int
    area: int
    counts: str | None = None
    polygons: list[list[float]] | None = None


class Segmentation(Answer, frozen=True, kw_only=True):
    """The class of every pixel."""

    size: tuple[int, int]
    """Height and width: the image as displayed."""
    mask: Mask
    segments: list[Segment]

    def array(self) -> NDArray[Any]:
        """The class index of every pixel, uint8 [H, W] (uint16 where an index needs it); 0 is background.

        Needs numpy, for `mask="png"` Pillow too. Raises Unreadable for a mask that is none.
        """
        from squint.client import masks

        return masks.classes(self)

    def draw(self, image: ImageLike, *, tokens: bool = True) -> Image.Image:
        """A new image with the classes in colours on it; `tokens`: and the merged patches, if they were told.

        Raises ValueError for an image of another size than the answer's.
        """
        from squint.client import drawing

        return drawing.segmentation(self, image, tokens)


class Error(msgspec.Struct, frozen=True):
    """The service's one shape of errors."""

    error: str
    code: str
    request_id: str = ""
