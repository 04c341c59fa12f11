"""What leaves the store: frozen records, never rows.

All times are seconds since 1970 by the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tuner.study.domains import Value
from tuner.study.plan import Confusion, TestScore
from tuner.study.space import SearchSpace
from tuner.study.spec import StudySpec


class StudyState(Enum):
    """What workers do with a study."""

    SEARCHING = "searching"  # trials are proposed
    CONFIRMING = "confirming"  # the budget is used; finalists are trained again
    FINISHED = "finished"  # nothing is left to do
    PAUSED = "paused"  # nothing new is claimed until it is resumed
    STOPPED = "stopped"  # ended by a person; it may be resumed

    @property
    def is_open(self) -> bool:
        """Whether workers may claim runs of it."""
        return self in (StudyState.SEARCHING, StudyState.CONFIRMING)


class Outcome(Enum):
    """What became of a trial, or of one attempt at it."""

    WAITING = "waiting"  # no worker has it now; the next free one takes it
    RUNNING = "running"  # a worker holds a lease on it
    COMPLETE = "complete"  # it has a result
    PRUNED = "pruned"  # it was losing and was stopped; its curve counts
    INFEASIBLE = "infeasible"  # this configuration cannot run here, or breaks a constraint
    DIVERGED = "diverged"  # its loss or its gradients were no longer numbers
    ERRORED = "errored"  # data or code raised an error, or its process died again and again; see the reason
    PREEMPTED = "preempted"  # attempts only: a worker that was told to stop gave it back
    LOST = "lost"  # attempts only: its worker died or lost the lease

    @property
    def is_finished(self) -> bool:
        """Whether the trial will not run again by itself."""
        return self in FINISHED


FINISHED = (Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED, Outcome.INFEASIBLE, Outcome.ERRORED)
"""The ends of a trial."""


class Asked(Enum):
    """What a person asks of a worker, or of the worker that has a run."""

    NOTHING = ""
    STOP = "stop"  # of a run: end it for good
    RELEASE = "release"  # of a run: give it back with its checkpoint
    DRAIN = "drain"  # of a worker: give everything back and leave


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord:
    """What one epoch of a run reported.

    Attributes:
        epoch: 1-based.
        metrics: Validation metrics, and ``train_loss`` and ``learning_rate``.
        seconds: Device seconds from the start of the run to this report, without what attempts lost that died.
        attempt: Which attempt reported it.
    """

    epoch: int
    metrics: Mapping[str, float]
    seconds: float
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptRecord:
    """One execution of a run, on one worker.

    Attributes:
        attempt: 1, 2, … within the run; it is the fencing epoch of the lease.
        worker: The worker's id.
        host: Where it ran.
        slot: Which device share, such as ``cuda:0/1`` or ``cpu/0``.
        outcome: How it ended, or RUNNING.
        reason: Why, in words; empty for a plain end.
        started_at: Time of the claim.
        ended_at: Time of the end, None while it runs.
        seconds: Device seconds.
        log_tail: Last lines of the runner's log, kept for bad ends only.
        facts: What the runner said when the model stood: device, threads, versions, the code, and digests of the rows and the pretrained
            weights; empty if it never stood.
    """

    attempt: int
    worker: str
    host: str
    slot: str
    outcome: Outcome
    reason: str
    started_at: float
    ended_at: float | None
    seconds: float
    log_tail: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """One configuration and all that is known of it.

    Attributes:
        number: Optuna's trial number.
        outcome: State for people.
        reason: Why it is in this state, in words: ``macro_f1 0.41 at epoch 1 is below the best third (0.62)``.
        strategy: The strategy or combination; empty while it is being proposed.
        params: Absolute values; empty while it is being proposed.
        is_recipe: Whether this is a strategy's default recipe.
        learnt_from: The past trial whose values it takes, as ``STUDY/NUMBER``; empty for none.
        seed: Of its search run.
        micro_batches: From which step on how many rows were on the device at once; empty where it is not known.
        value: The objective: of the epoch that counts if complete, of the last report if pruned, else None.
        best_epoch: The epoch that counts, None before the first report.
        epochs: What each epoch reported, in order, the newest attempt's word where two reported the same epoch.
        attempts: All executions, in order.
        seconds: Device seconds over all attempts.
        trainable_params: Parameters that receive gradients, None if it never started.
        peak_memory: Bytes, None if it never finished an epoch.
        confusion: Validation counts of the epoch that counts.
        checkpoint: Folder with the weights of the best epoch; empty if none is kept.
        notes: What a person should know.
        started_at: First claim.
        ended_at: Last end, None while open.
    """

    number: int
    outcome: Outcome
    reason: str
    strategy: str
    params: Mapping[str, Value]
    is_recipe: bool
    value: float | None
    best_epoch: int | None
    epochs: tuple[EpochRecord, ...]
    attempts: tuple[AttemptRecord, ...]
    seconds: float
    trainable_params: int | None
    peak_memory: int | None
    confusion: Confusion | None
    checkpoint: str
    notes: tuple[str, ...]
    started_at: float
    ended_at: float | None
    learnt_from: str = ""
    seed: int = 0
    micro_batches: tuple[tuple[int, int], ...] = ()


EXHAUSTED = "every point of the space was tried"
"""Why a search is over that no budget lets go on."""

OUT_OF_BUDGET = "budget of "
"""How the reason begins why a run was ended, or not begun, for want of budget: it may run again with more."""

OUT_OF_THE_RACE = "out of the race"
"""How the reason begins why a re-training was cancelled: its finalist could not be expected to win any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfirmationRecord:
    """One re-training of a finalist with a fresh seed.

    Attributes:
        seed: The fresh seed.
        outcome: State for people.
        reason: Why, in words.
        metrics: Validation metrics of the epoch that counts; empty before the end.
        test: Test score; None before the end or without test rows.
        held_back: Score on the validation rows that the search never saw; None before the end or without such rows.
        checkpoint: Folder with the weights; empty if none is kept.
        seconds: Device seconds over all attempts.
        attempts: All executions, in order.
    """

    seed: int
    outcome: Outcome
    reason: str
    metrics: Mapping[str, float]
    test: TestScore | None
    checkpoint: str
    seconds: float
    attempts: tuple[AttemptRecord, ...] = ()
    held_back: TestScore | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether it was not trained because its finalist had fallen behind: no score is missing."""
        return self.outcome is Outcome.PRUNED and self.reason.startswith(OUT_OF_THE_RACE)


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalistRecord:
    """A trial that was chosen for confirmation.

    Attributes:
        number: The trial.
        rank: 1 for the best value of the search; the baseline that was added beyond the best has the last rank.
        is_baseline: Whether it is the default recipe that the winner is compared with.
        runs: Its re-trainings, by seed.
    """

    number: int
    rank: int
    is_baseline: bool
    runs: tuple[ConfirmationRecord, ...]

    @property
    def why_out(self) -> str:
        """Why its last re-trainings were cancelled; empty if it stayed in the race."""
        return next((run.reason for run in self.runs if run.is_cancelled), "")


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedRun:
    """A run that has ended and may run again.

    Attributes:
        in_search: Whether it is a trial of the search, not a re-training.
        strategy: Empty where none was proposed.
        epochs: What it has trained.
    """

    in_search: bool
    strategy: str
    epochs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RunGroup:
    """Runs of a study that are alike, added up.

    Attributes:
        in_search: Whether they are trials of the search, not re-trainings.
        strategy: Empty while it is being proposed.
        outcome: What they are.
        runs: How many.
        epochs: Epochs that each has trained.
        reserved: Epochs that each may train.
        seconds: Device seconds of them all, over all attempts.
    """

    in_search: bool
    strategy: str
    outcome: Outcome
    runs: int
    epochs: int
    reserved: int
    seconds: float

    @property
    def is_open(self) -> bool:
        """Whether they run or wait."""
        return not self.outcome.is_finished


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetUse:
    """What a study has used of its budget.

    Attributes:
        trials: Trials claimed, whatever became of them.
        epochs: Epochs trained in the search, plus those reserved by running trials.
        gpu_seconds: Device seconds over all attempts, confirmation included.
        confirm_seconds: Of those, the confirmation's.
        began_at: When the first attempt began, None before.
        wall_seconds: Seconds by the clock since then, up to now.
        groups: What the device seconds were used for, and what runs or waits; see :mod:`tuner.store.costs`.
    """

    trials: int
    epochs: int
    gpu_seconds: float
    confirm_seconds: float
    began_at: float | None = None
    wall_seconds: float = 0.0
    groups: tuple[RunGroup, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerRecord:
    """One supervisor process.

    Attributes:
        state: What it says it does: ``running`` or ``draining``.
        is_alive: Whether it has given a sign of life within its lease.
        running: Numbers of the trials that it holds, with a ``c`` behind those of a confirmation.
        asked: What a person asks of it and it has not begun to do: ``drain``, or nothing.
        code: As in :class:`StudyRecord`.
    """

    worker: str
    host: str
    pid: int
    devices: tuple[str, ...]
    state: str
    started_at: float
    seen_at: float
    is_alive: bool
    running: tuple[str, ...] = ()
    asked: str = ""
    code: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRecord:
    """A study without its trials.

    Attributes:
        study_id: Optuna's study id.
        uid: Random and never used again, unlike the id and the name of a deleted study.
        metric: The objective's metric.
        maximize: Whether more is better.
        state: What workers do with it.
        state_reason: Why, in words: ``budget of 30 trials is used``.
        counts: Trials by outcome: complete, pruned, diverged, errored, infeasible, running, waiting; every key is present.
        priority: Studies with a higher one are served first.
        code: Which code made it; see :mod:`tuner.source`. Empty: not known.
        search_over: Why no new trial may start, whatever is left of the budget; empty: one may.
    """

    study_id: int
    uid: str
    name: str
    spec: StudySpec
    space: SearchSpace
    metric: str
    maximize: bool
    state: StudyState
    state_reason: str
    created_at: float
    finished_at: float | None
    counts: Mapping[str, int]
    used: BudgetUse
    priority: int = 0
    code: str = ""
    search_over: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class EventRecord:
    """Something that happened.

    Attributes:
        at: When.
        kind: A word that programs filter by, such as ``run_lost``.
        text: A sentence for people.
        seed: The fresh seed of the re-training that it is about; None if it is about the search run, or about no run.
        worker: The worker that it happened to; empty if it happened to none.
        who: The person who asked for it, as ``user@host``; empty if nobody did.
    """

    at: float
    kind: str
    text: str
    seed: int | None
    worker: str
    who: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialStory:
    """One trial and everything that happened to it, read in one transaction.

    Attributes:
        study: Its study.
        trial: The trial.
        retrainings: Its re-trainings with fresh seeds, if it is a finalist.
        events: In the order in which they happened.
        read_at: When it was read.
    """

    study: StudyRecord
    trial: TrialRecord
    retrainings: tuple[ConfirmationRecord, ...]
    events: tuple[EventRecord, ...]
    read_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySnapshot:
    """A study and everything that happened in it, read in one transaction.

    Attributes:
        read_at: When it was read.
    """

    study: StudyRecord
    trials: tuple[TrialRecord, ...]
    finalists: tuple[FinalistRecord, ...]
    workers: tuple[WorkerRecord, ...] = field(default=())
    read_at: float = 0.0

    def trial(self, number: int) -> TrialRecord:
        """The trial with this number.

        Raises:
            KeyError: If there is none.
        """
        for trial in self.trials:
            if trial.number == number:
                return trial
        raise KeyError(number)
