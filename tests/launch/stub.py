"""A worker whose ends are known beforehand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tuner.launch import child as module
from tuner.launch import leash
from tuner.launch.command import WorkerCommand

# Stands for ``tuner worker start``: counts its starts, and ends as the file says.
STUB = """
import os, signal, sys, time
folder = os.environ["STUB"]
with open(folder + "/starts", "a") as file:
    file.write("x")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ends = open(folder + "/ends").read().split()
end = ends[min(os.path.getsize(folder + "/starts"), len(ends)) - 1]
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if end == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if end in {"deaf", "long"}:
    open(folder + "/up", "w").close()
    time.sleep(60)
sys.exit(int(end))
"""


class Stub:
    """A worker whose ends are known beforehand."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setenv("STUB", str(folder))
        monkeypatch.setattr(leash, "words", self._words)
        monkeypatch.setattr(module, "_FIRST_PAUSE", 0.01)
        self.command = WorkerCommand(storage="sqlite:///x", password_file=None, files="/files")

    def _words(self, _command: object) -> list[str]:
        return [sys.executable, "-c", STUB]

    def ends(self, *ends: str | int) -> None:
        (self.folder / "ends").write_text(" ".join(str(end) for end in ends), encoding="utf-8")

    @property
    def starts(self) -> int:
        return (self.folder / "starts").stat().st_size

    def is_up(self) -> bool:
        return (self.folder / "up").exists()
