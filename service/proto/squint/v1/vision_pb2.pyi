from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_HIGH: _ClassVar[Priority]
    PRIORITY_NORMAL: _ClassVar[Priority]
    PRIORITY_LOW: _ClassVar[Priority]

class Explain(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPLAIN_UNSPECIFIED: _ClassVar[Explain]
    EXPLAIN_TOKENS: _ClassVar[Explain]
    EXPLAIN_BATCH: _ClassVar[Explain]
    EXPLAIN_ALL: _ClassVar[Explain]

class MaskFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MASK_FORMAT_UNSPECIFIED: _ClassVar[MaskFormat]
    MASK_FORMAT_RLE: _ClassVar[MaskFormat]
    MASK_FORMAT_PNG: _ClassVar[MaskFormat]
    MASK_FORMAT_POLYGONS: _ClassVar[MaskFormat]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_HIGH: Priority
PRIORITY_NORMAL: Priority
PRIORITY_LOW: Priority
EXPLAIN_UNSPECIFIED: Explain
EXPLAIN_TOKENS: Explain
EXPLAIN_BATCH: Explain
EXPLAIN_ALL: Explain
MASK_FORMAT_UNSPECIFIED: MaskFormat
MASK_FORMAT_RLE: MaskFormat
MASK_FORMAT_PNG: MaskFormat
MASK_FORMAT_POLYGONS: MaskFormat

class Options(_message.Message):
    __slots__ = ("model", "level", "min_level", "timeout_ms", "priority", "explain", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    MIN_LEVEL_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    level: str
    min_level: str
    timeout_ms: int
    priority: Priority
    explain: Explain
    version: str
    def __init__(self, model: _Optional[str] = ..., level: _Optional[str] = ..., min_level: _Optional[str] = ..., timeout_ms: _Optional[int] = ..., priority: _Optional[_Union[Priority, str]] = ..., explain: _Optional[_Union[Explain, str]] = ..., version: _Optional[str] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("image", "options", "top_k")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    options: Options
    top_k: int
    def __init__(self, image: _Optional[bytes] = ..., options: _Optional[_Union[Options, _Mapping]] = ..., top_k: _Optional[int] = ...) -> None: ...

class DetectRequest(_message.Message):
    __slots__ = ("image", "options", "threshold", "max_detections")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MAX_DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    options: Options
    threshold: float
    max_detections: int
    def __init__(self, image: _Optional[bytes] = ..., options: _Optional[_Union[Options, _Mapping]] = ..., threshold: _Optional[float] = ..., max_detections: _Optional[int] = ...) -> None: ...

class SegmentRequest(_message.Message):
    __slots__ = ("image", "options", "mask")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    options: Options
    mask: MaskFormat
    def __init__(self, image: _Optional[bytes] = ..., options: _Optional[_Union[Options, _Mapping]] = ..., mask: _Optional[_Union[MaskFormat, str]] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("decode_ms", "queue_ms", "infer_ms", "post_ms", "total_ms")
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    INFER_MS_FIELD_NUMBER: _ClassVar[int]
    POST_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    decode_ms: float
    queue_ms: float
    infer_ms: float
    post_ms: float
    total_ms: float
    def __init__(self, decode_ms: _Optional[float] = ..., queue_ms: _Optional[float] = ..., infer_ms: _Optional[float] = ..., post_ms: _Optional[float] = ..., total_ms: _Optional[float] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("group", "patches")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    group: int
    patches: int
    def __init__(self, group: _Optional[int] = ..., patches: _Optional[int] = ...) -> None: ...

class TokenGroups(_message.Message):
    __slots__ = ("rows", "columns", "runs", "sizes", "box")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    sizes: _containers.RepeatedScalarFieldContainer[int]
    box: Box
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ..., runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., sizes: _Optional[_Iterable[int]] = ..., box: _Optional[_Union[Box, _Mapping]] = ...) -> None: ...

class Course(_message.Message):
    __slots__ = ("items", "closed", "decoder_wait_ms", "worker_wait_ms")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    DECODER_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    WORKER_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    items: int
    closed: str
    decoder_wait_ms: float
    worker_wait_ms: float
    def __init__(self, items: _Optional[int] = ..., closed: _Optional[str] = ..., decoder_wait_ms: _Optional[float] = ..., worker_wait_ms: _Optional[float] = ...) -> None: ...

class Served(_message.Message):
    __slots__ = ("request_id", "model", "version", "level", "tokens", "gmacs", "backend", "timing", "token_groups", "course")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    GMACS_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    TOKEN_GROUPS_FIELD_NUMBER: _ClassVar[int]
    COURSE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    version: str
    level: str
    tokens: int
    gmacs: float
    backend: str
    timing: Timing
    token_groups: TokenGroups
    course: Course
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., level: _Optional[str] = ..., tokens: _Optional[int] = ..., gmacs: _Optional[float] = ..., backend: _Optional[str] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., token_groups: _Optional[_Union[TokenGroups, _Mapping]] = ..., course: _Optional[_Union[Course, _Mapping]] = ...) -> None: ...

class Class(_message.Message):
    __slots__ = ("label", "index", "score")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    label: str
    index: int
    score: float
    def __init__(self, label: _Optional[str] = ..., index: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("served", "predictions")
    SERVED_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    served: Served
    predictions: _containers.RepeatedCompositeFieldContainer[Class]
    def __init__(self, served: _Optional[_Union[Served, _Mapping]] = ..., predictions: _Optional[_Iterable[_Union[Class, _Mapping]]] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x0", "y0", "x1", "y1")
    X0_FIELD_NUMBER: _ClassVar[int]
    Y0_FIELD_NUMBER: _ClassVar[int]
    X1_FIELD_NUMBER: _ClassVar[int]
    Y1_FIELD_NUMBER: _ClassVar[int]
    x0: float
    y0: float
    x1: float
    y1: float
    def __init__(self, x0: _Optional[float] = ..., y0: _Optional[float] = ..., x1: _Optional[float] = ..., y1: _Optional[float] = ...) -> None: ...

class Detection(_message.Message):
    __slots__ = ("label", "index", "score", "box")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    label: str
    index: int
    score: float
    box: Box
    def __init__(self, label: _Optional[str] = ..., index: _Optional[int] = ..., score: _Optional[float] = ..., box: _Optional[_Union[Box, _Mapping]] = ...) -> None: ...

class DetectResponse(_message.Message):
    __slots__ = ("served", "predictions")
    SERVED_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    served: Served
    predictions: _containers.RepeatedCompositeFieldContainer[Detection]
    def __init__(self, served: _Optional[_Union[Served, _Mapping]] = ..., predictions: _Optional[_Iterable[_Union[Detection, _Mapping]]] = ...) -> None: ...

class Polygon(_message.Message):
    __slots__ = ("points",)
    POINTS_FIELD_NUMBER: _ClassVar[int]
    points: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, points: _Optional[_Iterable[float]] = ...) -> None: ...

class Region(_message.Message):
    __slots__ = ("label", "index", "area", "counts", "polygons")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    AREA_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    POLYGONS_FIELD_NUMBER: _ClassVar[int]
    label: str
    index: int
    area: int
    counts: str
    polygons: _containers.RepeatedCompositeFieldContainer[Polygon]
    def __init__(self, label: _Optional[str] = ..., index: _Optional[int] = ..., area: _Optional[int] = ..., counts: _Optional[str] = ..., polygons: _Optional[_Iterable[_Union[Polygon, _Mapping]]] = ...) -> None: ...

class SegmentResponse(_message.Message):
    __slots__ = ("served", "height", "width", "mask", "counts", "png", "segments")
    SERVED_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    served: Served
    height: int
    width: int
    mask: MaskFormat
    counts: str
    png: bytes
    segments: _containers.RepeatedCompositeFieldContainer[Region]
    def __init__(self, served: _Optional[_Union[Served, _Mapping]] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., mask: _Optional[_Union[MaskFormat, str]] = ..., counts: _Optional[str] = ..., png: _Optional[bytes] = ..., segments: _Optional[_Iterable[_Union[Region, _Mapping]]] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("number", "classify", "detect", "segment")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CLASSIFY_FIELD_NUMBER: _ClassVar[int]
    DETECT_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    number: int
    classify: ClassifyRequest
    detect: DetectRequest
    segment: SegmentRequest
    def __init__(self, number: _Optional[int] = ..., classify: _Optional[_Union[ClassifyRequest, _Mapping]] = ..., detect: _Optional[_Union[DetectRequest, _Mapping]] = ..., segment: _Optional[_Union[SegmentRequest, _Mapping]] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "request_id", "retry_after_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    request_id: str
    retry_after_ms: int
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., request_id: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class FrameAnswer(_message.Message):
    __slots__ = ("number", "classify", "detect", "segment", "error")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CLASSIFY_FIELD_NUMBER: _ClassVar[int]
    DETECT_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    number: int
    classify: ClassifyResponse
    detect: DetectResponse
    segment: SegmentResponse
    error: Error
    def __init__(self, number: _Optional[int] = ..., classify: _Optional[_Union[ClassifyResponse, _Mapping]] = ..., detect: _Optional[_Union[DetectResponse, _Mapping]] = ..., segment: _Optional[_Union[SegmentResponse, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...
