"""What went wrong, by type: how often, and the reason that was given most."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.store.records import Outcome, StudySnapshot
from tuner.study.forecast import BASELINE
from tuner.study.names import count_noun

ENDS = (Outcome.ERRORED, Outcome.DIVERGED, Outcome.INFEASIBLE)
"""How a trial or a re-training ends badly, the worst first."""

STUMBLES = (Outcome.LOST, Outcome.ERRORED, Outcome.INFEASIBLE, Outcome.PREEMPTED)
"""How an attempt ends after which there was another one."""

_MEANING = {
    Outcome.ERRORED: "the data or the code raised an error, or the process died again and again",
    Outcome.DIVERGED: "loss, gradients or scores were no numbers any more, or the loss exploded",
    Outcome.INFEASIBLE: "the configuration cannot run here (memory, shapes), or breaks a constraint of the study",
    Outcome.LOST: "the process or its box died",
    Outcome.PREEMPTED: "given back by a worker that was told to stop, or had no room on its disk; it costs the trial nothing",
}

_MEANING_OF_ATTEMPT = {
    Outcome.ERRORED: "an error that may not come again, such as of a disk or a network",
    Outcome.INFEASIBLE: "memory ran out; a fresh process began with fewer rows at once",
}

_NUMBER = re.compile(r"\d[\d.,]*(?:e[+-]?\d+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """One type of bad end.

    Attributes:
        unit: ``trial``, ``re-training`` or ``attempt``.
        outcome: How they ended.
        numbers: The trial of each, in order; a trial with several attempts stands here as often.
        reason: The reason that was given most: one of those that differ in numbers only.
        times: How often it was given.
    """

    unit: str
    outcome: Outcome
    numbers: tuple[int, ...]
    reason: str
    times: int

    @property
    def trials(self) -> tuple[int, ...]:
        """The trials, each once."""
        return tuple(dict.fromkeys(self.numbers))

    @property
    def meaning(self) -> str:
        """What it means to end so."""
        return (self.unit == "attempt" and _MEANING_OF_ATTEMPT.get(self.outcome)) or _MEANING[self.outcome]

    @property
    def what(self) -> str:
        """How many of what: ``3 attempts lost``."""
        return f"{count_noun(len(self.numbers), self.unit)} {self.outcome.value}"

    @property
    def why(self) -> str:
        """The most frequent reason, and how often it was given where it was not always."""
        reason = self.reason or "no reason was given"
        return reason if self.times == len(self.numbers) else f"{reason} ({self.times} of {len(self.numbers)})"


def list_troubles(snapshot: StudySnapshot) -> tuple[Trouble, ...]:
    """What went wrong in a study: trials first, then re-trainings, then attempts after which there was another one."""
    trials = [(trial.outcome, trial.number, trial.reason) for trial in snapshot.trials]
    again = [(run.outcome, finalist.number, run.reason) for finalist in snapshot.finalists for run in finalist.runs]
    tried = [(trial.number, trial.outcome, trial.attempts) for trial in snapshot.trials]
    tried += [(finalist.number, run.outcome, run.attempts) for finalist in snapshot.finalists for run in finalist.runs]
    attempts = [
        (attempt.outcome, number, attempt.reason)
        for number, outcome, of_run in tried
        for place, attempt in enumerate(of_run, start=1)
        if place < len(of_run) or outcome is Outcome.WAITING
    ]
    found = [_trouble("trial", outcome, trials) for outcome in ENDS]
    found += [_trouble("re-training", outcome, again) for outcome in ENDS]
    found += [_trouble("attempt", outcome, attempts) for outcome in STUMBLES]
    return tuple(trouble for trouble in found if trouble is not None)


def _trouble(unit: str, outcome: Outcome, ends: Sequence[tuple[Outcome, int, str]]) -> Trouble | None:
    such = [(number, reason) for ended, number, reason in ends if ended is outcome]
    if not such:
        return None
    (pattern, times), *_ = Counter(_NUMBER.sub("#", reason) for _, reason in such).most_common(1)
    return Trouble(
        unit=unit,
        outcome=outcome,
        numbers=tuple(number for number, _ in such),
        reason=next(reason for _, reason in such if _NUMBER.sub("#", reason) == pattern),
        times=times,
    )


def why_no_recipe(snapshot: StudySnapshot) -> str:
    """Why the recipe that the winner is compared with was not trained again: another strategy's does not stand in for it."""
    names = snapshot.study.space.names
    strategy = BASELINE if BASELINE in names else names[0]
    for trial in snapshot.trials:
        is_out = trial.outcome in ENDS
        if is_out and trial.is_recipe and trial.strategy == strategy:
            why = f" ({trial.reason})" if trial.reason else ""
            return f"that of {strategy}, trial {trial.number}, ended as {trial.outcome.value}{why}"
    return "none was trained again with fresh seeds"
