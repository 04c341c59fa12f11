"""``tuner doctor``: is this machine ready, and what to do where it is not."""

from __future__ import annotations

from typing import Annotated

import typer

from tuner.cli.options import Files, Json, Storage
from tuner.cli.output import colour, emit, line


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
        line(f"{colour(f'{finding.level.value:<4}', shade)}  {finding.name:<12}{finding.text}")
        if finding.fix:
            line(f"      {'':<12}{finding.fix}")
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
