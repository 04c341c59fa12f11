"""One trial as text for people: what it is, why, and all that happened to it."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence

from tuner.cli.learnt import origin_words
from tuner.cli.output import table
from tuner.cli.views import clock, number, params_words
from tuner.report.formats import format_count
from tuner.store.records import (
    AttemptRecord,
    ConfirmationRecord,
    EpochRecord,
    EventRecord,
    Outcome,
    TrialRecord,
    TrialStory,
)
from tuner.study.folds import fold_of
from tuner.study.names import count_noun
from tuner.terminal import duration

_LABEL = 12  # columns
_MOST_EPOCHS = 20  # lines; what happened to the trial stands below them
_OFTEN_READ = ("loss", "train_loss", "learning_rate")  # shown after the objective; the others are in the JSON


def story_lines(story: TrialStory, *, width: int | None) -> list[str]:
    """``tuner trial show``."""
    trial, study = story.trial, story.study
    lines = [f"trial {trial.number} of study {study.name}: {trial.outcome.value}"]
    for label, text in _facts(story):
        lines += _labelled(label, text, width=width)
    lines += ["", "attempts"]
    for attempt in trial.attempts:
        lines += _attempt_lines(attempt, width=width)
    for again in story.retrainings:
        lines += ["", *_retraining_lines(again, fold=fold_of(study.spec, seed=again.seed), width=width)]
    if trial.epochs:
        lines += ["", *_epoch_lines(trial.epochs, metric=study.metric, counts=trial.best_epoch, width=width)]
    lines += ["", "events", *_event_lines(story.events, width=width)]
    if last := last_words(trial):
        lines += ["", f"last lines of attempt {last.attempt}", textwrap.indent(last.log_tail.rstrip("\n"), "  ")]
    return lines


def last_words(trial: TrialRecord) -> AttemptRecord | None:
    """The newest attempt whose log was kept: that of a bad end."""
    return next((attempt for attempt in reversed(trial.attempts) if attempt.log_tail), None)


def why(story: TrialStory) -> str:
    """Why the trial is in its state."""
    trial, epochs = story.trial, story.study.spec.training.epochs
    done = f"{len(trial.epochs)} of {count_noun(epochs, 'epoch')}"
    match trial.outcome:
        case Outcome.COMPLETE:
            how = (
                f"all {count_noun(epochs, 'epoch')}" if len(trial.epochs) >= epochs else f"stopped early, after {done}"
            )
            return f"{how}; epoch {trial.best_epoch} counts"
        case Outcome.RUNNING:
            return f"{trial.reason or 'a worker has it'}; {done} so far"
        case Outcome.WAITING:
            return trial.reason or "it has not begun; the next free worker takes it"
        case _:
            return trial.reason or "no reason was given"


def _facts(story: TrialStory) -> list[tuple[str, str]]:
    trial, study = story.trial, story.study
    facts = [("why", why(story)), ("strategy", f"{trial.strategy or 'not proposed yet'}{origin_words(trial)}")]
    if trial.params:
        facts.append(("values", params_words(trial.params)))
    if trial.value is not None:
        facts.append((study.metric, f"{trial.value:.4f}"))
    if trial.trainable_params is not None:
        facts.append(("trains", f"{format_count(trial.trainable_params)} parameters"))
    if trial.peak_memory is not None:
        facts.append(("memory", f"{trial.peak_memory / 2**20:,.0f} MiB at most"))
    if trial.checkpoint:
        facts.append(("weights", trial.checkpoint))
    facts += [("note", note) for note in trial.notes]
    return facts


def _labelled(label: str, text: str, *, width: int | None) -> list[str]:
    first = f"  {label:<{_LABEL}}" if len(label) < _LABEL else f"  {label}  "
    return _wrapped(text, first=first, rest=" " * (_LABEL + 2), width=width)


def _wrapped(text: str, *, first: str, rest: str, width: int | None) -> list[str]:
    """Text in lines of a terminal; one line where nobody looks."""
    if width is None or len(first) + len(text) <= width:
        return [first + text]
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    )


def _attempt_lines(attempt: AttemptRecord, *, width: int | None) -> list[str]:
    end = "now" if attempt.ended_at is None else clock(attempt.ended_at)
    when = f"{_day(attempt.started_at)} {clock(attempt.started_at)} to {end}"
    where = f"{attempt.host} {attempt.slot}, worker {attempt.worker}"
    head = f"  {attempt.attempt}  {attempt.outcome.value}  "
    text = f"{where}; {when}, {duration(attempt.seconds)} of device time"
    lines = _wrapped(text, first=head, rest="     ", width=width)
    return lines + (_wrapped(attempt.reason, first="     ", rest="     ", width=width) if attempt.reason else [])


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(moment))


def _retraining_lines(again: ConfirmationRecord, *, fold: int, width: int | None) -> list[str]:
    reason = f": {again.reason}" if again.reason else ""
    first = f"again with seed {again.seed}{f', judged by fold {fold}' if fold else ''}: "
    lines = _wrapped(f"{again.outcome.value}{reason}", first=first, rest="  ", width=width)
    for attempt in again.attempts:
        lines += _attempt_lines(attempt, width=width)
    return lines


def _epoch_lines(epochs: Sequence[EpochRecord], *, metric: str, counts: int | None, width: int | None) -> list[str]:
    there = {name for record in epochs for name in record.metrics}
    names = [name for name in dict.fromkeys((metric, *_OFTEN_READ)) if name in there]
    shown = _worth_showing(epochs, counts=counts)
    rows = [
        [
            f"{record.epoch}{' *' if record.epoch == counts else ''}",
            *(number(float(f"{record.metrics[name]:.4g}")) if name in record.metrics else "-" for name in names),
            duration(record.seconds),
            str(record.attempt),
        ]
        for record in shown
    ]
    lines = table(["EPOCH", *(name.upper() for name in names), "TIME", "ATTEMPT"], rows, width=width)
    left_out = len(epochs) - len(shown)
    return [*lines, f"and {count_noun(left_out, 'more epoch')}: --json has all"] if left_out else lines


def _worth_showing(epochs: Sequence[EpochRecord], *, counts: int | None) -> list[EpochRecord]:
    """All epochs where they are few; else the first, the last and the one that counts."""
    if len(epochs) <= _MOST_EPOCHS:
        return list(epochs)
    half = _MOST_EPOCHS // 2
    return [
        one for place, one in enumerate(epochs) if place < half or place >= len(epochs) - half or one.epoch == counts
    ]


def _event_lines(events: Sequence[EventRecord], *, width: int | None) -> list[str]:
    longest = max((len(event.kind) for event in events), default=0)
    lines = []
    for event in events:
        head = f"  {clock(event.at)}  {event.kind:<{longest}}  "
        by = event.who or (f"worker {event.worker}" if event.worker else "")
        seed = f"seed {event.seed}" if event.seed is not None else ""
        about = ", ".join(word for word in (seed, by) if word)
        text = f"{event.text} ({about})" if event.text and about else event.text or about
        lines += _wrapped(text, first=head, rest=" " * len(head), width=width)
    return lines or ["  none"]
