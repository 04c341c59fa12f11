"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        show_default=False,
        help="database; else TUNER_STORAGE, else sqlite:///tuner.db",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON as described in docs/json.md")]
Files = Annotated[
    Path | None,
    typer.Option(
        "--files",
        metavar="DIR",
        show_default=False,
        help="folder for logs, caches and checkpoints; else TUNER_FILES, else tuner-files beside the database",
    ),
]
Checkpoints = Annotated[
    str | None,
    typer.Option(
        "--checkpoints",
        metavar="PLACE",
        show_default=False,
        help="folder or URL (s3://, gs://) for checkpoints; else TUNER_CHECKPOINTS, else in --files",
    ),
]
StudyName = Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="the study")]
StudyFile = Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="the study file (YAML)")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", show_default=False, help="why, for the others")]
UntilDone = Annotated[bool, typer.Option("--until-done", help="return when the study is finished, paused or stopped")]
