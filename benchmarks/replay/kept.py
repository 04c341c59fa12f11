"""Results of single runs in a folder, so that nothing is run twice and what was broken off goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import scipy  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[2]

_AROUND = {"comparison.py", "kept.py", "statistics.py"}
"""What is made of results, not part of any."""


class KeptCells:
    """One file for each run, named by the digest of everything that its result depends on."""

    def __init__(self, folder: Path | None) -> None:
        """Nothing is read yet.

        Args:
            folder: Made if it is not there; None keeps nothing.
        """
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def find(self, what: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result of a run, if it was kept."""
        path = self._path(what)
        if path is None or not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["cell"]
        return found

    def keep(self, what: Mapping[str, Any], cell: Mapping[str, Any]) -> None:
        """Write a result; whole or not at all."""
        path = self._path(what)
        if path is None:
            return
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"what": what, "cell": cell}), encoding="utf-8")
        part.rename(path)

    def _path(self, what: Mapping[str, Any]) -> Path | None:
        if self._folder is None:
            return None
        text = json.dumps(what, sort_keys=True)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def digest_of_file(path: Path) -> str:
    """What is in a file, in 16 digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@cache
def digest_of_code(*, ours: bool) -> str:
    """The code that a run goes through, and the libraries below it.

    Args:
        ours: Whether our judgement is part of it.
    """
    folders = [ROOT / "benchmarks" / "replay", *([ROOT / "tuner" / "search", ROOT / "tuner" / "study"] if ours else [])]
    files = [file for folder in folders for file in sorted(folder.glob("*.py")) if file.name not in _AROUND]
    parts = [digest_of_file(file) for file in files] + [optuna.__version__, np.__version__, scipy.__version__]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
