"""What one check of ``tuner doctor`` found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tuner.errors import TunerError


class Level(Enum):
    """How a check came out."""

    OK = "OK"
    WARN = "WARN"  # tuner works, but look at it
    FAIL = "FAIL"  # something will not work


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        name: One word for the thing.
        text: What is the case.
        fix: What to do; empty if nothing.
        status: Exit status if it fails.
    """

    name: str
    level: Level
    text: str
    fix: str = ""
    status: int = TunerError.exit_code


def exit_status(findings: Sequence[Finding]) -> int:
    """The status of the first failure; 0 if nothing fails."""
    return next((finding.status for finding in findings if finding.level is Level.FAIL), 0)
