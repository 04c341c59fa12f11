"""A password that must be nowhere."""

from __future__ import annotations

from pathlib import Path

import psutil


def assert_no_canary(canary: str, *folders: Path, but: tuple[Path, ...] = ()) -> None:
    """No file below the folders holds it, whatever its format, but those that shall; no process shows it."""
    found = [
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path not in but and canary.encode() in path.read_bytes()
    ]
    assert found == []


def showing(canary: str, processes: list[psutil.Process]) -> list[int]:
    """Processes that have it in their arguments or in their environment."""
    shown = []
    for process in processes:
        try:
            if canary in " ".join(process.cmdline()) or canary in str(process.environ()):
                shown.append(process.pid)
        except psutil.Error:
            continue
    return shown
