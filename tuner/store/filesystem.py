"""Whether a SQLite file can live where it is asked to."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
from sqlalchemy.engine import URL

from tuner.errors import ConfigurationError, UnavailableError
from tuner.store.location import sqlite_path

NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smbfs", "smb3", "lustre", "ceph", "glusterfs", "9p", "fuse.sshfs"}
)

_BESIDE = ("-wal", "-shm", "-journal")  # what SQLite writes beside its file, all of them also while it only reads


def refuse_unusable_path(url: URL, *, create: bool) -> None:
    """See that a SQLite file can be made or opened where the URL says.

    Args:
        url: Of SQLite.
        create: Whether the file is to be made where it is missing.

    Raises:
        ConfigurationError: If the path is a folder, or on a network file system.
        UnavailableError: If its folder does not exist.
    """
    path = sqlite_path(url)
    assert path is not None
    if path.is_dir():
        raise ConfigurationError(f"storage: {path} is a folder", fix=f"name a file, such as sqlite:///{path}/tuner.db")
    folder = path.absolute().parent
    if not folder.is_dir():
        why = f"the folder {folder} does not exist"
        if not create:
            raise UnavailableError(
                f"no database at {path}", why=why, fix="name another with --storage or TUNER_STORAGE"
            )
        raise UnavailableError(f"storage: cannot create {path}", why=why, fix=f"mkdir -p {folder}")
    filesystem = filesystem_of(str(folder))
    if filesystem in NETWORK_FILESYSTEMS:
        raise ConfigurationError(
            f"storage: {path} is on {filesystem}",
            why="SQLite's locks are unsafe there",
            fix="use PostgreSQL, or a local disk",
        )


def why_refused(path: Path) -> tuple[str, str]:
    """Why SQLite refuses a file that is on a disk of this machine, and what to do.

    Args:
        path: The file, which need not be there.

    Returns:
        The reason and the next step; both empty where none is found.
    """
    folder = path.absolute().parent
    for end in _BESIDE:
        if Path(f"{path}{end}").is_dir():
            return f"{path}{end} is a folder, and SQLite writes a file of that name", "rename the folder"
    elsewhere = (
        "or copy the file elsewhere and name it with --storage"
        if path.exists()
        else "or name another file with --storage"
    )
    if not os.access(folder, os.W_OK | os.X_OK):
        why = f"the folder {folder} cannot be written to, and SQLite writes beside its file, also to read it"
        return why, f"see: ls -ld {folder}, {elsewhere}"
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return "the file cannot be read and written by this user", f"see: ls -l {path}, {elsewhere}"
    return "", ""


def filesystem_of(folder: str) -> str:
    """Type of the file system that holds a folder, such as ``ext4`` or ``nfs4``; empty if unknown."""
    mounts = [part for part in psutil.disk_partitions(all=True) if _is_below(folder, part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype.lower() if mounts else ""


def _is_below(folder: str, mountpoint: str) -> bool:
    root = mountpoint.rstrip("/") + "/"
    return (folder.rstrip("/") + "/").startswith(root)
