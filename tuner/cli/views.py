"""Records as text for people: short lines that fit 80 columns."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence

from tuner.cli.costs import outlook_words
from tuner.cli.documents import counts_words, wall_hours
from tuner.cli.fronts import aim_rows, front_lines, other_objectives, other_values
from tuner.cli.learnt import origin_words, recipe_words
from tuner.cli.output import table
from tuner.report.folds import count_folds
from tuner.report.outlook import foresee_end
from tuner.report.troubles import list_troubles
from tuner.report.verdict import Basis, Winner, choose_winner, score_finalists
from tuner.report.words import count_retrainings
from tuner.store.fronts import find_front
from tuner.store.records import Outcome, StudyRecord, StudySnapshot, StudyState, TrialRecord, WorkerRecord
from tuner.study.domains import Value
from tuner.study.names import count_noun, hours_words
from tuner.terminal import duration

_ROOM = 66  # columns beside the labels on a terminal of 80

SILENT_SECONDS = 45.0
"""A worker that gave no sign of life for longer is shown as silent; its lease may still protect its trials."""


def ago(moment: float, *, now: float) -> str:
    """How long ago a moment was."""
    return f"{duration(max(0.0, now - moment))} ago"


def number(value: Value) -> str:
    """A hyperparameter's value, short."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:.3g}"
    return f"{value:.6g}" if short == "1" else short  # a decay of 0.9999 is not 1


def params_words(params: Mapping[str, Value]) -> str:
    """Hyperparameters on one line, the learning rate first."""
    names = sorted(params, key=lambda name: (name != "learning_rate", "." in name, name))
    return "  ".join(f"{name} {number(params[name])}" for name in names)


def budget_words(study: StudyRecord) -> str:
    """Used and asked, for each limit of the study."""
    asked, used = study.spec.budget, study.used
    parts = []
    if asked.trials is not None:
        parts.append(f"{used.trials} of {count_noun(asked.trials, 'trial')}")
    if asked.epochs is not None:
        parts.append(f"{used.epochs} of {count_noun(asked.epochs, 'epoch')}")
    if asked.gpu_hours is not None:
        parts.append(hours_words(asked.gpu_hours, kind="device", used=used.gpu_seconds / 3600))
    else:
        parts.append(f"{duration(used.gpu_seconds)} of device time")
    if asked.hours is not None:
        parts.append(f"{hours_words(asked.hours, used=wall_hours(study))} by the clock")
    if asked.price_per_hour is not None:
        cost = f"cost {used.gpu_seconds / 3600 * asked.price_per_hour:.2f}"
        parts.append(cost if asked.money is None else f"{cost} of {asked.money:g}")
    return ", ".join(parts)


def searched(params: Mapping[str, Value], study: StudyRecord, strategy: str) -> dict[str, Value]:
    """The values that the study searches, without those that are the same for all trials of the strategy."""
    return study.space.searched(strategy, params) if strategy in study.space.names else dict(params)


def study_lines(snapshot: StudySnapshot) -> list[str]:
    """``tuner study show``."""
    study = snapshot.study
    winner = choose_winner(snapshot)
    why = study.state_reason
    if study.state is StudyState.FINISHED and winner is not None and winner.basis is Basis.INCOMPLETE:
        why = "the confirmation is incomplete"
    reason = f" ({why})" if why else ""
    rows = [
        *_in_lines("state", f"{study.state.value}{reason}"),
        ("task", study.spec.task),
        ("model", study.spec.model),
        *([("teacher", study.spec.distill.teacher)] if study.spec.distill is not None else []),
        ("data", study.spec.data.train),
        *aim_rows(study),
        ("strategies", ", ".join(study.space.names)),
        *(_in_lines("learnt", "; ".join(recipe_words(study)), between="; ") if study.space.learnt else ()),
        *_in_lines("trials", counts_words(study.counts), between=", "),
        *_trouble_rows(snapshot),
        *_in_lines("budget", budget_words(study), between=", "),
        *_forecast_rows(snapshot),
        *([("priority", str(study.priority))] if study.priority else []),
        *_best_rows(snapshot),
    ]
    lines = [study.name, *(f"  {name:<12}{text}" for name, text in rows)]
    if (front := find_front(snapshot.trials, spec=study.spec)) is not None and front.members:
        lines += ["", *front_lines(front, width=None)]
    if snapshot.finalists:
        lines += ["", *finalist_lines(snapshot)]
    if study.state.is_open and not has_worker(snapshot):
        lines += ["", "  no worker is running for it"]
    return lines


def _forecast_rows(snapshot: StudySnapshot) -> list[tuple[str, str]]:
    """What the whole study will have cost when it is over."""
    outlook = foresee_end(snapshot)
    return [] if outlook is None else _in_lines("at the end", outlook_words(outlook), between=", ")


def _trouble_rows(snapshot: StudySnapshot) -> list[tuple[str, str]]:
    """What went wrong, by type, each with its most frequent reason."""
    rows = [row for trouble in list_troubles(snapshot) for row in _in_lines("", f"{trouble.what}: {trouble.why}")]
    return [("went wrong", rows[0][1]), *rows[1:]] if rows else []


