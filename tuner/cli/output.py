"""What is printed: data to stdout, messages to stderr, nothing that could take over a terminal."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import typer

from tuner.terminal import clean

SCHEMA_VERSION = 1
"""Version of every JSON document; raised when a field is removed or changes its meaning."""

ELLIPSIS = "…"
_NUMBER = re.compile(r"-?[0-9][0-9.,]*( ?[a-z%]+)?|-|")


def message(text: str) -> None:
    """A line for people, on stderr."""
    typer.echo(clean(text), err=True)


def line(text: str = "") -> None:
    """A line of data, on stdout."""
    typer.echo(clean(text))


def next_steps(*commands: str, storage: str | None = None) -> None:
    """What to run now, on stderr.

    Args:
        commands: Complete commands.
        storage: The ``--storage`` that this command was given, which the next ones need too; its password is hidden.
    """
    for position, command in enumerate(commands):
        message(f"{'next: ' if position == 0 else '      '}{command}{storage_option(storage)}")


def storage_option(storage: str | None) -> str:
    """The end of a command that needs the same ``--storage``, its password hidden; empty for the default."""
    return "" if storage is None else f" --storage {shlex.quote(without_password(storage))}"


def without_password(url: str) -> str:
    """A URL with ``***`` for its password."""
    head, at, tail = url.rpartition("@")
    scheme, slashes, user = head.partition("://")
    return f"{scheme}{slashes}{user.partition(':')[0]}:***@{tail}" if at and ":" in user else url


def emit(document: Mapping[str, Any], *, compact: bool = False) -> None:
    """A JSON document on stdout, with its ``schema_version``; strict JSON, ASCII only.

    Args:
        document: Its fields; non-finite numbers become null.
        compact: On one line, for streams of documents.
    """
    data = _finite({"schema_version": SCHEMA_VERSION, **document})
    typer.echo(json.dumps(data, allow_nan=False, indent=None if compact else 2))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None) -> list[str]:
    """Aligned columns, two spaces apart; numbers to the right.

    Args:
        headings: One for each column.
        rows: Cells as text.
        width: Columns of the terminal; the widest column is cut until a line fits. None: nothing is cut.
    """
    cells = [[clean(str(cell)).replace("\n", " ").replace("\t", " ") for cell in row] for row in (headings, *rows)]
    widths = [max(_columns(row[column]) for row in cells) for column in range(len(headings))]
    if width is not None:
        while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > 8:
            widths[widths.index(max(widths))] -= 1
    numeric = [all(_is_number(row[column]) for row in cells[1:]) and len(cells) > 1 for column in range(len(headings))]
    return [
        "  ".join(
            _fit(cell, size, right=right) for cell, size, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def _columns(text: str) -> int:
    """Columns that a text takes on a terminal: wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def _fit(text: str, width: int, *, right: bool) -> str:
    if _columns(text) > width:
        while _columns(text) > width - 1:
            text = text[:-1]
        text += ELLIPSIS
    space = " " * (width - _columns(text))
    return space + text if right else text + space


def is_terminal(stream: TextIO) -> bool:
    """Whether a person sits at a stream."""
    return stream.isatty()


def terminal_width() -> int | None:
    """Columns of the terminal, or None when stdout is no terminal (then nothing is cut)."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None


def colour(text: str, name: str) -> str:
    """Text in a colour if stdout is a terminal, unless ``NO_COLOR`` is set."""
    if os.environ.get("NO_COLOR") or not is_terminal(sys.stdout):
        return text
    return typer.style(text, fg=name)
