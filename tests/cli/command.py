"""The command line in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def tuner(
    *words: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: str = "", timeout: float = 240.0
) -> subprocess.CompletedProcess[str]:
    """Run ``tuner WORDS`` and wait for it."""
    return subprocess.run(
        [sys.executable, "-m", "tuner", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **(env or {})},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
