"""Records as JSON documents: the stable interface that docs/json.md describes and a test holds to its schemas."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.cli.costs import outlook_document
from tuner.cli.fronts import front_document, objectives_document
from tuner.cli.learnt import learnt_documents
from tuner.report.outlook import foresee_end
from tuner.report.repetition import Repetition
from tuner.report.troubles import Trouble, list_troubles
from tuner.report.verdict import FinalistScore, Winner, choose_winner
from tuner.store.fronts import find_front
from tuner.store.records import (
    AttemptRecord,
    EventRecord,
    FinalistRecord,
    StudyRecord,
    StudySnapshot,
    TrialRecord,
    TrialStory,
    WorkerRecord,
)
from tuner.study.domains import Choice, Domain, Fixed
from tuner.study.folds import fold_of

OUTCOMES = ("complete", "pruned", "diverged", "errored", "infeasible", "running", "waiting")
"""Keys of every count of trials, in the order in which they are shown."""


def study_document(snapshot: StudySnapshot) -> dict[str, Any]:
    """``tuner study show``."""
    winner = choose_winner(snapshot)
    return {
        **study_row(snapshot.study),
        "best": None if winner is None else best_document(winner, snapshot.study.metric),
        "forecast": outlook_document(foresee_end(snapshot)),
        "front": front_document(find_front(snapshot.trials, spec=snapshot.study.spec)),
        "learnt": learnt_documents(snapshot.study.space),
        "finalists": [finalist_document(finalist, snapshot) for finalist in snapshot.finalists],
        "troubles": [trouble_document(trouble) for trouble in list_troubles(snapshot)],
        "workers": [worker_document(worker) for worker in snapshot.workers],
        "read_at": snapshot.read_at,
    }


def trouble_document(trouble: Trouble) -> dict[str, Any]:
    """One type of bad end, and the reason that was given most."""
    return {
        "unit": trouble.unit,
        "state": trouble.outcome.value,
        "count": len(trouble.numbers),
        "reason": trouble.reason,
        "times": trouble.times,
        "trials": list(trouble.trials),
    }


def study_row(study: StudyRecord) -> dict[str, Any]:
    """One study of ``tuner study list``."""
    spec = study.spec
    return {
        "name": study.name,
        "state": study.state.value,
        "state_reason": study.state_reason,
        "task": spec.task,
        "model": spec.model,
        "objective": {"metric": study.metric, "goal": "maximize" if study.maximize else "minimize"},
        "objectives": objectives_document(study),
        "constraints": list(spec.constraints or ()),
        "strategies": list(study.space.names),
        "trials": {outcome: study.counts[outcome] for outcome in OUTCOMES},
        "budget": {"asked": spec.budget.model_dump(mode="json"), "used": budget_document(study)},
        "priority": study.priority,
        "code": study.code,
        "created_at": study.created_at,
        "finished_at": study.finished_at,
    }


def budget_document(study: StudyRecord) -> dict[str, Any]:
    """What a study has used of its budget."""
    used, price = study.used, study.spec.budget.price_per_hour
    return {
        "trials": used.trials,
        "epochs": used.epochs,
        "gpu_hours": used.gpu_seconds / 3600.0,
        "confirm_gpu_hours": used.confirm_seconds / 3600.0,
        "hours": wall_hours(study),
        "money": None if price is None else used.gpu_seconds / 3600.0 * price,
    }


def wall_hours(study: StudyRecord) -> float:
    """Hours by the clock since the first trial began; a finished study's stand still."""
    used = study.used
    if study.finished_at is None or used.began_at is None:
        return used.wall_seconds / 3600.0
    return max(0.0, study.finished_at - used.began_at) / 3600.0


def best_document(winner: Winner, metric: str) -> dict[str, Any]:
    """The trial that wins as far as is known, and what that stands on."""
    trial, score = winner.trial, winner.score
    return {
        "number": trial.number,
        "strategy": trial.strategy,
        "params": dict(trial.params),
        "values": {} if trial.value is None else {metric: trial.value},
        "basis": winner.basis.value,
        "fresh_seeds": None if score is None else fresh_seeds_document(score),
        "metrics": metrics_that_count(trial),
        "epoch": trial.best_epoch,
        "trainable_params": trial.trainable_params,
        "seconds": trial.seconds,
        "checkpoint": winner.weights,
        "checkpoint_seed": winner.weights_seed,
    }


