"""A variation of our search: the strategy is drawn by what it is expected to gain, for each second that it costs.

Not in the product: ``docs/decisions.md`` says what it bought.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, TrialState

from benchmarks.replay.forms import Question
from benchmarks.replay.judged import JudgedSearch
from benchmarks.replay.tables import Floats
from tuner.study.domains import Value
from tuner.study.spec import SearchSpec

_GOOD, _MOST = 0.1, 25  # the share of trials that TPE calls good, and the most
_START = 10  # trials without a model, as TPE's own


class ThriftySearch(JudgedSearch):
    """Expected improvement of each strategy by TPE's own densities, divided by a power of its cost; the rest is TPE's."""

    def __init__(
        self,
        question: Question,
        *,
        epochs: int,
        search: SearchSpec,
        recipes: Sequence[Mapping[str, Value]],
        costs: Mapping[str, float],
        power: float,
    ) -> None:
        """Make the study, in memory.

        Args:
            question: What is searched.
            epochs: Epochs of a trial that is not pruned.
            search: As in a study file.
            recipes: Configurations of the table that the first trials take.
            costs: Seconds of a training of each strategy: known when its recipe was trained.
            power: Of the seconds by which the gain is divided; 0 for the gain alone.
        """
        super().__init__(question, epochs=epochs, search=search, recipes=recipes)
        self._names, self._costs, self._power = question.space.names, costs, power
        self._first = max(len(recipes), _START)
        self._draws = np.random.default_rng(search.seed)

    def _fixed(self, number: int) -> dict[str, Value] | None:
        if number < self._first:
            return super()._fixed(number)
        gains = expected_gains(self._study, names=self._names)
        weights = gains / np.array([self._costs[name] for name in self._names]) ** self._power
        return {"strategy": str(self._draws.choice(self._names, p=weights / weights.sum()))}


def expected_gains(study: optuna.Study, *, names: Sequence[str]) -> Floats:
    """What trials of each strategy are expected to improve, up to a factor (Bergstra et al. 2011)."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    count = min(math.ceil(_GOOD * len(ended)), _MOST)
    good, rest = _split_trials(study, ended, count)
    share = count / max(len(ended), 1)
    gains: Floats = 1.0 / (share + (1.0 - share) * _density(rest, names) / _density(good, names))
    return gains


def _density(trials: Sequence[FrozenTrial], names: Sequence[str]) -> Floats:
    counts = np.array([sum(trial.params["strategy"] == name for trial in trials) for name in names], dtype=np.float64)
    smoothed: Floats = (counts + 1.0 / len(names)) / (counts.sum() + 1.0)
    return smoothed
