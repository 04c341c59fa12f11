"""Checks of the database: reach, latency, role, schema, clock, protection, connections, contents, workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli.checkup.finding import Finding, Level
from tuner.cli.checkup.machine import check_disk, check_files, check_filesystem
from tuner.errors import ConfigurationError, TunerError, UnavailableError
from tuner.terminal import clean

if TYPE_CHECKING:
    from tuner.store.database import Database


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
    yield check_files(folder, is_shared=path is None)
    yield check_disk("disk", folder)


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
        yield from check_role(database)
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


def check_role(database: Database) -> Iterator[Finding]:
    """What the database's user may do; a file asks nobody who he is."""
    from tuner.store.roles import Duty
    from tuner.store.standing import read_standing

    standing = read_standing(database)
    if standing is None:
        return
    may = {
        Duty.OWNER: "may create and upgrade the tables",
        Duty.WORKER: "may run workers and create studies",
        Duty.VIEWER: "may read: workers need a user that may write",
        None: "may not read tuner's tables",
    }[standing.duty]
    level, fix = Level.OK, ""
    if standing.is_superuser:
        may += ", and do anything else on this server"
        level, fix = Level.WARN, "give workers a user that cannot: tuner db init --roles"
    elif standing.duty is Duty.VIEWER:
        level, fix = Level.WARN, "for workers: the user that tuner db init --roles made for them"
    elif standing.duty is None:
        level, fix = Level.FAIL, "as the owner of the tables: tuner db init --roles"
    yield Finding(name="role", level=level, text=f"{standing.user} {may}", fix=fix, status=78)


def check_connections(database: Database) -> Iterator[Finding]:
    """Whether the server has connections left for more workers; a file needs none."""
    from tuner.store.connections import read_connections

    use = read_connections(database)
    if use is None:
        return
    room = max(0, int(0.9 * use.limit) - use.used)  # threads of a worker that meet take one more for a moment
    text = f"{use.used} of {use.limit} are taken; a worker keeps one, so there is room for {room} more"
    is_scarce = use.used > 0.8 * use.limit
    fix = "run fewer workers, or raise the server's max_connections" if is_scarce else ""
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