def _in_lines(label: str, text: str, *, between: str = " ") -> list[tuple[str, str]]:
    """A row in as many lines as it needs on a terminal of 80 columns, broken only at ``between``."""
    lines = [""]
    for word in text.split(between):
        longer = f"{lines[-1]}{between}{word}" if lines[-1] else word
        if len(longer) > _ROOM and lines[-1]:
            lines[-1] += between.rstrip()
            lines.append(word)
        else:
            lines[-1] = longer
    return [(label if position == 0 else "", line) for position, line in enumerate(lines)]


def _best_rows(snapshot: StudySnapshot) -> list[tuple[str, str]]:
    winner = choose_winner(snapshot)
    if winner is None:
        return [("best", "none yet: no trial is complete")]
    first, *more = winner_words(winner, snapshot.study.metric)
    return [
        ("best", first),
        *(("", line) for line in more),
        *_wrapped(searched(winner.trial.params, snapshot.study, winner.trial.strategy)),
    ]


def winner_words(winner: Winner, metric: str) -> list[str]:
    """The winner in a few lines: which trial, what the search saw, what fresh seeds gave, and what is not known."""
    trial, score = winner.trial, winner.score
    claimed = f"no {metric}" if winner.claimed is None else f"{metric} {winner.claimed:.4f}"
    pruned = ", where it was pruned" if trial.outcome is Outcome.PRUNED else ""
    alone = ", with one seed: expect a little less" if winner.basis is Basis.SEARCH else ""
    lines = [
        f"trial {trial.number}: {trial.strategy}{origin_words(trial)}",
        f"{claimed} in the search{pruned}{alone}",
    ]
    if score is not None and score.mean is not None:
        seeds = f"{len(score.seeds)} fresh seed{'s' if len(score.seeds) != 1 else ''}"
        if score.folds:
            seeds += f" on {count_folds(score)}"
        test = f", {score.test_mean:.4f} on the test rows" if score.test_mean is not None else ""
        more = "; more seeds are to come" if winner.basis is Basis.CONFIRMING else ""
        lines.append(f"{metric} {score.mean:.4f} with {seeds}{test}{more}")
    if winner.basis is Basis.INCOMPLETE or (winner.basis is Basis.SEARCH and winner.gaps):
        lines.append(f"not settled, the confirmation is incomplete: {count_retrainings(winner)}")
        lines += [f"  {gap}" for gap in winner.gaps]
    elif winner.basis is Basis.CONFIRMED and score is not None and len(score.seeds) == 1:
        lines.append("one seed cannot tell how much of its lead is the luck of the seed")
    return lines


def is_silent(worker: WorkerRecord, *, now: float) -> bool:
    """Whether a worker should have given a sign of life by now, or its lease is over."""
    return not worker.is_alive or now - worker.seen_at > SILENT_SECONDS


def worker_state(worker: WorkerRecord, *, now: float) -> str:
    """A worker's state in a word or two: also what it was asked and has not begun."""
    if is_silent(worker, now=now):
        return "silent"
    return f"{worker.state}, asked to {worker.asked}" if worker.asked and worker.state != "draining" else worker.state


def has_worker(snapshot: StudySnapshot) -> bool:
    """Whether any worker is alive; without one, trials that are stored as running are interrupted."""
    return any(worker.is_alive for worker in snapshot.workers)


def is_interrupted(snapshot: StudySnapshot) -> bool:
    """Whether trials or re-trainings are stored as running although no worker is alive."""
    outcomes = [trial.outcome for trial in snapshot.trials]
    outcomes += [run.outcome for finalist in snapshot.finalists for run in finalist.runs]
    return Outcome.RUNNING in outcomes and not has_worker(snapshot)


def worker_command(snapshot: StudySnapshot) -> str:
    """The command that goes on with a study."""
    return f"tuner worker start --study {snapshot.study.name} --until-done"


def running_lines(snapshot: StudySnapshot) -> list[str]:
    """What happens now: the running or interrupted trials and re-trainings, and when the workers were last seen."""
    study = snapshot.study
    rows = []
    for trial in snapshot.trials:
        if trial.outcome is Outcome.RUNNING:
            last = trial.epochs[-1].metrics.get(study.metric) if trial.epochs else None
            score = "" if last is None else f", {study.metric} {last:.4f}"
            done = f"{len(trial.epochs)} of {count_noun(study.spec.training.epochs, 'epoch')}"
            rows.append(f"trial {trial.number} {trial.strategy}: {done}{score}")
    rows += [
        f"trial {finalist.number} again with seed {run.seed}"
        for finalist in snapshot.finalists
        for run in finalist.runs
        if run.outcome is Outcome.RUNNING
    ]
    seen = [
        f"{worker.host} {ago(worker.seen_at, now=snapshot.read_at)}{' (silent)' if is_silent(worker, now=snapshot.read_at) else ''}"
        for worker in snapshot.workers
    ]
    label = "interrupted" if is_interrupted(snapshot) else "running"
    lines = [f"  {label if position == 0 else '':<12}{text}" for position, text in enumerate(rows or ["nothing"])]
    return [*lines, f"  {'workers':<12}{', '.join(seen) or 'none'}"]


