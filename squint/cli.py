"""The command `squint`: what one can type, and how it ends.

Exit codes: 0 done, 1 it failed and said why in one line, 2 wrong usage, 3 gave up after repeated crashes.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import squint
from models.manifest import ManifestError
from service.errors import ConfigError, StartError
from squint.commands import asking, health, keys, loading, models, serve
from squint.errors import Failure

DESCRIPTION = """\
Squint answers classify, detect and segment for images sent over HTTP, and measures the models it serves.

Every flag of `squint serve` is also a variable SQUINT_... and a key of squint.toml; the flag wins over the variable,
the variable over the file. `squint COMMAND --help` explains each."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose error is one line."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """What a command does not know is wrong usage of that command, whose help is named, and not of the whole."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flags = re.findall(r"(?<![\w-])--[a-z][\w-]*", self.format_usage())
            near = difflib.get_close_matches(unknown[0].partition("=")[0], dict.fromkeys(flags), 2, 0.65)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Wrong usage: exit code 2."""
        self.exit(2, f"{self.prog}: {one_line(message)} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """Everything one can type."""
    top = Parser(
        prog="squint",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"squint {squint.__version__}")
    top.add_argument("--traceback", action="store_true", help="show where an error arose, for a bug report")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    serve.add(commands)
    health.add(commands)
    asking.add(commands)
    models.add(commands)
    keys.add(commands)
    loading.add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except (ConfigError, StartError, ManifestError, Failure) as error:
        if options.traceback:
            raise
        return _say(str(error), 2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt:
        return _say("interrupted", 1)
    except BrokenPipeError:
        # Whoever read our output has seen enough; keep the interpreter from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if options.traceback:
            raise
        return _say(f"unexpected {type(error).__name__}: {error} (--traceback before the command shows where)", 1)


def entry() -> NoReturn:
    """For the console script."""
    sys.exit(main())


def one_line(message: str) -> str:
    """A message without line breaks and control characters."""
    return "".join(character if character.isprintable() else " " for character in message)


def _say(message: str, code: int) -> int:
    print(f"squint: {one_line(message)}", file=sys.stderr)
    return code
