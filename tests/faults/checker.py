"""What must hold after any fault: the acknowledgements of all workers against the database.

A worker writes down each thing that the database acknowledged to it, on the disk, before it goes on. Whatever stands there was
promised; the letters are those of the list in docs/reliability.md.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from tests.faults.toy_training import quality
from tuner.api import load_study
from tuner.store.database import Database
from tuner.store.records import Outcome, StudySnapshot, TrialRecord
from tuner.training.sealed import MANIFEST, REMOVING, WRITING, check_seal

GRACE = 1.0  # seconds between a commit and the line about it, on a busy machine
FINISHED = {Outcome.COMPLETE.value, Outcome.PRUNED.value}


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What the checker counted; every count but the last two must be 0.

    Attributes:
        lost: Acknowledged ends that the database does not have, or has with another value.
        double: Ends of one run that were acknowledged, or stored, more than once.
        stale: Epochs that were acknowledged to an attempt after another one had taken over.
        stuck: Trials that are neither finished nor waiting.
        miscounted: Numbers that are missing or twice, and sums that do not add up.
        torn: Attempts whose epochs have gaps, and values that do not belong to the trial.
        differing: Trials that Optuna sees otherwise.
        broken: Checkpoints that can be seen and are not what their manifests say, and those of complete trials that are missing.
        trials: Trials in the database.
        acknowledged: Lines of all workers.
    """

    lost: int
    double: int
    stale: int
    stuck: int
    miscounted: int
    torn: int
    differing: int
    broken: int
    trials: int
    acknowledged: int

    @property
    def wrong(self) -> dict[str, int]:
        """The counts that should be 0 and are not."""
        names = ("lost", "double", "stale", "stuck", "miscounted", "torn", "differing", "broken")
        return {name: count for name in names if (count := getattr(self, name))}

    @property
    def total(self) -> int:
        """How many things are wrong."""
        return sum(self.wrong.values())


def check(*, url: str, study: str, ledger: Path, trials: int, files: Path | None = None) -> Findings:
    """Compare everything with everything.

    Args:
        url: The database.
        study: The study, which is over.
        ledger: What was acknowledged to all workers.
        trials: How many the budget allows.
        files: The workers' folder; None: beside the ledger.
    """
    snapshot = load_study(study, storage=url)
    lines = [line for line in read_ledger(ledger) if line["event"] != "Exited"]
    by_number = {trial.number: trial for trial in snapshot.trials}
    acknowledged_ends = [line for line in lines if line["event"] == "RunEnded" and line["outcome"] in FINISHED]
    ends = Counter(line["number"] for line in acknowledged_ends)
    stored_ends = [
        sum(attempt.outcome in (Outcome.COMPLETE, Outcome.PRUNED) for attempt in trial.attempts)
        for trial in snapshot.trials
    ]
    return Findings(
        lost=sum(not _is_stored(line, by_number.get(line["number"])) for line in acknowledged_ends),
        double=sum(count > 1 for count in ends.values()) + sum(count > 1 for count in stored_ends),
        stale=_stale(lines, snapshot),
        stuck=sum(not trial.outcome.is_finished for trial in snapshot.trials),
        miscounted=_miscounted(snapshot, trials=trials),
        torn=sum(_is_torn(trial, snapshot.study.metric) for trial in snapshot.trials),
        differing=_differing(snapshot, url=url),
        broken=_broken(snapshot, files=files or ledger.parent / "files"),
        trials=len(snapshot.trials),
        acknowledged=len(lines),
    )


def read_ledger(ledger: Path) -> list[dict[str, Any]]:
    """All lines of all workers in the order of time; a last line that was cut off was never acknowledged."""
    lines = []
    for line in ledger.read_bytes().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return sorted(lines, key=lambda line: float(line["at"]))


def _is_stored(line: dict[str, Any], trial: TrialRecord | None) -> bool:
    """A: every acknowledged end is in the database with the same outcome and value, which a run cut short may not have told."""
    if trial is None or trial.outcome.value != line["outcome"]:
        return False
    return trial.value == line["value"] or (trial.outcome is Outcome.PRUNED and line["value"] is None)


def _stale(lines: list[dict[str, Any]], snapshot: StudySnapshot) -> int:
    """C: no epoch was acknowledged to an attempt that had been given up."""
    ended = {
        (trial.number, attempt.attempt): attempt.ended_at for trial in snapshot.trials for attempt in trial.attempts
    }
    attempt_of: dict[tuple[int, str], dict[int, int]] = defaultdict(dict)  # (pid, slot) -> number -> attempt
    wrong = 0
    for line in lines:
        holder = attempt_of[line["pid"], line["slot"]]
        if line["event"] == "RunClaimed":
            holder[line["number"]] = line["attempt"]
        elif line["event"] == "EpochReported":
            end = ended.get((line["number"], holder[line["number"]]))
            wrong += end is not None and line["at"] > end + GRACE
    return wrong


def _miscounted(snapshot: StudySnapshot, *, trials: int) -> int:
    """E: numbers without gaps, every trial in exactly one state, the budget kept."""
    numbers = [trial.number for trial in snapshot.trials]
    wrong = abs(len(numbers) - trials) + int(numbers != list(range(len(numbers))))
    return wrong + int(sum(snapshot.study.counts.values()) != len(numbers))


def _is_torn(trial: TrialRecord, metric: str) -> bool:
    """F: within an attempt the epochs follow each other, and each has the value of this trial's parameters."""
    epochs = [epoch.epoch for epoch in trial.epochs]
    values = [epoch.metrics[metric] for epoch in trial.epochs]
    return epochs != list(range(1, len(epochs) + 1)) or values != [quality(trial.params or {}, one) for one in epochs]


def _broken(snapshot: StudySnapshot, *, files: Path) -> int:
    """G: every checkpoint that can be seen is whole, and every complete trial has one."""
    wrong = 0
    for path in files.glob("checkpoints/*/trial-*/attempt-*/*"):
        if not path.name.startswith((WRITING, REMOVING)):
            try:
                check_seal(path)
            except (OSError, ValueError):
                wrong += 1
    complete = [trial for trial in snapshot.trials if trial.outcome is Outcome.COMPLETE]
    return wrong + sum(not (Path(trial.checkpoint) / MANIFEST).exists() for trial in complete)


def _differing(snapshot: StudySnapshot, *, url: str) -> int:
    """Optuna's own view of the same trials."""
    states = {
        Outcome.COMPLETE: optuna.trial.TrialState.COMPLETE,
        Outcome.PRUNED: optuna.trial.TrialState.PRUNED,
        Outcome.ERRORED: optuna.trial.TrialState.FAIL,
        Outcome.INFEASIBLE: optuna.trial.TrialState.PRUNED,
        Outcome.DIVERGED: optuna.trial.TrialState.PRUNED,
        Outcome.WAITING: optuna.trial.TrialState.WAITING,
        Outcome.RUNNING: optuna.trial.TrialState.RUNNING,
    }
    with Database.open(url) as db:
        theirs = optuna.load_study(study_name=snapshot.study.name, storage=db.optuna_storage()).get_trials()
    wrong = abs(len(theirs) - len(snapshot.trials))
    for ours, trial in zip(snapshot.trials, theirs, strict=False):
        wrong += ours.number != trial.number or states[ours.outcome] is not trial.state
        wrong += ours.outcome is Outcome.COMPLETE and ours.value != trial.value
    return wrong
