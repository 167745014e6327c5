"""What a trial is asked and what it answers; see measure.py."""

from __future__ import annotations

import msgspec

from service.wire.messages.worker import Timing


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to try: a model's directory, a variant, the number of engines, where compiled models are kept, and whether
    to measure speed besides agreement. To `rehearse` is only to load it and run every level once. `device` is where.
    `wide`: it is to be loaded for wide runs; when speed is measured, whether that pays is found out."""

    directory: str
    variant: str
    engines: int
    cache_dir: str
    speed: bool
    rehearse: bool = False
    device: str = "cpu"
    wide: bool = False


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What came of it. `refused` says in a few words why the variant cannot be used; empty when it can.

    `transient` says that another try may end otherwise, `share` and `score` are the agreement with the reference,
    `images_per_second` the best of all batch sizes with all engines busy, `timings` one profile per level that is
    offered, highest first; `left_out` says of each other level why it is not.
    """

    variant: str
    refused: str = ""
    transient: bool = False
    share: float = 0.0
    score: float = 0.0
    load_seconds: float = 0.0
    images_per_second: float = 0.0
    timings: tuple[Timing, ...] = ()
    left_out: dict[str, str] = {}