def _wrapped(params: Mapping[str, Value]) -> list[tuple[str, str]]:
    rows: list[str] = []
    for word in params_words(params).split("  "):
        if rows and len(rows[-1]) + 2 + len(word) <= 64:
            rows[-1] += f"  {word}"
        else:
            rows.append(word)
    return [("", row) for row in rows]


def finalist_lines(snapshot: StudySnapshot, *, width: int | None = None) -> list[str]:
    """The finalists, best first, with their fresh seeds: mean and standard deviation on the rows that choose and on test rows."""
    scores = score_finalists(snapshot)
    rows = [
        (
            str(score.trial.number),
            f"{score.trial.strategy}{' (baseline)' if score.is_baseline else ''}",
            "-" if score.trial.value is None else f"{score.trial.value:.4f}",
            f"{len(score.seeds)} of {score.planned}{', out' if score.why_out else ''}",
            _mean_sd(score.mean, score.sd),
            _mean_sd(score.test_mean, score.test_sd),
        )
        for score in scores
    ]
    judged = "HELD BACK" if any(score.held_back for score in scores) else "VALIDATION"
    judged = "FOLDS" if any(score.folds for score in scores) else judged
    return table(("FINALIST", "STRATEGY", "SEARCH", "SEEDS", judged, "TEST"), rows, width=width)


def _mean_sd(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.4f}" if sd is None else f"{mean:.4f} ± {sd:.4f}"


def studies_lines(studies: Sequence[StudyRecord], *, now: float, width: int | None) -> list[str]:
    """``tuner study list``; priorities are shown only where a study has one of its own."""
    ranked = any(study.priority for study in studies)
    rows = [
        (
            study.name,
            study.state.value,
            str(study.counts["complete"]),
            str(study.counts["pruned"]),
            str(sum(study.counts[end] for end in ("diverged", "errored", "infeasible"))),
            str(study.counts["running"]),
            budget_words(study),
            *([str(study.priority)] if ranked else []),
            ago(study.created_at, now=now),
        )
        for study in studies
    ]
    headings = ("STUDY", "STATE", "DONE", "PRUNED", "BAD", "RUNNING", "BUDGET")
    return table((*headings, *(["PRIORITY"] if ranked else []), "CREATED"), rows, width=width)


def trials_lines(trials: Sequence[TrialRecord], study: StudyRecord, *, width: int | None) -> list[str]:
    """``tuner study trials``; how often a trial was attempted is shown only where that was more than once.

    A reason that does not fit beside its trial stands below it, whole.
    """
    retried = any(len(trial.attempts) > 1 for trial in trials)
    others = other_objectives(study)
    rows = []
    for trial in trials:
        value = "-" if trial.value is None else f"{trial.value:.4f}"
        row = [str(trial.number), trial.outcome.value, trial.strategy or "-", value, *other_values(trial, others)]
        row.append(str(len(trial.epochs)))
        rows.append([*row, duration(trial.seconds), *([str(len(trial.attempts))] if retried else [])])
    headings = [
        "TRIAL",
        "STATE",
        "STRATEGY",
        study.metric.upper(),
        *(one.metric.upper() for one in others),
        "EPOCHS",
        "TIME",
        *(["ATTEMPTS"] if retried else []),
    ]
    room = None if width is None else width - 2 - max(len(line) for line in table(headings, rows))
    below = [room is not None and len(trial.reason) > room for trial in trials]
    for trial, row, is_below in zip(trials, rows, below, strict=True):
        params = params_words(searched(trial.params, study, trial.strategy))
        row.append("" if is_below else trial.reason or params)
    heading, *lines = table([*headings, "WHY / PARAMS"], rows, width=width)
    shown = [heading]
    for trial, line, is_below in zip(trials, lines, below, strict=True):
        shown.append(line)
        if is_below and width is not None:
            space = " " * 7  # under the state
            shown += textwrap.wrap(
                trial.reason, width, initial_indent=space, subsequent_indent=space, break_on_hyphens=False
            )
    return shown


def workers_lines(workers: Sequence[WorkerRecord], *, now: float, width: int | None) -> list[str]:
    """``tuner worker list``."""
    rows = [
        (
            worker.worker,
            worker.host,
            str(worker.pid),
            ",".join(worker.devices),
            worker_state(worker, now=now),
            ago(worker.seen_at, now=now),
            ", ".join(worker.running) or "-",
        )
        for worker in workers
    ]
    return table(("WORKER", "HOST", "PID", "DEVICES", "STATE", "SEEN", "RUNNING"), rows, width=width)


def clock(moment: float) -> str:
    """A time of day, local."""
    return time.strftime("%H:%M:%S", time.localtime(moment))
