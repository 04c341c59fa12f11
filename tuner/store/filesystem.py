"""Whether a SQLite file can live where it is asked to."""

from __future__ import annotations

import psutil
from sqlalchemy.engine import URL

from tuner.errors import ConfigurationError, UnavailableError
from tuner.store.location import sqlite_path

NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smbfs", "smb3", "lustre", "ceph", "glusterfs", "9p", "fuse.sshfs"}
)


def refuse_unusable_path(url: URL) -> None:
    """See that a SQLite file can be made or opened where the URL says.

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
        raise UnavailableError(
            f"storage: cannot create {path}", why=f"the folder {folder} does not exist", fix=f"mkdir -p {folder}"
        )
    filesystem = filesystem_of(str(folder))
    if filesystem in NETWORK_FILESYSTEMS:
        raise ConfigurationError(
            f"storage: {path} is on {filesystem}",
            why="SQLite's locks are unsafe there",
            fix="use PostgreSQL, or a local disk",
        )


def filesystem_of(folder: str) -> str:
    """Type of the file system that holds a folder, such as ``ext4`` or ``nfs4``; empty if unknown."""
    mounts = [part for part in psutil.disk_partitions(all=True) if _is_below(folder, part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype.lower() if mounts else ""


def _is_below(folder: str, mountpoint: str) -> bool:
    root = mountpoint.rstrip("/") + "/"
    return (folder.rstrip("/") + "/").startswith(root)
