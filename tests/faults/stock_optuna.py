"""The same faults for Optuna as it comes: its own storage, heartbeat and retry callback, no code of ours around it.

``python -m tests.faults.stock_optuna`` takes a few minutes and keeps what it finds beside the suite's own figures; numbers of rows
after it choose some. Every arm is
given what Optuna's documentation recommends for it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import MaxTrialsCallback
from optuna.study import _optimize as optimize_module
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

from tests.faults.figures import read_file, write_file
from tests.postgres import PostgresServer, running_server

BEAT, GRACE = 1, 3
WORKERS, EPOCHS, EPOCH_SECONDS = 6, 4, 0.15
KILLS = 60
_FORK = multiprocessing.get_context("fork")  # what is imported once need not be imported by each of a hundred workers


def storage(url: str, *, beats: bool = True) -> RDBStorage:
    """Optuna's own, with its heartbeat and its retries."""
    if not beats:
        return RDBStorage(url)
    callback = RetryHeartbeatStaleTrialCallback()
    return RDBStorage(url, heartbeat_interval=BEAT, grace_period=GRACE, heartbeat_stale_trial_callback=callback)


def objective(trial: optuna.Trial) -> float:
    """The toy of our own suite."""
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    for epoch in range(EPOCHS):
        time.sleep(random.uniform(0.5, 1.5) * EPOCH_SECONDS)
        trial.report(rate * epoch, epoch)
    return rate


