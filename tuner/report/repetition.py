"""Whether a trial that was trained once more is what it was, bit for bit, and if not: where it parts, and what was other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.store.records import AttemptRecord, Outcome, TrialRecord

_MISSING = "nothing"
_WORDS = {
    "code": "tuner",
    "data": "the rows to learn from and to judge by",
    "weights": "the pretrained weights",
    "teacher": "the teacher's weights",
    "instructions": "the processor's vector instructions",
    "machine": "the processor's architecture",
    "threads": "CPU threads",
}
_DIGESTS = ("data", "weights", "teacher")
_COMPARED = ("device", "precision", "threads", "instructions", "machine", "code", *_DIGESTS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Where two curves part.

    Attributes:
        epoch: The first epoch that differs.
        metric: The first metric of it that does, the objective before the others.
        then: What was recorded; None where there was no such epoch.
        now: What was measured now; None where there was no such epoch.
        metrics: How many metrics of this epoch differ.
    """

    epoch: int
    metric: str
    then: float | None
    now: float | None
    metrics: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """Something that was other when the trial ran.

    Attributes:
        what: Its name as in the facts of an attempt, such as ``versions.torch``.
        attempt: The attempt that it was other in.
        then: What it was.
        now: What it is here.
    """

    what: str
    attempt: int
    then: str
    now: str

    @property
    def words(self) -> str:
        """For people."""
        name = _WORDS.get(self.what, self.what.removeprefix("versions."))
        if self.what in _DIGESTS:
            return f"{name}: others (digest {self.then[:12] or _MISSING} then, {self.now[:12] or _MISSING} now)"
        return f"{name}: {self.then or _MISSING} then, {self.now or _MISSING} now"


@dataclass(frozen=True, kw_only=True, slots=True)
class Repetition:
    """A trial that was trained once more.

    Attributes:
        study: Its study.
        number: The trial.
        outcome: How the trial had ended.
        ended_as: How its repetition ended, where the trial was not cut before.
        reason: Why it ended so, where it ended badly.
        epochs: Epochs that were compared.
        difference: Where the curves part; None where they do not.
        changes: What was other when the trial ran, as far as that was recorded.
        is_recorded: Whether it was recorded what the trial ran on.
        seconds: What the repetition took.
    """

    study: str
    number: int
    outcome: Outcome
    ended_as: Outcome
    reason: str
    epochs: int
    difference: Difference | None
    changes: tuple[Change, ...]
    is_recorded: bool
    seconds: float

    @property
    def is_equal(self) -> bool:
        """Whether every number is the same, bit for bit, and so is the end."""
        return self.difference is None and self.ended_as is self.outcome


def first_difference(
    then: Sequence[Mapping[str, float]], now: Sequence[Mapping[str, float]], *, metric: str
) -> Difference | None:
    """Where two curves part.

    Args:
        then: Recorded metrics of each epoch; only finite numbers are recorded.
        now: Measured metrics of each epoch; what was not recorded is not compared.
        metric: The objective.
    """
    for epoch in range(1, max(len(then), len(now)) + 1):
        if epoch > len(then) or epoch > len(now):
            value = (then if epoch <= len(then) else now)[epoch - 1].get(metric)
            there = (value, None) if epoch <= len(then) else (None, value)
            return Difference(epoch=epoch, metric=metric, then=there[0], now=there[1], metrics=0)
        before, after = then[epoch - 1], now[epoch - 1]
        names = sorted(before, key=lambda name: (name != metric, name))
        wrong = [name for name in names if before[name] != after.get(name, math.nan)]
        if wrong:
            name = wrong[0]
            return Difference(epoch=epoch, metric=name, then=before[name], now=after.get(name), metrics=len(wrong))
    return None


def changes_since(trial: TrialRecord, facts: Mapping[str, Any]) -> tuple[Change, ...]:
    """What was other when a trial ran, each thing once, as the last attempt has it that it was other in.

    Args:
        trial: The trial.
        facts: What is so now.
    """
    now = dict(_flat(facts))
    found: dict[str, Change] = {}
    for attempt in attempts_that_count(trial):
        for what, then in _flat(attempt.facts):
            if what in now and now[what] != then:
                found[what] = Change(what=what, attempt=attempt.attempt, then=then, now=now[what])
    return tuple(found.values())


def attempts_that_count(trial: TrialRecord) -> list[AttemptRecord]:
    """The attempts that a trial's curve is of, as far as it is known what they ran on."""
    reported = {record.attempt for record in trial.epochs}
    last = trial.attempts[-1].attempt if trial.attempts else 0
    return [one for one in trial.attempts if one.facts and (one.attempt in reported or one.attempt == last)]


def _flat(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in _COMPARED:
        if name in facts:
            yield name, str(facts[name])
    for name, version in facts.get("versions", {}).items():
        yield f"versions.{name}", str(version)


def repetition_lines(found: Repetition) -> list[str]:
    """The answer for people: the verdict first, then what was other."""
    lines = [f"trial {found.number} of study {found.study} is {what_happened(found)}"]
    lines += [f"  {change.words}" for change in found.changes]
    if not found.is_equal and not found.changes:
        lines.append(f"  {_why_unexplained(found)}")
    return lines


def what_happened(found: Repetition) -> str:
    """The verdict in words that follow "the trial is"."""
    epochs = f"{found.epochs} epoch{'' if found.epochs == 1 else 's'}"
    if found.is_equal:
        cut = "" if found.outcome is Outcome.COMPLETE else f", {found.outcome.value} as it was"
        return f"reproduced bit for bit: every metric of {epochs}{cut} ({found.seconds:.1f} s)"
    if found.difference is not None:
        return f"not reproduced: {_parting(found.difference)}"
    why = f": {found.reason}" if found.reason else ""
    return f"not reproduced: {epochs} are the same, but it was {found.outcome.value} and is now {found.ended_as.value}{why}"


def _parting(difference: Difference) -> str:
    if difference.now is None or difference.then is None:
        missing = "now" if difference.now is None else "then"
        return f"there was no epoch {difference.epoch} {missing}"
    others = f" (and {difference.metrics - 1} more metrics)" if difference.metrics > 1 else ""
    return f"{difference.metric} at epoch {difference.epoch} was {difference.then!r} and is {difference.now!r}{others}"


def _why_unexplained(found: Repetition) -> str:
    if not found.is_recorded:
        return "it is not recorded what it ran on: it is of an older tuner"
    return "nothing that is recorded differs; a GPU's sums, and a processor of another kind, may differ in their last digits"
