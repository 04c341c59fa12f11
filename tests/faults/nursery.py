"""Workers by the hundred: one process that has loaded everything forks a real supervisor for each line it is told.

A supervisor needs two seconds to load its libraries; a fork needs none. Told ``{"options": …, "failpoint": …}`` on its standard
input, it answers with the child's pid. When the input closes it kills its children and ends.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy.engine import Connection

from tests.faults.toy_training import DIES_BEFORE_RENAME
from tuner.search.driver import StudyDriver
from tuner.store import events, leases, workers
from tuner.store.records import Outcome
from tuner.worker import slot
from tuner.worker.events import EpochReported, Event, RunClaimed, RunEnded
from tuner.worker.options import WorkerOptions
from tuner.worker.slot import Slot
from tuner.worker.supervisor import run_worker


class Ledger:
    """A display that writes down what a worker was acknowledged, each line on the disk before the worker goes on."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def show(self, event: Event) -> None:
        if isinstance(event, RunClaimed | EpochReported | RunEnded):
            self.write({"event": type(event).__name__, **asdict(event)})

    def write(self, line: Mapping[str, Any]) -> None:
        """One line, on the disk."""
        words = {"pid": os.getpid(), "at": now(), **line}
        os.write(self._file, json.dumps(words, default=lambda value: value.value).encode() + b"\n")
        os.fsync(self._file)

    def close(self) -> None:
        pass


_real_time = time.time


def now() -> float:
    """Seconds since 1970, as the databases of this machine see them too."""
    return _real_time()


def die() -> NoReturn:
    """As the kernel's memory killer would have it."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def after_claim() -> None:
    """Claimed, and nothing else: no values proposed, no beat."""
    real = leases.claim

    def claim(*arguments: Any, **options: Any) -> Any:
        lease = real(*arguments, **options)
        return lease if lease is None else die()

    leases.claim = claim


def before_first_beat() -> None:
    """Claimed and proposed; the runner was told nothing yet."""
    Slot.send = lambda *_: die()  # type: ignore[method-assign]


def before_finish_commit() -> None:
    """Inside the transaction that ends a run."""
    real = events.record

    def record(tx: Connection, kind: str, *arguments: Any, **options: Any) -> None:
        real(tx, kind, *arguments, **options)
        if kind in ("run_complete", "run_pruned"):
            die()

    events.record = record


def after_finish_commit() -> None:
    """The end of a run is stored, and nobody has heard of it."""
    real = leases.finish

    def finish(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        die()

    leases.finish = finish


def before_checkpoint_rename() -> None:
    """A checkpoint is written, and does not have its name yet."""
    os.environ[DIES_BEFORE_RENAME] = "1"


def jumping_clock() -> None:
    """The host's clock is an hour off, now this way, now that way."""
    time.time = lambda: now() + random.choice((-3600.0, 0.0, 3600.0))


def hurried_starts() -> None:
    """A runner that does not come up is tried again after a tenth of the usual time."""
    slot._FIRST_BACKOFF = 0.1


def during_proposal() -> None:
    """The sampler has proposed, the values are not bound."""
    real = StudyDriver._propose

    def propose(driver: StudyDriver, lease: leases.Lease) -> Any:
        real(driver, lease)
        die()

    StudyDriver._propose = propose  # type: ignore[method-assign, assignment]


FAILPOINTS: dict[str, Callable[[], None]] = {
    name.__name__: name
    for name in (
        after_claim,
        during_proposal,
        before_first_beat,
        before_checkpoint_rename,
        before_finish_commit,
        after_finish_commit,
    )
}
ODDITIES: dict[str, Callable[[], None]] = {name.__name__: name for name in (jumping_clock, hurried_starts)}
FINISHED = (Outcome.COMPLETE, Outcome.PRUNED)


def _work(told: dict[str, Any]) -> None:
    """Be one worker, to the end."""
    if told["failpoint"]:
        (FAILPOINTS | ODDITIES)[told["failpoint"]]()
    os.environ.update(told["environment"])
    time.tzset()
    if told["other_box"]:  # nobody can see from outside whether this process lives: its lease must run out
        real = workers.Identity.of_this_process
        workers.Identity.of_this_process = lambda worker: replace(real(worker), boot=uuid.uuid4().hex)  # type: ignore[method-assign]
    options = {**told["options"], "files": Path(told["options"]["files"]), "studies": tuple(told["options"]["studies"])}
    run_worker(WorkerOptions(**options), display=Ledger(Path(told["ledger"])))


def _fork(told: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    log = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (0, 1, 2):
        os.dup2(log if stream else os.open(os.devnull, os.O_RDONLY), stream)
    status = 1
    try:
        _work(told)
        status = 0
    except BaseException as error:  # noqa: BLE001 - the log is all that is left of it
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        Ledger(Path(told["ledger"])).write({"event": "Exited", "status": status})
        os._exit(status)


def main() -> None:
    """Fork for every line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children that end leave no trace
    children = []
    for line in sys.stdin:
        children.append(_fork(json.loads(line)))
        os.write(1, f"{children[-1]}\n".encode())
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
