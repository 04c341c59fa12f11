"""The study driver: hands out trials, judges their reports, ends the search. Ask-and-tell over Optuna.

Every worker has its own driver; all they share is the database. A trial's proposal depends on the history and the trial's number only,
never on the worker: the sampler is seeded anew for each trial.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import optuna
from optuna.storages._rdb import models as optuna_models

from tuner.errors import (
    ConfigurationError,
    LeaseLost,
    NotFoundError,
    TrialDiverged,
    TrialError,
    UnavailableError,
    first_line,
)
from tuner.search.aims import Aims
from tuner.search.budget import (
    has_clock,
    seconds_until_stop,
    why_no_new_trial,
    why_no_retraining,
    why_run_must_stop,
    with_budget,
)
from tuner.search.confirm import choose_finalists, find_fallen, fresh_seeds
from tuner.search.judgement import Judgement, Proposal
from tuner.search.teacher import plan_teacher
from tuner.store import confirmation, events, leases, optuna_rows, studies
from tuner.store.database import Database
from tuner.store.leases import Holder, Lease
from tuner.store.metrics import last_value, store_missing, store_report
from tuner.store.queries import load_snapshot
from tuner.store.records import EXHAUSTED, BudgetUse, Outcome, StudyRecord, StudyState
from tuner.store.transactions import plain_cause
from tuner.study.plan import TrialResult, Verdict
from tuner.study.spec import BudgetSpec


class StudyDriver:
    """Claim, report and finish for one study.

    Attributes:
        study: The study as it was when last read.
        teacher: The model that its runs learn from besides the labels; None if it asks for none.
    """

    def __init__(self, db: Database, *, name: str) -> None:
        """Read the study and prepare its sampler and pruner.

        Raises:
            NotFoundError: If there is no such study.
            ConfigurationError: If its sampler or pruner cannot be made, or its teacher's weights are not on this box.
            UnavailableError: If the database cannot be reached.
        """
        self._db = db
        self.study: StudyRecord = studies.find_study(db, name)
        self.teacher = plan_teacher(db, spec=self.study.spec)
        self._retried = self._newest_retry()  # before the history is read: what is retried meanwhile is seen later
        self._judgement = _judgement(db, self.study)
        self._aims = Aims(db, self.study)
        self._raced = 0  # re-trainings with a score when the race was last looked at
        self._unproposed: Lease | None = None  # claimed, but the database went away before it could be handed out

    def claim(self, holder: Holder, *, grace: float = 0.0) -> Lease | None:
        """Take a run, with its values proposed; None if there is nothing to do now.

        Args:
            holder: Who claims.
            grace: Seconds beyond their ends for which the leases of others are respected.

        Raises:
            LeaseLost: If another worker took the run over while its values were proposed, or the study was deleted.
            ConfigurationError: If a newer tuner has changed the study, and this one cannot read it.
            UnavailableError: If the database cannot be reached.
        """
        lease, self._unproposed = self._unproposed, None
        if lease is None:
            self._drop_fallen(self.study)  # here, too: who always finds something to claim never asks what is over
            lease = self._claim(holder, grace=grace)
        if lease is None:
            return None
        try:
            self._see_retries()
            return lease if lease.strategy is not None else self._bind(lease)
        except UnavailableError:
            self._unproposed = lease  # else nobody would train it until the lease expires
            raise

    def _bind(self, lease: Lease) -> Lease | None:
        """Let the sampler propose values and store them; None if it cannot, which pauses the study."""
        try:
            found = self._propose(lease)
        except (UnavailableError, LeaseLost):
            raise
        except (ConfigurationError, ImportError, MemoryError) as error:  # of this box, or of this database user
            reason = f"sampler {self.study.spec.search.sampler.name} cannot draw here: {first_line(error)}"
            leases.release(self._db, lease, reason=reason, seconds=0.0)
            raise ConfigurationError(reason) from error
        except Exception as error:  # noqa: BLE001 - a sampler may fail in any way, and would in every worker
            self._give_up_sampling(lease, error)
            return None
        return leases.bind_proposal(self._db, lease, strategy=found.strategy, params=found.params, drawn=found.drawn)

    def _see_retries(self) -> None:
        """Read the history anew where a trial runs again: what has ended, Optuna keeps as it read it once."""
        newest = self._newest_retry()
        if newest != self._retried:
            self._judgement, self._retried = _judgement(self._db, self.study), newest

    def _newest_retry(self) -> int:
        return self._db.read(lambda tx: events.newest(tx, events.RETRIED, study_id=self.study.study_id))

    def _claim(self, holder: Holder, *, grace: float) -> Lease | None:
        spec = self.study.spec
        return leases.claim(
            self._db,
            study_id=self.study.study_id,
            uid=self.study.uid,
            holder=holder,
            # Judged under the study's lock by the budget that stands there: people change it while workers run.
            quota=self._why_no_new_trial,
            limit=lambda budget, used, in_search: why_run_must_stop(
                with_budget(spec, budget), used, in_search=in_search
            ),
            room=lambda budget, used, strategy: why_no_retraining(with_budget(spec, budget), used, strategy),
            recipes=self._judgement.recipes,
            epochs=spec.training.epochs,
            seed=spec.training.seed,
            grace=grace,
        )

    def report(
        self,
        lease: Lease,
        *,
        epoch: int,
        metrics: Mapping[str, float],
        seconds: float,
        extend: float,
        peak_memory: int = 0,
    ) -> tuple[Verdict, str]:
        """Store an epoch and say whether the run goes on.

        Args:
            lease: The run's lease.
            epoch: 1-based.
            metrics: Validation metrics; must hold the objective's.
            seconds: Device seconds of this attempt so far.
            extend: Seconds by which the lease is extended.
            peak_memory: Bytes at most so far; 0: not known.

        Returns:
            The verdict, and why in words if the run must stop.

        Raises:
            LeaseLost: If the run is no longer ours.
            TrialError: If the objective's metric is missing.
            TrialDiverged: If it is not finite.
            UnavailableError: If the database cannot be reached.
        """
        value = self._objective(metrics)
        store_report(
            self._db,
            lease,
            epoch=epoch,
            values=metrics,
            objective=None if self._aims.has_front else value,
            seconds=seconds,
            extend=extend,
            peak_memory=peak_memory,
        )
        if reason := self._aims.why_out_of_bounds(lease):
            # Its end may be told much later, after an outage; until then it must stop nobody.
            leases.set_aside_rungs(self._db, lease)
            return Verdict.PRUNE, reason
        spec = self.study.spec
        if epoch >= (lease.epochs or spec.training.epochs):
            return Verdict.GO_ON, ""
        if reason := self.why_out_of_time(lease):
            return Verdict.PRUNE, reason
        if lease.purpose != "search":
            return Verdict.GO_ON, ""
        if self._aims.has_front:
            reason = self._aims.why_dominated(lease, epoch=epoch)
            return (Verdict.PRUNE, reason) if reason else (Verdict.GO_ON, "")
        with _translated(self._db):
            if lease.attempt > 1:
                self._forget_rungs(lease, after=epoch)
            if self._judgement.loses(lease.trial_id, is_recipe=lease.is_tried_first, epoch=epoch):
                return Verdict.PRUNE, self._why_pruned(epoch=epoch, value=value)
        return Verdict.GO_ON, ""

    def _forget_rungs(self, lease: Lease, *, after: int) -> None:
        """Let a run be judged again that goes on from an earlier epoch than its last attempt had reached, as where checkpoints were lost."""
        if later := self._judgement.rungs_after(lease.trial_id, epoch=after):
            leases.set_aside_rungs(self._db, lease, only=later)

    def recall(self, lease: Lease, *, epoch: int, metrics: Mapping[str, float]) -> None:
        """Store what an earlier attempt measured, if it was never stored: the database was gone then.

        Raises:
            LeaseLost: If the run is no longer ours.
            TrialError: If the objective's metric is missing.
            TrialDiverged: If it is not finite.
            UnavailableError: If the database cannot be reached.
        """
        objective = None if self._aims.has_front else self._objective(metrics)
        store_missing(self._db, lease, epoch=epoch, values=metrics, objective=objective)

    @property
    def has_clock(self) -> bool:
        """Whether time alone can end what runs of the study."""
        return has_clock(self.study.spec.budget)

    def why_out_of_time(self, lease: Lease) -> str:
        """Why a run must stop where it is: the study's device hours are used up; an empty string if it may go on."""
        return self.time_left(lease)[0]

    def time_left(self, lease: Lease) -> tuple[str, float]:
        """Why a run must stop where it is, or an empty string, and in how many seconds there may be a reason."""
        self._see_budget()
        if not self.has_clock:
            return "", math.inf
        used = self._db.read(lambda tx: studies.budget_use(tx, lease.study_id))
        spec, in_search = self.study.spec, lease.purpose == "search"
        return why_run_must_stop(spec, used, in_search=in_search), seconds_until_stop(spec, used, in_search=in_search)

    def _see_budget(self) -> None:
        """Judge by the budget as it is now: people change it while a run goes on, and may do so from a newer tuner.

        What this code cannot read it does not judge by; the worker serves such a study no more.
        """
        with contextlib.suppress(ConfigurationError):
            budget = self._db.read(lambda tx: studies.budget_now(tx, self.study.study_id, uid=self.study.uid))
            if budget is not None:
                self.study = replace(self.study, spec=with_budget(self.study.spec, budget))

    def cut(self, lease: Lease, *, reason: str, seconds: float) -> None:
        """Store the end of a run whose process was ended for its budget before it could answer.

        Raises:
            LeaseLost: If the run is no longer ours; nothing was written.
            UnavailableError: If the database cannot be reached.
        """
        value = self._last_reported(lease)
        self._tell_sampler(lease, Outcome.PRUNED, value)
        values = () if self._aims.has_front else None
        leases.finish(
            self._db, lease, outcome=Outcome.PRUNED, reason=reason, seconds=seconds, value=value, values=values
        )

    def finish(self, lease: Lease, *, result: TrialResult, reason: str = "") -> tuple[Outcome, float | None, str]:
        """Store the end of a run that ended well, pruned ones included.

        Args:
            lease: The run's lease.
            result: What the training answered.
            reason: Why it was pruned, in words.

        Returns:
            The outcome, the objective's value, and why: the constraint that it breaks may be another reason than the one given.

        Raises:
            LeaseLost: If the run is no longer ours; nothing was written.
            TrialError: If the objective's metric is missing.
            TrialDiverged: If it is not finite.
            UnavailableError: If the database cannot be reached.
        """
        outcome = Outcome.PRUNED if result.ended_by == Verdict.PRUNE.value else Outcome.COMPLETE
        value = self._last_reported(lease) if outcome is Outcome.PRUNED else self._objective(result.metrics)
        end = self._aims.judge(lease, outcome=outcome, reason=reason, result=result)
        if end.outcome is Outcome.INFEASIBLE:
            value, result = None, replace(result, checkpoint="")  # it cannot win: nobody will ask for its weights
        self._tell_sampler(lease, end.outcome, value, values=end.values)
        leases.finish(
            self._db,
            lease,
            outcome=end.outcome,
            reason=end.reason,
            seconds=result.seconds,
            value=value,
            values=end.values,
            bounds=end.bounds,
            result=result.finite(),
        )
        self._end_if_settled(lease)
        return end.outcome, value, end.reason

    def _end_if_settled(self, lease: Lease) -> None:
        """End the search if the next trials are expected to gain less than the study asks for."""
        if lease.purpose != "search" or self.study.spec.search.stop_when is None:  # which a person may take back
            return
        with _translated(self._db):
            reason = self._judgement.why_settled(metric=self.study.metric)
        if reason:
            studies.end_settled_search(self._db, lease.study_id, reason=reason)

    def fail(self, lease: Lease, *, outcome: Outcome, reason: str, seconds: float, log_tail: str) -> None:
        """Store the end of a run that cannot succeed: infeasible, diverged or errored.

        Raises:
            LeaseLost: If the run is no longer ours; nothing was written.
            UnavailableError: If the database cannot be reached.
        """
        self._tell_sampler(lease, outcome, None)
        bounds = self._aims.broken_costs(lease) if outcome is Outcome.INFEASIBLE else None
        leases.finish(
            self._db, lease, outcome=outcome, reason=reason, seconds=seconds, bounds=bounds, log_tail=log_tail
        )

    def advance(self, *, grace: float = 0.0) -> StudyRecord:
        """Move the study on if its search or its confirmation is over; the study as it is then.

        Args:
            grace: As in :meth:`claim`.

        Raises:
            NotFoundError: If the study was deleted, also if another one has its name now.
            UnavailableError: If the database cannot be reached.
        """
        study = studies.find_study(self._db, self.study.name)
        if study.uid != self.study.uid:
            raise NotFoundError(f'study "{study.name}" was deleted and made anew')
        self.study = study
        if study.state is StudyState.SEARCHING:
            leases.reclaim_expired(self._db, study.study_id, grace=grace)
            over = self._why_search_is_over(study)
            if over and not study.counts["running"] and not study.counts["waiting"]:
                trials = load_snapshot(self._db, study.name).trials
                confirmation.start_confirmation(
                    self._db,
                    study_id=study.study_id,
                    finalists=choose_finalists(trials, study=study),
                    seeds=fresh_seeds(study),
                    epochs=study.spec.training.epochs,
                    quota=self._why_no_new_trial,
                )
        elif study.state is StudyState.CONFIRMING:
            self._drop_fallen(study)
            confirmation.finish_confirmation(self._db, study_id=study.study_id, quota=self._why_no_new_trial)
        else:
            return study
        self.study = studies.find_study(self._db, study.name)
        return self.study

    def _drop_fallen(self, study: StudyRecord) -> None:
        """Cancel what waits of finalists that have lost the race."""
        scored = confirmation.confirmations_over(self._db, study.study_id)
        if scored == self._raced:
            return  # nothing new since it was last looked at
        fallen = find_fallen(load_snapshot(self._db, study.name).finalists, study=study)
        if fallen:
            confirmation.drop_finalists(self._db, study_id=study.study_id, reasons=fallen)
        self._raced = scored

    def _why_no_new_trial(self, budget: BudgetSpec, used: BudgetUse) -> str:
        return why_no_new_trial(with_budget(self.study.spec, budget), used)

    def _why_search_is_over(self, study: StudyRecord) -> str:
        over = self._db.read(lambda tx: studies.why_search_is_over(tx, study.study_id))
        return over or why_no_new_trial(study.spec, study.used)

    def _propose(self, lease: Lease) -> Proposal:
        """Sample a strategy and its values."""
        with _translated(self._db):
            return self._judgement.propose(lease.trial_id, number=lease.number)

    def _give_up_sampling(self, lease: Lease, error: Exception) -> None:
        """A sampler that cannot propose would fail every worker in turn: pause the study and say why."""
        reason = f"sampler {self.study.spec.search.sampler.name} failed: {type(error).__name__}: {first_line(error)}"
        leases.finish(self._db, lease, outcome=Outcome.ERRORED, reason=reason, seconds=0.0)
        studies.pause_study(self._db, lease.study_id, reason=reason)

    def _tell_sampler(
        self, lease: Lease, outcome: Outcome, value: float | None, *, values: Sequence[float] | None = None
    ) -> None:
        """Give the sampler its word before a trial's end, as `Study.tell` does; it may say that the space is exhausted."""
        if lease.purpose != "search":
            return
        with _translated(self._db):
            exhausted = self._judgement.end(
                lease.trial_id,
                number=lease.number,
                state=optuna_rows.STATE_OF_OUTCOME[outcome],
                value=value if values is None else values,
            )
        if exhausted:
            studies.end_search(self._db, lease.study_id, reason=EXHAUSTED)

    def _objective(self, metrics: Mapping[str, float]) -> float:
        name = self.study.metric
        value = metrics.get(name)
        if value is None:
            raise TrialError(
                f'no metric "{name}" was reported', why=f"got {', '.join(sorted(metrics))}", fix="set objective.metric"
            )
        if not math.isfinite(value):
            raise TrialDiverged(f"{name} is {value}", fix="lower the learning rate")
        return float(value)

    def _last_reported(self, lease: Lease) -> float | None:
        if self._aims.has_front:
            return last_value(self._db, lease, metric=self.study.metric)
        epoch = self._db.read(lambda tx: leases.epochs_done(tx, lease))
        with _translated(self._db):
            return self._judgement.last_reported(lease.trial_id, epoch=epoch)

    def _why_pruned(self, *, epoch: int, value: float) -> str:
        """Where this trial stands among all that reported the same epoch."""
        there = self._judgement.values_at(epoch)
        better = sum(other > value if self.study.maximize else other < value for other in there)
        best = max(there) if self.study.maximize else min(there)
        return f"{self.study.metric} {value:.4g} at epoch {epoch} is rank {better + 1} of {len(there)} there (best {best:.4g})"


def _judgement(db: Database, study: StudyRecord) -> Judgement:
    optuna.logging.set_verbosity(logging.WARNING)
    spec = study.spec
    with _translated(db):
        if study.name not in optuna.get_all_study_names(db.optuna_storage()):
            raise NotFoundError(f'study "{study.name}" was deleted with Optuna\'s own tools')
        record = optuna.load_study(study_name=study.name, storage=db.optuna_storage())
        return Judgement(record, space=study.space, search=spec.search, epochs=spec.training.epochs)


@contextlib.contextmanager
def _translated(db: Database) -> Iterator[None]:
    """Optuna dresses every database error as "invalid data ... exceeding max length": say what it was.

    A trial that it does not find was deleted, with its study, and the lease with it.
    """
    try:
        yield
    except KeyError as error:
        if optuna_models.NOT_FOUND_MSG in str(error):
            raise LeaseLost("the trial was deleted") from error
        raise
    except optuna.exceptions.StorageInternalError as error:
        raise UnavailableError(f"database {db.safe_url}: {plain_cause(error.__cause__ or error)}") from error
