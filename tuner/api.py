"""The functions behind ``import tuner``; the command line calls the same ones."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.errors import Problem
    from tuner.store.records import StudyRecord, StudySnapshot, TrialRecord
    from tuner.study.catalogue import Catalogue
    from tuner.study.check import CheckReport
    from tuner.study.proof import StrategyProof
    from tuner.study.sources import HubSource
    from tuner.study.space import SearchSpace
    from tuner.study.spec import StudySpec
    from tuner.study.table import Table
    from tuner.study.teacher import TaughtLabels, TrialName
    from tuner.worker.supervisor import WorkerSummary

PathLike = str | os.PathLike[str]


def catalogue() -> Catalogue:
    """Everything that a study file may name: strategies with their hyperparameters, tasks with their metrics.

    Example:
        >>> import tuner
        >>> sorted(tuner.catalogue().strategies)[:2]
        ['adalora', 'adapter']
    """
    from tuner.strategies import STRATEGIES
    from tuner.study.catalogue import Catalogue
    from tuner.tasks import TASKS

    return Catalogue(
        strategies={name: strategy.info for name, strategy in STRATEGIES.items()},
        tasks={name: task.info for name, task in TASKS.items()},
    )


def check_study(study: PathLike | Mapping[str, Any], *, storage: str | None = None) -> tuple[StudySpec, CheckReport]:
    """Read a study and look at its model and its data, without storing anything.

    Args:
        study: A study file, or the same content as a mapping (paths in it are relative to the current folder).
        storage: Database URL, in which a trial that is to teach and studies to learn from are looked up where they are named; else
            ``TUNER_STORAGE``, else ``sqlite:///tuner.db``. Where none is named no database is opened.

    Returns:
        The validated study, and what was found; the report's ``problems`` must be empty for the study to be created.

    Raises:
        StudyFileError: With all mistakes, if the study cannot be read.

    Example:
        >>> import tuner
        >>> spec, found = tuner.check_study("study.yaml")
        >>> spec.name, found.problems
        ('example', ())
    """
    spec, found = _check(study, storage=storage)
    if isinstance(spec.search.learn_from, str):
        return spec, found
    from tuner.search import past
    from tuner.store import location

    unknown = past.find_unknown(location.storage_url(storage), spec=spec)
    return spec, _with_problems(found, unknown, study=study)


def _check(study: PathLike | Mapping[str, Any], *, storage: str | None) -> tuple[StudySpec, CheckReport]:
    """As :func:`check_study`, but for the studies to learn from."""
    from dataclasses import replace

    from tuner.study import check, file

    def find_trial(name: TrialName) -> TaughtLabels:
        from tuner.search import teacher
        from tuner.store import location
        from tuner.store.database import Database

        with Database.open(location.storage_url(storage)) as database:
            return teacher.find_trial(database, name=name)

    from tuner.search.choices import find_wrong_choices

    known = catalogue()
    if isinstance(study, Mapping):
        spec = file.validate_study(study, catalogue=known)
    else:
        spec = file.load_study_file(os.fspath(study), catalogue=known)
    found = check.check_study(spec, catalogue=known, read_hub=_read_hub, probe=_probe, find_trial=find_trial)
    found = replace(found, problems=(*found.problems, *find_wrong_choices(spec, space=found.space)))
    if isinstance(study, Mapping):
        return spec, found
    return spec, replace(
        found,
        problems=file.locate(found.problems, path=os.fspath(study)),
        warnings=file.locate(found.warnings, path=os.fspath(study)),
    )


def _with_problems(found: CheckReport, more: Sequence[Problem], *, study: PathLike | Mapping[str, Any]) -> CheckReport:
    from dataclasses import replace

    from tuner.study import file

    located = more if isinstance(study, Mapping) else file.locate(more, path=os.fspath(study))
    return replace(found, problems=(*found.problems, *located))


def _read_hub(source: HubSource, *, columns: Sequence[str], limit: int | None = None) -> Table:
    """Read rows of the hub as the training will."""
    from tuner.training.data import read_hub

    return read_hub(source, columns=columns, limit=limit)


def _probe(spec: StudySpec, *, space: SearchSpace, classes: Sequence[str], folder: str) -> Sequence[StrategyProof]:
    """Try the strategies on the model; torch is imported when it comes to that, for a file with mistakes never."""
    from tuner.training.probe import probe_study

    return probe_study(spec, space=space, classes=classes, folder=folder)


def create_study(study: PathLike | Mapping[str, Any], *, storage: str | None = None) -> StudyRecord:
    """Check a study and store it, ready for workers. Creating the same study again changes nothing.

    Args:
        study: A study file, or the same content as a mapping (paths in it are relative to the current folder).
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Raises:
        StudyFileError: With all mistakes.
        ConflictError: If another study of this name is stored; the message says what differs.
        UnavailableError: If the database cannot be reached.

    Example:
        >>> import tuner
        >>> record = tuner.create_study("study.yaml", storage="sqlite:///tuner.db")
        >>> record.name, record.state.value
        ('example', 'searching')
    """
    return store_study(study, storage=storage)[0]


def store_study(study: PathLike | Mapping[str, Any], *, storage: str | None = None) -> tuple[StudyRecord, bool]:
    """As :func:`create_study`; the second value says whether the study is new."""
    from tuner.errors import StudyFileError
    from tuner.search import past
    from tuner.store import location, studies
    from tuner.store.database import Database

    url = location.storage_url(storage)
    if not url.startswith("sqlite"):  # a file would be left behind by a study that cannot be
        Database.open(url, create=True).close()  # the check of a study takes a while, that of an address none
    spec, found = _check(study, storage=storage)
    source = "study" if isinstance(study, Mapping) else os.fspath(study)
    if found.problems:
        raise StudyFileError(found.problems, source=source)
    with Database.open(url, create=True) as database:
        is_new = all(other.name != spec.name for other in studies.list_studies(database))
        space = found.space
        if is_new:  # one that is there has learnt already
            if unknown := past.name_problems(database, spec=spec):
                raise StudyFileError(_with_problems(found, unknown, study=study).problems, source=source)
            space = past.learn(database, spec=found.spec, space=space, holds_back=found.holds_back)
        return studies.create_study(database, spec=found.spec, space=space, maximize=_is_maximized(spec)), is_new


def _is_maximized(spec: StudySpec) -> bool:
    if spec.lead.goal is not None:
        return spec.lead.goal == "maximize"
    metrics = catalogue().tasks[spec.task].metrics
    return next(metric.goal == "maximize" for metric in metrics if metric.name == spec.lead.metric)


def run_worker(
    *,
    studies: Sequence[str] = (),
    storage: str | None = None,
    files: PathLike | None = None,
    checkpoints: PathLike | None = None,
    devices: str = "auto",
    per_device: int = 1,
    until_done: bool = True,
    max_trials: int | None = None,
    lease: float = 90.0,
    heartbeat: float = 15.0,
    hang_after: float = 300.0,
    outage: float = 900.0,
    allow_skew: bool = False,
) -> WorkerSummary:
    """Train trials here until the studies are finished. Any number of workers may run at once, on any boxes.

    Args:
        studies: Names of the studies to serve; empty: every open study.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.
        files: Folder for logs, caches and checkpoints; else ``TUNER_FILES``, else ``tuner-files`` beside the SQLite file.
        checkpoints: Folder or URL (``s3://``, ``gs://``) for checkpoints; else ``TUNER_CHECKPOINTS``, else in ``files``.
        devices: ``auto`` (all GPUs, else the CPU), ``cpu``, or a list such as ``cuda:0,1``.
        per_device: Trials at once on each device.
        until_done: Return when the studies are finished, paused or stopped; otherwise wait for more.
        max_trials: Return after this many runs.
        lease: Seconds after which another worker takes over a trial of a worker that died.
        heartbeat: Seconds between two signs of life.
        hang_after: Seconds of silence that are never held against a run; see :mod:`tuner.worker.watchdog`.
        outage: Seconds for which a database that is gone is waited for; training goes on meanwhile.
        allow_skew: Serve studies that other code made, too, such as tuner before an edit to a strategy, and those whose rows or weights are others here.

    Raises:
        NotFoundError: If a named study does not exist.
        ConfigurationError: If other code made a named study.
        UsageError: If the settings contradict each other.
        UnavailableError: If the database or a device cannot be reached.

    Example:
        >>> import tuner
        >>> tuner.run_worker(studies=["example"], storage="sqlite:///tuner.db", devices="cpu").studies["example"].value
        'finished'
    """
    # Long by its settings alone, each of which stands here by name, in words, and in the options.
    import sys

    from tuner.store import location
    from tuner.worker import supervisor
    from tuner.worker.display import PlainDisplay
    from tuner.worker.options import WorkerOptions

    options = WorkerOptions(
        storage=(url := location.storage_url(storage)),
        files=location.files_dir(files, url),
        checkpoints=location.checkpoint_place(checkpoints),
        studies=tuple(studies),
        devices=devices,
        per_device=per_device,
        until_done=until_done,
        max_trials=max_trials,
        lease=lease,
        heartbeat=heartbeat,
        hang_after=hang_after,
        outage=outage,
        allow_skew=allow_skew,
    )
    return supervisor.run_worker(options, display=PlainDisplay(sys.stderr))


def list_studies(*, storage: str | None = None) -> list[StudyRecord]:
    """All studies of a database, oldest first.

    Args:
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Raises:
        UnavailableError: If the database cannot be reached.

    Example:
        >>> import tuner
        >>> [study.name for study in tuner.list_studies(storage="sqlite:///tuner.db")]
        ['example']
    """
    from tuner.store import location, studies
    from tuner.store.database import Database

    with Database.open(location.storage_url(storage)) as database:
        return studies.list_studies(database)


def load_study(name: str, *, storage: str | None = None) -> StudySnapshot:
    """A study and all its trials, as they are now.

    Args:
        name: The study.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Raises:
        NotFoundError: If there is no such study.
        UnavailableError: If the database cannot be reached.

    Example:
        >>> import tuner
        >>> snapshot = tuner.load_study("example", storage="sqlite:///tuner.db")
        >>> len(snapshot.trials), snapshot.trials[0].is_recipe
        (2, True)
    """
    from tuner.store import location, queries
    from tuner.store.database import Database

    with Database.open(location.storage_url(storage)) as database:
        return queries.load_snapshot(database, name)


def best(name: str, *, storage: str | None = None) -> TrialRecord:
    """The trial that wins as far as is known: by fresh seeds where there are any, else by its value in the search.

    Args:
        name: The study.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Raises:
        NotFoundError: If there is no such study, or no trial of it is complete.
        UnavailableError: If the database cannot be reached.

    Example:
        >>> import tuner
        >>> winner = tuner.best("example", storage="sqlite:///tuner.db")
        >>> winner.strategy in ("head", "bitfit"), "learning_rate" in winner.params
        (True, True)
    """
    from tuner.errors import NotFoundError
    from tuner.report.verdict import choose_winner

    winner = choose_winner(load_study(name, storage=storage))
    if winner is None:
        raise NotFoundError(f'study "{name}" has no complete trial yet', fix=f"look closer: tuner study trials {name}")
    return winner.trial


def write_report(name: str, *, path: PathLike, storage: str | None = None) -> Path:
    """Write the report of a study: one HTML file that needs no network.

    Args:
        name: The study.
        path: The file to write; one that exists is replaced.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Returns:
        The file that was written.

    Raises:
        NotFoundError: If there is no such study.
        UnavailableError: If the database cannot be reached or the file cannot be written.

    Example:
        >>> import tuner
        >>> tuner.write_report("example", path="report.html", storage="sqlite:///tuner.db").name
        'report.html'
    """
    from tuner import report

    return report.write_report(load_study(name, storage=storage), Path(path))
