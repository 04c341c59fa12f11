"""What a study's trials are held to besides the first objective: further objectives, and constraints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.search.pareto import why_dominated
from tuner.store import metrics as stored
from tuner.store.database import Database
from tuner.store.fronts import values_of
from tuner.store.leases import Lease
from tuner.store.records import Outcome, StudyRecord
from tuner.study.constraints import read_constraints
from tuner.study.plan import TrialResult


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """What becomes of a run that ended well, or was stopped.

    Attributes:
        outcome: COMPLETE, PRUNED, or INFEASIBLE where a constraint is broken.
        reason: Why, in words.
        values: What Optuna is told where several objectives count; None where one does.
        bounds: By what share of its bound each constraint is broken; at or below 0 it is kept.
    """

    outcome: Outcome
    reason: str
    values: tuple[float, ...] | None
    bounds: Mapping[str, float]


class Aims:
    """Judges the runs of one study by all its objectives and constraints.

    A trial that breaks a constraint is infeasible: it has no value, is no finalist and cannot win. What it costs only grows, so a
    cost above its bound ends it at once; what it reaches is judged at its end.
    """

    def __init__(self, db: Database, study: StudyRecord) -> None:
        """Read the study's aims; they never change."""
        self._db = db
        self._study_id = study.study_id
        self._epochs = study.spec.training.epochs
        self._prunes = study.spec.search.pruner.name != "none"
        self._objectives = study.spec.objectives
        self._constraints = read_constraints(study.spec.constraints)
        self._costs = [one for one in self._constraints if one.is_cost]
        self.has_front = study.spec.has_front

    def why_out_of_bounds(self, lease: Lease) -> str:
        """Why a run's costs break a constraint already; an empty string if they do not."""
        if lease.purpose != "search" or not self._costs:
            return ""
        return self._broken(stored.costs_so_far(self._db, lease), only_costs=True)[0]

    def why_dominated(self, lease: Lease, *, epoch: int) -> str:
        """Why a run that has just reported loses against the others; an empty string if it does not."""
        if not self._prunes:
            return ""
        return why_dominated(
            stored.standings(self._db, self._study_id, epoch=epoch),
            number=lease.number,
            epoch=epoch,
            epochs=self._epochs,
            objectives=self._objectives,
            is_recipe=lease.is_tried_first,
        )

    def judge(self, lease: Lease, *, outcome: Outcome, reason: str, result: TrialResult) -> End:
        """What becomes of a run, from what its training answered.

        Args:
            lease: The run.
            outcome: COMPLETE or PRUNED: as it looks without constraints.
            reason: Why it was pruned.
            result: The answer.
        """
        if lease.purpose != "search" or not (self._constraints or self.has_front):
            return End(outcome=outcome, reason=reason, values=None, bounds={})
        facts = {
            **result.metrics,
            "trainable_params": float(result.trainable_params),
            "seconds": stored.earlier_seconds(self._db, lease) + result.seconds,
            "peak_memory": float(result.peak_memory),
        }
        is_complete = outcome is Outcome.COMPLETE
        why, bounds = self._broken(facts, only_costs=not is_complete)
        if why:
            outcome, reason = Outcome.INFEASIBLE, why
        values = None
        if self.has_front:
            values = (values_of(facts, self._objectives) if outcome is Outcome.COMPLETE else None) or ()
        return End(outcome=outcome, reason=reason, values=values, bounds=bounds if is_complete or why else {})

    def broken_costs(self, lease: Lease) -> Mapping[str, float]:
        """The bounds of a run that could not go on, if a cost is why; else nothing: it ended for another reason."""
        if lease.purpose != "search" or not self._costs:
            return {}
        why, bounds = self._broken(stored.costs_so_far(self._db, lease), only_costs=True)
        return bounds if why else {}

    def _broken(self, facts: Mapping[str, float], *, only_costs: bool) -> tuple[str, dict[str, float]]:
        """Why constraints are broken, in words, and by what share of its bound each one is."""
        bounds, words = {}, []
        for one in self._costs if only_costs else self._constraints:
            if only_costs and one.name not in facts:
                continue  # not known yet
            bounds[one.name] = excess = one.excess(facts.get(one.name, math.nan))
            if excess > 0:
                words.append(one.why(facts.get(one.name, math.nan)))
        return "; ".join(words), bounds