def fresh_seeds_document(score: FinalistScore) -> dict[str, Any]:
    """A finalist's scores after re-training with fresh seeds."""
    return {
        "seeds": list(score.seeds),
        "folds": list(score.folds),
        "validation": list(score.validation),
        "validation_mean": _mean(score.validation),
        "validation_sd": _sd(score.validation),
        "held_back": list(score.held_back),
        "held_back_mean": _mean(score.held_back),
        "held_back_sd": _sd(score.held_back),
        "test": list(score.test),
        "test_mean": score.test_mean,
        "test_sd": score.test_sd,
    }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _sd(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def metrics_that_count(trial: TrialRecord) -> dict[str, float]:
    """All metrics of the epoch that counts; empty before the first report."""
    for record in trial.epochs:
        if record.epoch == trial.best_epoch:
            return dict(record.metrics)
    return {}


def finalist_document(finalist: FinalistRecord, snapshot: StudySnapshot) -> dict[str, Any]:
    """A trial chosen for confirmation, with its re-trainings."""
    trial = snapshot.trial(finalist.number)
    return {
        "number": finalist.number,
        "rank": finalist.rank,
        "is_baseline": finalist.is_baseline,
        "strategy": trial.strategy,
        "params": dict(trial.params),
        "runs": [
            {
                "seed": run.seed,
                "fold": fold_of(snapshot.study.spec, seed=run.seed) or None,
                "state": run.outcome.value,
                "reason": run.reason,
                "metrics": dict(run.metrics),
                "test": None if run.test is None else dict(run.test.metrics),
                "held_back": None if run.held_back is None else dict(run.held_back.metrics),
                "is_cancelled": run.is_cancelled,
                "seconds": run.seconds,
                "checkpoint": run.checkpoint,
            }
            for run in finalist.runs
        ],
    }


def trial_document(trial: TrialRecord, metric: str) -> dict[str, Any]:
    """One trial of ``tuner study trials``."""
    return {
        "number": trial.number,
        "state": trial.outcome.value,
        "reason": trial.reason,
        "strategy": trial.strategy,
        "params": dict(trial.params),
        "is_recipe": trial.is_recipe,
        "learnt_from": trial.learnt_from or None,
        "values": {} if trial.value is None else {metric: trial.value},
        "best_epoch": trial.best_epoch,
        "epochs": [
            {
                "epoch": record.epoch,
                "metrics": dict(record.metrics),
                "seconds": record.seconds,
                "attempt": record.attempt,
            }
            for record in trial.epochs
        ],
        "seconds": trial.seconds,
        "trainable_params": trial.trainable_params,
        "peak_memory": trial.peak_memory,
        "checkpoint": trial.checkpoint,
        "notes": list(trial.notes),
        "attempts": [_attempt(attempt) for attempt in trial.attempts],
        "started_at": trial.started_at,
        "ended_at": trial.ended_at,
    }


def story_document(story: TrialStory) -> dict[str, Any]:
    """``tuner trial show``."""
    return {
        "name": story.study.name,
        "metric": story.study.metric,
        "seed": story.trial.seed,
        "facts": [{"attempt": one.attempt, **one.facts} for one in story.trial.attempts if one.facts],
        "trial": trial_document(story.trial, story.study.metric),
        "retrainings": [
            {
                "seed": again.seed,
                "fold": fold_of(story.study.spec, seed=again.seed) or None,
                "state": again.outcome.value,
                "reason": again.reason,
                "attempts": [_attempt(attempt) for attempt in again.attempts],
            }
            for again in story.retrainings
        ],
        "events": [event_document(event) for event in story.events],
        "read_at": story.read_at,
    }


def repetition_document(found: Repetition) -> dict[str, Any]:
    """A trial of ``tuner trial retry --exact``."""
    parts = found.difference
    return {
        "number": found.number,
        "is_equal": found.is_equal,
        "state": found.outcome.value,
        "ended_as": found.ended_as.value,
        "reason": found.reason,
        "epochs": found.epochs,
        "difference": None
        if parts is None
        else {
            "epoch": parts.epoch,
            "metric": parts.metric,
            "then": parts.then,
            "now": parts.now,
            "metrics": parts.metrics,
        },
        "changes": [
            {"what": one.what, "attempt": one.attempt, "then": one.then, "now": one.now} for one in found.changes
        ],
        "seconds": found.seconds,
    }


def event_document(event: EventRecord) -> dict[str, Any]:
    """Something that happened to a trial."""
    return {
        "at": event.at,
        "kind": event.kind,
        "text": event.text,
        "seed": event.seed,
        "worker": event.worker or None,
        "who": event.who or None,
    }


def _attempt(attempt: AttemptRecord) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "worker": attempt.worker,
        "host": attempt.host,
        "slot": attempt.slot,
        "state": attempt.outcome.value,
        "reason": attempt.reason,
        "seconds": attempt.seconds,
        "started_at": attempt.started_at,
        "ended_at": attempt.ended_at,
        "log_tail": attempt.log_tail,
    }


def worker_document(worker: WorkerRecord) -> dict[str, Any]:
    """One worker of ``tuner worker list``."""
    return {
        "worker": worker.worker,
        "host": worker.host,
        "pid": worker.pid,
        "devices": list(worker.devices),
        "state": worker.state,
        "is_alive": worker.is_alive,
        "started_at": worker.started_at,
        "seen_at": worker.seen_at,
        "running": list(worker.running),
        "asked": worker.asked,
        "code": worker.code,
    }


def domain_words(domain: Domain) -> str:
    """A domain in a few words: ``0.0001 to 0.3 (log)``."""
    if isinstance(domain, Fixed):
        return f"fixed at {domain.value}"
    if isinstance(domain, Choice):
        return " | ".join(str(option) for option in domain.options)
    step = f", step {domain.step:g}" if domain.step is not None else ""
    return f"{domain.low:g} to {domain.high:g}{' (log)' if domain.log else ''}{step}"


def counts_words(counts: Mapping[str, int]) -> str:
    """Trials by outcome in words, those that are zero left out."""
    parts: Sequence[str] = [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts.get(outcome)]
    return ", ".join(parts) if parts else "none yet"
