"""``tuner doctor``: is this machine ready, and what to do where it is not."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from tuner.cli.options import Files, Json, Storage
from tuner.cli.output import colour, emit, line

_TEXT_COLUMNS = 62


def examine(
    *,
    storage: Storage = None,
    files: Files = None,
    skip_torch: Annotated[bool, typer.Option("--skip-torch", help="do not look at PyTorch and the GPUs")] = False,
    as_json: Json = False,
) -> None:
    """Look at Python, the libraries, the GPUs, the database, the disks and the clocks, and say how to mend them.

    The status is that of the worst finding: 0 unless something fails.

    \b
    Examples:
      tuner doctor
      tuner doctor --storage postgresql://tuner@db/tuner --json
    """
    from tuner.cli.checkup import Level, exit_status, find_all

    findings = []
    for finding in find_all(storage=storage, files=files, with_torch=not skip_torch):
        findings.append(finding)
        if as_json:
            continue
        shade = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}[finding.level]
        first, *more = textwrap.wrap(finding.text, width=_TEXT_COLUMNS) or [""]
        line(f"{colour(f'{finding.level.value:<4}', shade)}  {finding.name:<12}{first}")
        for text in (*more, *textwrap.wrap(finding.fix, width=_TEXT_COLUMNS)):
            line(f"{'':<18}{text}")
    status = exit_status(findings)
    if as_json:
        emit(
            {
                "status": status,
                "checks": [
                    {"name": item.name, "level": item.level.value, "text": item.text, "fix": item.fix}
                    for item in findings
                ],
            }
        )
    raise typer.Exit(status)
