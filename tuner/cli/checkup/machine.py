"""Checks of this machine: Python, the libraries, the environment, cores and memory, disks."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import stat
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from tuner import __version__
from tuner.cli.checkup.finding import Finding, Level
from tuner.errors import UnavailableError

LIBRARIES = ("torch", "transformers", "peft", "optuna", "optuna-dashboard", "sqlalchemy", "plotly")
_GIB = 2**30
_DESCRIPTORS = 256
_CGROUP = Path("/sys/fs/cgroup")
_SECRETS = ("PGPASSWORD", "MYSQL_PWD")
_PASSWORD_FILE = "TUNER_STORAGE_PASSWORD_FILE"  # noqa: S105 - the name of a path


def check_python() -> Finding:
    """Which tuner and which Python run."""
    text = f"tuner {__version__} on Python {platform.python_version()} ({sys.executable})"
    return Finding(name="python", level=Level.OK, text=text)


def check_libraries() -> Iterator[Finding]:
    """Which versions of the libraries are installed; nothing is imported."""
    present, missing = [], []
    for name in LIBRARIES:
        try:
            present.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding(name="libraries", level=Level.OK, text=", ".join(present))
    if missing:
        fix = f"pip install {' '.join(missing)}"
        yield Finding(name="libraries", level=Level.FAIL, text=f"missing: {', '.join(missing)}", fix=fix, status=78)


def check_environment() -> Iterator[Finding]:
    """What the environment says to tuner; never the text of a URL, which may hold a password."""
    said = sorted(name for name in os.environ if name.startswith("TUNER_"))
    yield Finding(
        name="environment", level=Level.OK, text=f"set: {', '.join(said)}" if said else "nothing is set for tuner"
    )
    for name in _SECRETS:
        if os.environ.get(name):
            yield Finding(
                name="environment",
                level=Level.WARN,
                text=f"the database password is in {name}, which every program that you start inherits",
                fix=f"put it into a file that only you can read and name that with {_PASSWORD_FILE}",
            )
    if file := os.environ.get(_PASSWORD_FILE):
        yield from check_password_file(Path(file))
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors < _DESCRIPTORS:
        yield Finding(
            name="environment",
            level=Level.WARN,
            text=f"a process may open {descriptors} files",
            fix=f"ulimit -n 1024; a worker with a few slots needs {_DESCRIPTORS}",
        )


def check_password_file(file: Path) -> Iterator[Finding]:
    """Whether everybody may read the password; containers mount secrets so, in a folder that is theirs alone."""
    try:
        mode = file.stat().st_mode
    except OSError as error:
        yield Finding(
            name="password",
            level=Level.FAIL,
            text=f"{file} cannot be read: {error.strerror}",
            fix=f"make it, or name another one with {_PASSWORD_FILE}",
            status=78,
        )
        return
    if mode & stat.S_IROTH and not file.is_relative_to("/run/secrets"):
        text = f"everybody on this machine may read {file}"
        yield Finding(name="password", level=Level.WARN, text=text, fix=f"chmod 600 {file}")


def check_machine() -> Finding:
    """Cores and memory, as far as a container may use them."""
    import psutil

    memory = psutil.virtual_memory()
    free, total = memory.available, memory.total
    limit, used = _cgroup_number("memory.max"), _cgroup_number("memory.current")
    if limit is not None and limit < total:
        free, total = max(0, min(free, limit - (used or 0))), limit
    text = f"{_cores():g} cores, {free / _GIB:.1f} of {total / _GIB:.1f} GiB memory free"
    if free < 2 * _GIB:
        return Finding(
            name="memory", level=Level.WARN, text=text, fix="close programs; a worker needs 1 to 2 GiB a slot"
        )
    return Finding(name="machine", level=Level.OK, text=text)


def _cores() -> float:
    """Cores that this process may use at once: those of its affinity, or the share that its container has of them."""
    cores = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = (_CGROUP / "cpu.max").read_text(encoding="ascii").split()
        return min(cores, round(int(quota) / int(period), 1))
    except (OSError, ValueError):  # no cgroup of version 2, or "max": no limit
        return cores


def _cgroup_number(name: str) -> int | None:
    try:
        return int((_CGROUP / name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def check_filesystem(path: Path) -> Finding:
    """Whether SQLite's locks are safe where the file is."""
    from tuner.store.filesystem import NETWORK_FILESYSTEMS, filesystem_of

    folder = path.absolute().parent
    if not folder.is_dir():
        fix = f"mkdir -p {folder}"
        return Finding(name="filesystem", level=Level.FAIL, text=f"{folder} does not exist", fix=fix, status=69)
    kind = filesystem_of(str(folder)) or "an unknown file system"
    if kind in NETWORK_FILESYSTEMS:
        fix = "use PostgreSQL, or a local disk"
        return Finding(name="filesystem", level=Level.FAIL, text=f"{folder} is on {kind}", fix=fix, status=78)
    if not os.access(folder, os.W_OK):
        fix = f"choose another folder, or: chmod u+w {folder}"
        return Finding(name="filesystem", level=Level.FAIL, text=f"{folder} cannot be written to", fix=fix, status=69)
    return Finding(name="filesystem", level=Level.OK, text=f"{folder} is on {kind}")


def check_files(folder: Path, *, is_shared: bool) -> Finding:
    """The folder for files: whether it can be written to, and who else sees it.

    Args:
        folder: It need not exist yet.
        is_shared: Whether workers of other machines may use the same database.
    """
    from tuner.store.filesystem import NETWORK_FILESYSTEMS, filesystem_of

    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            name="files",
            level=Level.FAIL,
            text=f"{existing} is no folder that can be written to",
            fix="choose another one with --files",
            status=UnavailableError.exit_code,
        )
    kind = filesystem_of(str(existing.resolve())) or "an unknown file system"
    text = f"{folder} is on {kind}"
    if is_shared and kind not in NETWORK_FILESYSTEMS:
        text += "; workers elsewhere go on with a trial of this machine only if they see the same folder"
    return Finding(name="files", level=Level.OK, text=text)


def check_disk(name: str, folder: Path) -> Finding:
    """Free space for checkpoints and caches."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / _GIB
    text = f"{free:.1f} GiB free for checkpoints in {folder}"
    fix = "make room, or choose another folder with --files"
    if free < 1.0:
        return Finding(name=name, level=Level.FAIL, text=text, fix=fix, status=UnavailableError.exit_code)
    if free < 10.0:
        return Finding(name=name, level=Level.WARN, text=text, fix=fix)
    return Finding(name=name, level=Level.OK, text=text)
