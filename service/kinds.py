"""What a setting is: its names, and what kinds of values settings take.

A setting `max-body-mb` is the flag `--max-body-mb`, the variable `SQUINT_MAX_BODY_MB` and the key `max_body_mb` of
`squint.toml`; no name is written twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_SWITCH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Kind:
    """What values a setting takes. `parse` raises ValueError for any other; `types` are those of its TOML values."""

    types: tuple[type, ...] = (str,)
    accepted: str = ""
    metavar: str = "TEXT"

    def parse(self, text: str) -> Any:
        """The value that `text` stands for."""
        raise NotImplementedError

    def show(self, value: Any) -> str:
        """The text that stands for `value`."""
        return str(value)


class Whole(Kind):
    """A whole number."""

    types = (int,)
    metavar = "N"

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.accepted = f"a whole number from {low} to {high}"

    def parse(self, text: str) -> int:
        """Plain decimal digits; no underscores, no other scripts."""
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not self.low <= int(text) <= self.high:
            raise ValueError(text)
        return int(text)


class Real(Kind):
    """A number. With `unit` it is given in that unit and kept as a whole number: megabytes as bytes."""

    types = (int, float)
    metavar = "X"

    def __init__(self, low: float, high: float, unit: int | None = None) -> None:
        self.low, self.high, self.unit = low, high, unit
        self.accepted = f"a number from {low:g} to {high:g}"

    def parse(self, text: str) -> float:
        """Compares false, and so refuses, what is no finite number."""
        value = float(text)
        if not self.low <= value <= self.high:
            raise ValueError(text)
        return value if self.unit is None else round(value * self.unit)

    def show(self, value: float) -> str:
        """In the unit in which it is given."""
        return f"{value / (self.unit or 1):g}"


class Port(Kind):
    """A TCP port, or none."""

    types = (int, str)
    metavar = "N"
    accepted = "a whole number from 0 to 65535, or off"

    def parse(self, text: str) -> int | None:
        """None for off."""
        return None if text == "off" else Whole(0, 65535).parse(text)

    def show(self, value: int | None) -> str:
        """As it is given."""
        return "off" if value is None else str(value)


class Choice(Kind):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.metavar = "{" + ",".join(words) + "}"
        self.accepted = f"one of {', '.join(words)}"

    def parse(self, text: str) -> str:
        """The word itself."""
        if text not in self.words:
            raise ValueError(text)
        return text


class Switch(Kind):
    """On or off. As a flag it stands alone and means on."""

    types = (bool,)
    accepted = "true or false"

    def parse(self, text: str) -> bool:
        """What people write for yes and no in variables."""
        if text.lower() not in _SWITCH:
            raise ValueError(text)
        return _SWITCH[text.lower()]

    def show(self, value: bool) -> str:
        """As in TOML."""
        return "true" if value else "false"


class Text(Kind):
    """Free text of a given form."""

    def __init__(self, accepted: str, pattern: str = r"[^\x00-\x1f]+", metavar: str = "TEXT") -> None:
        self.accepted = accepted
        self.metavar = metavar
        self.pattern = pattern

    def parse(self, text: str) -> str:
        """The text itself."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError(text)
        return text


class Several(Kind):
    """A list of texts: the flag is given several times, the variable holds them joined by `separator`."""

    types = (list, str)

    def __init__(self, item: Text, separator: str) -> None:
        self.item = item
        self.separator = separator
        self.metavar = item.metavar
        self.accepted = f"{item.accepted}; several in a variable joined by {separator!r}"

    def parse(self, text: str) -> tuple[str, ...]:
        """Every item of a joined text."""
        return tuple(self.item.parse(part) for part in text.split(self.separator) if part)

    def show(self, value: tuple[str, ...]) -> str:
        """As in a variable."""
        return self.separator.join(value)


class Devices(Kind):
    """The CPU, or GPUs by number, joined by commas."""

    accepted = "cpu, or GPUs such as cuda:0 or cuda:0,cuda:1"
    metavar = "DEVICES"

    def parse(self, text: str) -> tuple[str, ...]:
        """Each device once."""
        found = tuple(text.split(","))
        gpus = all(re.fullmatch(r"cuda:[0-9]{1,2}", one) for one in found)
        if found != ("cpu",) and not (gpus and len(set(found)) == len(found)):
            raise ValueError(text)
        return found

    def show(self, value: tuple[str, ...]) -> str:
        """As it is given."""
        return ",".join(value)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `field` names the field of Config (or, after `limits.`, of Limits) that it fills; `default` is
    words for a default that depends on the machine."""

    name: str
    field: str
    kind: Kind
    why: str
    default: str = ""

    @property
    def flag(self) -> str:
        """As an argument of `squint serve`."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """As a variable of the environment."""
        return f"SQUINT_{self.key.upper()}"

    @property
    def key(self) -> str:
        """As a key of `squint.toml`."""
        return self.name.replace("-", "_")
