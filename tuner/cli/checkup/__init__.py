"""The checks behind ``tuner doctor``; each looks at one thing and says how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuner.cli.checkup.database import check_storage
from tuner.cli.checkup.finding import Finding, Level, exit_status
from tuner.cli.checkup.gpu import check_torch
from tuner.cli.checkup.machine import check_environment, check_libraries, check_machine, check_python
from tuner.cli.checkup.places import check_checkpoints

__all__ = ["Finding", "Level", "exit_status", "find_all"]


def find_all(*, storage: str | None, files: Path | None, with_torch: bool) -> Iterator[Finding]:
    """Run all checks, the quick ones first."""
    yield check_python()
    yield from check_libraries()
    yield from check_environment()
    yield check_machine()
    yield from check_storage(storage, files=files)
    yield from check_checkpoints()
    if with_torch:
        yield from check_torch()
