"""The checks behind ``tuner doctor``; each looks at one thing and says how to mend it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner import __version__
from tuner.errors import ConfigurationError, TunerError, UnavailableError
from tuner.terminal import clean

if TYPE_CHECKING:
    from tuner.store.database import Database

LIBRARIES = ("torch", "transformers", "peft", "optuna", "optuna-dashboard", "sqlalchemy", "plotly")
_GIB = 2**30
_TORCH_SECONDS = 180
_TORCH = """
import json, torch
facts = {"version": torch.__version__, "cuda": torch.version.cuda, "gpus": []}
for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    free, total = torch.cuda.mem_get_info(index)
    torch.ones(8, device=f"cuda:{index}").sum().item()
    facts["gpus"].append({"name": torch.cuda.get_device_name(index), "free": free, "total": total,
                          "bf16": torch.cuda.is_bf16_supported()})
print(json.dumps(facts))
"""


class Level(Enum):
    """How a check came out."""

    OK = "OK"
    WARN = "WARN"  # tuner works, but look at it
    FAIL = "FAIL"  # something will not work


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        name: One word for the thing.
        text: What is the case.
        fix: What to do; empty if nothing.
        status: Exit status if it fails.
    """

    name: str
    level: Level
    text: str
    fix: str = ""
    status: int = TunerError.exit_code


def exit_status(findings: Sequence[Finding]) -> int:
    """The status of the first failure; 0 if nothing fails."""
    return next((finding.status for finding in findings if finding.level is Level.FAIL), 0)


def find_all(*, storage: str | None, files: Path | None, with_torch: bool) -> Iterator[Finding]:
    """Run all checks, the quick ones first."""
    yield check_python()
    yield from check_libraries()
    yield check_machine()
    yield from check_storage(storage, files=files)
    if with_torch:
        yield from check_torch()


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


def check_machine() -> Finding:
    """Cores and memory."""
    import psutil

    memory = psutil.virtual_memory()
    text = f"{len(os.sched_getaffinity(0))} cores, {memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB memory free"
    if memory.available < 2 * _GIB:
        return Finding(
            name="memory", level=Level.WARN, text=text, fix="close programs; a worker needs 1 to 2 GiB a slot"
        )
    return Finding(name="machine", level=Level.OK, text=text)


def check_storage(option: str | None, *, files: Path | None) -> Iterator[Finding]:
    """The database: where it is, whether it answers, how fast, with which schema and clock; then the disks."""
    from tuner.store import location
    from tuner.store.database import Database

    text = location.storage_url(option)
    try:
        url = location.parse_url(text)
        path = location.sqlite_path(url)
        folder = location.files_dir(files, text)
        database = Database(url, read_only=True)
    except ConfigurationError as error:
        yield Finding(name="database", level=Level.FAIL, text=error.what, fix=error.fix, status=error.exit_code)
        return
    if path is not None:
        yield check_filesystem(path)
    with database:
        if path is not None and not path.exists():
            yield Finding(
                name="database",
                level=Level.WARN,
                text=f"there is none at {path} yet",
                fix="tuner study create FILE makes it",
            )
        else:
            yield from check_database(database)
    yield check_disk("disk", folder)


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


def check_database(database: Database) -> Iterator[Finding]:
    """Reach, latency, schema and clock."""
    from tuner.store import schema
    from tuner.store.clock import read_clock

    try:
        read_clock(database)  # the first connection costs more than the later ones
        begin, wall = time.perf_counter(), time.time()
        offset = read_clock(database) - wall
        seconds = time.perf_counter() - begin
        offset -= seconds / 2
    except TunerError as error:
        yield Finding(
            name="database",
            level=Level.FAIL,
            text=clean(str(error)),
            fix="is the server up, and the URL right?",
            status=UnavailableError.exit_code,
        )
        return
    slow = seconds > 0.1
    yield Finding(
        name="database",
        level=Level.WARN if slow else Level.OK,
        text=f"{database.safe_url} answers in {1000 * seconds:.1f} ms",
        fix="a worker asks several times an epoch; run it nearer to the database" if slow else "",
    )
    try:
        state = schema.require_current(database)
    except ConfigurationError as error:
        yield Finding(name="schema", level=Level.FAIL, text=error.what, fix=error.fix, status=error.exit_code)
    else:
        yield Finding(name="schema", level=Level.OK, text=f"tuner {state.tuner}, Optuna {state.optuna}")
        yield from check_workers(database)
        yield check_contents(database)
    yield check_clock(offset)
    yield check_encryption(database)
    yield from check_connections(database)


