"""Whether a command line, as it stands in a document, is one that the program would accept."""

from __future__ import annotations

import contextlib
import io
import shlex
from collections.abc import Sequence
from typing import Any

from typer.main import get_command

from tuner.cli.app import app

SEPARATORS = frozenset({"|", "||", "&&", "&", ";", ">", ">>", "2>", "<"})


def why_refused(words: Sequence[str]) -> str | None:
    """Why ``tuner WORDS`` cannot be parsed; None if it can. Nothing is run, and files need not exist."""
    command = get_command(app)
    _disarm(command)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = command.main(list(words), prog_name="tuner", standalone_mode=False)
    text = said.getvalue()
    # A document names the reader's files.
    return None if not status or "does not exist" in text else text or f"status {status}"


def tuner_words(line: str) -> list[str] | None:
    """The words after ``tuner`` in one shell line; None where the line calls something else."""
    words = shlex.split(line, comments=True)
    while words and "=" in words[0] and not words[0].startswith("-"):
        words.pop(0)  # VARIABLE=value before the command
    if not words or words[0].rpartition("/")[2] != "tuner":
        return None
    end = next((position for position, word in enumerate(words) if word in SEPARATORS), len(words))
    return words[1:end]


def _disarm(command: Any) -> None:
    """Replace what commands do by nothing; what they accept stays."""
    command.callback = None
    for inner in getattr(command, "commands", {}).values():
        _disarm(inner)
