"""Disks of a few megabytes that are really full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_FILLING = "filling"


@contextmanager
def small_disk(folder: Path, *, size: int) -> Iterator[Path]:
    """A file system in memory with so many bytes; the test is skipped where nobody may mount, and fails under CI."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tuner-test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        message = f"no file system of its own: {done.stderr.strip()}"
        if os.environ.get("TUNER_CI"):
            pytest.fail(f"{message}, and CI skips nothing")
        pytest.skip(message)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, *, leave: int) -> None:
    """Take all room of a disk but so many bytes."""
    facts = os.statvfs(folder)
    size = max(facts.f_bavail * facts.f_frsize - leave, 0)
    with (folder / _FILLING).open("ab") as file:
        os.posix_fallocate(file.fileno(), file.tell(), size)


def make_room(folder: Path) -> None:
    """Give it back."""
    (folder / _FILLING).unlink(missing_ok=True)