def check_encryption(database: Database) -> Finding:
    """Whether the connection can be read or changed on its way; what stays on this machine cannot."""
    from tuner.store.encryption import read_encryption

    encryption = read_encryption(database)
    level = Level.WARN if encryption.advice else Level.OK
    return Finding(name="connection", level=level, text=str(encryption), fix=encryption.advice)


def check_connections(database: Database) -> Iterator[Finding]:
    """Whether the server has connections left for more workers; a file needs none."""
    from tuner.store.connections import read_connections

    use = read_connections(database)
    if use is None:
        return
    is_scarce = use.used > 0.8 * use.limit
    fix = "run fewer workers, or raise the server's max_connections" if is_scarce else ""
    text = f"{use.used} of {use.limit} are taken; a worker keeps one"
    yield Finding(name="connections", level=Level.WARN if is_scarce else Level.OK, text=text, fix=fix)


def check_contents(database: Database) -> Finding:
    """Whether what is stored agrees with itself, and no trial is stuck."""
    from tuner.store.checks import find_problems

    problems = find_problems(database)
    if not problems:
        return Finding(name="contents", level=Level.OK, text="all rows agree, no trial is stuck")
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    return Finding(
        name="contents",
        level=Level.WARN,
        text=f"{problems[0].text}{more}",
        fix="tuner db check, then tuner db check --fix",
    )


def check_clock(offset: float) -> Finding:
    """Whether this machine's clock agrees with the database's, which alone decides about leases."""
    text = f"{abs(offset):.1f} s {'behind' if offset > 0 else 'ahead of'} the database's clock"
    if abs(offset) > 5.0:
        fix = "set the clock; times in logs and in the database will not agree (leases do not depend on it)"
        return Finding(name="clock", level=Level.WARN, text=text, fix=fix)
    return Finding(name="clock", level=Level.OK, text=text)


def check_workers(database: Database) -> Iterator[Finding]:
    """Workers that are alive, and those that went silent."""
    from tuner.store import queries

    workers = queries.list_workers(database)
    alive = sum(worker.is_alive for worker in workers)
    silent = [worker.worker for worker in workers if not worker.is_alive]
    if silent:
        yield Finding(
            name="workers",
            level=Level.WARN,
            text=f"{alive} alive, {len(silent)} silent: {', '.join(silent[:3])}{' …' if len(silent) > 3 else ''}",
            fix="their trials go on as soon as a worker is free: tuner worker start",
        )
    else:
        yield Finding(name="workers", level=Level.OK, text=f"{alive} alive")


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


def check_torch() -> Iterator[Finding]:
    """PyTorch and the GPUs, seen by a process of its own: this one never imports torch."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _TORCH],
            capture_output=True,
            text=True,
            timeout=_TORCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        text = f"PyTorch did not answer within {_TORCH_SECONDS} s"
        yield Finding(name="torch", level=Level.FAIL, text=text, fix="look at the GPU: nvidia-smi", status=69)
        return
    if done.returncode != 0:
        lines = clean(done.stderr).strip().splitlines()
        text = f"PyTorch does not work: {lines[-1] if lines else f'status {done.returncode}'}"
        yield Finding(name="torch", level=Level.FAIL, text=text, fix="pip install --force-reinstall torch", status=69)
        return
    yield from torch_findings(json.loads(done.stdout.splitlines()[-1]))


def torch_findings(facts: dict[str, Any]) -> Iterator[Finding]:
    """What the process with torch saw, in words."""
    if not facts["gpus"]:
        text = f"torch {facts['version']} sees no GPU: trials run on the CPU"
        fix = "on a GPU box look at nvidia-smi and CUDA_VISIBLE_DEVICES"
        if not facts["cuda"]:
            fix = "on a GPU box install a CUDA build of torch"
        yield Finding(name="gpu", level=Level.WARN, text=text, fix=fix)
        return
    for index, gpu in enumerate(facts["gpus"]):
        text = f"cuda:{index} {gpu['name']}, {gpu['free'] / _GIB:.1f} of {gpu['total'] / _GIB:.1f} GiB free"
        text += ", bf16" if gpu["bf16"] else ", no bf16"
        if gpu["free"] < 0.5 * gpu["total"]:
            yield Finding(name="gpu", level=Level.WARN, text=text, fix="another program uses it: nvidia-smi")
        else:
            yield Finding(name="gpu", level=Level.OK, text=text)