def work(url: str, trials: int) -> None:
    """A worker until there are so many finished trials; it lives on after any exception of a trial."""
    study = optuna.load_study(study_name="s", storage=storage(url))
    study.optimize(objective, callbacks=[MaxTrialsCallback(trials)], catch=(Exception,))


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A worker of its own."""
    process = _FORK.Process(target=_quietly, args=(target, *arguments))
    process.start()
    return process


def _quietly(target: Callable[..., None], *arguments: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    random.seed()
    target(*arguments)


def states(url: str) -> dict[str, int]:
    """How many trials are in which state."""
    trials = optuna.load_study(study_name="s", storage=storage(url, beats=False)).get_trials(deepcopy=False)
    return {state.name: sum(trial.state is state for trial in trials) for state in TrialState}


def new_study(url: str) -> str:
    """An empty one; the URL again."""
    optuna.create_study(study_name="s", storage=storage(url, beats=False))
    return url


def random_kills(url: str) -> str:
    """Row 1."""
    new_study(url)
    crowd = [start(work, url, 10**6) for _ in range(WORKERS)]
    time.sleep(2.0)
    for _ in range(KILLS):
        time.sleep(random.uniform(0.0, 0.5))
        victim = random.randrange(WORKERS)
        crowd[victim].kill()
        crowd[victim].join()
        crowd[victim] = start(work, url, 10**6)
    for process in crowd:
        process.kill()
        process.join()
    time.sleep(GRACE + 1)
    last = start(work, url, states(url)["COMPLETE"] + 30)  # thirty more trials, each of which sweeps first
    last.join()
    study = optuna.load_study(study_name="s", storage=storage(url, beats=False))
    origins = [t.system_attrs.get("failed_trial", t.number) for t in study.trials if t.state is TrialState.COMPLETE]
    stuck = states(url)["RUNNING"]
    return f"{KILLS} kills: {stuck} trials left running for ever, {len(origins) - len(set(origins))} completed twice"


def kills_before_the_first_beat(url: str) -> str:
    """Row 2."""
    new_study(url)
    for _ in range(10):
        start(_die_before_beating, url).join()
    time.sleep(GRACE + 1)
    start(work, url, 3).join()
    return f"{10 - states(url)['RUNNING']} of 10 reclaimed"


def _die_before_beating(url: str) -> None:
    optimize_module.get_heartbeat_thread = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, attr-defined]
    work(url, 100)


def terms(url: str) -> str:
    """Row 4."""
    new_study(url)
    crowd = [start(work, url, 10**6) for _ in range(10)]
    time.sleep(6.0)
    for process in crowd:
        process.terminate()
        process.join()
    left = states(url)["RUNNING"]
    return f"10 SIGTERMs: {left} trials left running until the grace period is over, then begun again from nothing"


def stopped_workers(url: str) -> str:
    """Row 6."""
    new_study(url)
    dead = 0
    for _ in range(5):
        sleeper = start(_work_slowly, url)
        time.sleep(2.0)
        os.kill(sleeper.pid or 0, signal.SIGSTOP)
        time.sleep(GRACE + 1.5)
        start(work, url, states(url)["COMPLETE"] + 1).join()  # it sweeps
        os.kill(sleeper.pid or 0, signal.SIGCONT)
        time.sleep(6.0)
        dead += not sleeper.is_alive()
        sleeper.kill()
        sleeper.join()
    return f"{dead} of 5 workers died when they woke up"


def _work_slowly(url: str) -> None:
    def _slow(trial: optuna.Trial) -> float:
        time.sleep(4.0)
        return objective(trial)

    optuna.load_study(study_name="s", storage=storage(url)).optimize(_slow, catch=(Exception,))


def claims(url: str) -> str:
    """Row 7."""
    new_study(url)
    study = optuna.load_study(study_name="s", storage=storage(url, beats=False))
    for number in range(100):
        study.enqueue_trial({"learning_rate": 1e-3}, user_attrs={"queued": number})
    claimed = _FORK.Queue()
    crowd = [start(_claim, url, claimed) for _ in range(8)]
    taken = [number for _ in crowd for number in claimed.get()]
    for process in crowd:
        process.join()
    return f"8 processes that ask without a pause, 100 queued: {len(taken) - len(set(taken))} claimed again"


def _claim(url: str, claimed: Any) -> None:
    study = optuna.load_study(study_name="s", storage=storage(url, beats=False))
    taken = []
    misses = 0
    while misses < 3:
        try:
            trial = study.ask()
        except Exception:  # noqa: BLE001 - "database is locked" counts as a miss
            misses += 1
            continue
        queued = trial.user_attrs.get("queued")
        misses += queued is None
        taken += [] if queued is None else [queued]
    claimed.put(taken)


def first_boots(urls: list[str]) -> str:
    """Row 8."""
    failed = 0
    for url in urls:
        barrier = _FORK.Barrier(8)
        crowd = [start(_open, url, barrier) for _ in range(8)]
        for process in crowd:
            process.join()
            failed += process.exitcode != 0
    return f"{failed} of {8 * len(urls)} failed"


def _open(url: str, barrier: Any) -> None:
    barrier.wait()
    RDBStorage(url)


def outage(server: PostgresServer, url: str) -> str:
    """Row 10."""
    new_study(url)
    worker = start(work, url, 100)
    time.sleep(2.0)
    server.stop()
    time.sleep(5.0)
    server.start()
    time.sleep(3.0)
    is_alive = worker.is_alive()
    worker.kill()
    worker.join()
    left = states(url)
    fate = "lives" if is_alive else "died"
    return f"5 s: the worker {fate}, {left['FAIL'] + left['RUNNING']} of the trials in work failed or left running"


def zones(url: str) -> str:
    """Row 29."""
    new_study(url)
    worker = start(_work_in, url, "UTC")
    time.sleep(2.0)
    peer = start(_sweep_in, url, "Asia/Tokyo")
    peer.join()
    failed = states(url)["FAIL"]
    worker.kill()
    worker.join()
    return f"a peer in Tokyo fails {failed} of 1 living trials"


def _work_in(url: str, zone: str) -> None:
    os.environ["PGTZ"] = zone
    _work_slowly(url)


def _sweep_in(url: str, zone: str) -> None:
    os.environ["PGTZ"] = zone
    optuna.storages.fail_stale_trials(optuna.load_study(study_name="s", storage=storage(url)))


def budget(url: str) -> str:
    """Row 32."""
    new_study(url)
    crowd = [start(work, url, 50) for _ in range(8)]
    for process in crowd:
        process.join()
    done = states(url)
    return f"{done['COMPLETE'] + done['RUNNING']} trials of 50 (MaxTrialsCallback)"


@contextlib.contextmanager
def databases(server: PostgresServer) -> Iterator[Callable[[str], str]]:
    """Gives URLs of new databases of a kind."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def _new(kind: str) -> str:
            if kind == "SQLite":
                return f"sqlite:///{tempfile.mkdtemp(dir=folder)}/optuna.db"
            url = make_url(stack.enter_context(server.database()))
            return url.render_as_string(hide_password=False)

        yield _new


def main(rows: Collection[int] = ()) -> None:
    """The arms of these rows, or all, one after the other."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    both = ("SQLite", "PostgreSQL")
    found: dict[int, str] = {}
    with running_server() as server, databases(server) as new:
        arms: dict[int, tuple[Callable[[str], str], tuple[str, ...]]] = {
            1: (random_kills, both),
            2: (kills_before_the_first_beat, both[1:]),
            4: (terms, both[1:]),
            6: (stopped_workers, both[1:]),
            7: (claims, both),
            29: (zones, both[1:]),
            32: (budget, both),
        }
        for row, (arm, kinds) in arms.items():
            if row in rows or not rows:
                found[row] = "<br>".join(f"{kind}: {arm(new(kind))}" for kind in kinds)
        if 8 in rows or not rows:
            found[8] = "<br>".join(f"{kind}: {first_boots([new(kind) for _ in range(5)])}" for kind in both)
        if 10 in rows or not rows:
            found[10] = f"PostgreSQL: {outage(server, new('PostgreSQL'))}"
    kept = read_file()
    kept["optuna"] |= {str(row): said for row, said in found.items()}
    write_file(kept)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
