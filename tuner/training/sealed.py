"""Folders that are whole or not there: a manifest with size and SHA-256 of every file, and one rename that makes them seen."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
WRITING, REMOVING = ".writing-", ".removing-"
"""What the name of a folder begins with before it is there, and when it is no longer."""

_FORMAT = 1


def temporary(path: Path) -> Path:
    """Where to write what will be this folder; nothing is there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f"{WRITING}{path.name}")
    shutil.rmtree(place, ignore_errors=True)
    return place


def seal(folder: Path) -> None:
    """Write the manifest of all files in a folder."""
    write_json(
        folder / MANIFEST,
        {"format": _FORMAT, "files": {file.name: _facts(file) for file in sorted(folder.iterdir())}},
    )


def check_seal(folder: Path) -> frozenset[str]:
    """The names of the files in a folder, all of which are what they were when it was sealed.

    Raises:
        ValueError: If one is not, or the manifest is none.
        OSError: If a file cannot be read, or is missing.
    """
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files")
    if not isinstance(files, dict) or manifest.get("format") != _FORMAT:
        raise ValueError(f"its format {manifest.get('format')} is not {_FORMAT}")
    for name, facts in files.items():
        if _facts(folder / name) != facts:
            raise ValueError(f"{name} is damaged")
    return frozenset(files)


def publish(written: Path, path: Path) -> None:
    """Make a written folder last, then seen; one of the same name, which was damaged, makes way."""
    for file in (*written.iterdir(), written):
        _sync(file)
    if path.exists():
        remove(path)
    written.rename(path)
    _sync(path.parent)


def remove(path: Path) -> None:
    """Remove a folder; nobody sees a part of it."""
    hidden = path.with_name(f"{REMOVING}{path.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        path.rename(hidden)
    except OSError:  # a disk may be too full even for that
        hidden = path
    shutil.rmtree(hidden, ignore_errors=True)


def size_of(*folders: Path) -> int:
    """Bytes of all files in folders."""
    return sum(file.stat().st_size for folder in folders for file in folder.iterdir())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: If it is none.
        OSError: If the file cannot be read.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} is damaged")  # noqa: TRY004 - whatever was read is no JSON object of ours
    return data


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """A JSON file, not yet synced."""
    path.write_text(json.dumps(data, allow_nan=False), encoding="utf-8")


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": file_digest(file, "sha256").hexdigest()}


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
