"""What is tried next and what is stopped: the judgement of a search, apart from where its record is kept.

It reads and writes an :class:`optuna.Study` and knows nothing of leases, workers or SQL. The study driver gives it a study in
the database; the replay benchmark gives it one in memory, so that what is measured there is what runs here.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from tuner.search.pruners import FEW_EPOCHS, later_rungs, make_pruner
from tuner.search.samplers import Draw, make_sampler
from tuner.search.settled import is_violated, why_settled
from tuner.study.domains import Choice, Fixed, Range, Value
from tuner.study.space import Recipe, SearchSpace
from tuner.study.spec import ChoiceSpec, SearchSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """What a trial is to try.

    Attributes:
        strategy: How the model is adapted.
        params: Its values, absolute.
        drawn: What the study does not hold yet: each parameter as Optuna keeps it, the value's internal form and its distribution.
    """

    strategy: str
    params: Mapping[str, Value]
    drawn: Mapping[str, tuple[float, BaseDistribution]]


class Judgement:
    """Proposes the values of a trial, says whether it loses, and hears how it ended.

    Recipes are what each strategy is known by, and a strategy that learns slowly at first must not be judged by its first epoch: in
    a trial run of four epochs halving stopped the recipe of LoRA, the best of the study, after one. So none is stopped after its
    first epoch, and where epochs are few not at all.
    """

    def __init__(self, study: optuna.Study, *, space: SearchSpace, search: SearchSpec, epochs: int) -> None:
        """Prepare the sampler and the pruner.

        Args:
            study: The record; its sampler and pruner are replaced.
            space: What may be proposed.
            search: Which sampler, which pruner, which seed.
            epochs: Epochs of a trial that is not pruned.

        Raises:
            ConfigurationError: If the sampler or the pruner cannot be made.
        """
        self._study = study
        self._space = space
        self._search = search
        self._spared = epochs if epochs < FEW_EPOCHS else 1
        # With several objectives Optuna's pruners have nothing to compare; tuner.search.pareto judges.
        chosen = search.pruner if len(study.directions) == 1 else ChoiceSpec(name="none")
        study.pruner = make_pruner(chosen, epochs=epochs)
        study.sampler = make_sampler(search.sampler, space=space, draw=Draw(seed=search.seed))

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """What the first trials take, in order of the trials' numbers."""
        return self._space.recipes

    def propose(self, trial_id: int, *, number: int) -> Proposal:
        """Sample a strategy and its values, and store none of them.

        Values that are stored one by one may stop halfway where a worker dies, and who goes on from there draws the rest from the beginning of
        the sampler's random numbers: that would be another trial than the number's. So a proposal is stored as a whole.
        """
        self._study.sampler = self._sampler(number)
        with warnings.catch_warnings():
            # A recipe's value outside a range is clipped before; experimental samplers are the user's choice.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._forget_history()
            trial = optuna.trial.Trial(self._study, trial_id)
            trial.storage = draft = _Draft(trial.storage)  # type: ignore[assignment]
            strategy = str(_suggest(trial, "strategy", Choice(options=self._space.names)))
            proposal = {
                name: _suggest(trial, name, domain)
                for name, domain in self._space.block(strategy).domains.items()
                if not isinstance(domain, Fixed)
            }
        return Proposal(strategy=strategy, params=self._space.absolute(strategy, proposal), drawn=draft.drawn)

    def keep(self, trial_id: int, proposal: Proposal) -> None:
        """Store a proposal in the study; the study driver does it in the transaction in which the run gets its values."""
        for name, (value, distribution) in proposal.drawn.items():
            self._study._storage.set_trial_param(trial_id, name, value, distribution)  # noqa: SLF001 - as `Trial` does

    def loses(self, trial_id: int, *, is_recipe: bool, epoch: int | None = None) -> bool:
        """Whether a trial that has just reported, with epochs left, shall stop.

        Args:
            trial_id: The trial.
            is_recipe: Whether it is one of the recipes, the learnt ones included.
            epoch: What it has reported; later epochs are of an attempt that does not count. None: the last that there is.
        """
        trial = _until(self._trial(trial_id), epoch)
        loses = bool(
            self._study.pruner.prune(self._study, trial)
        )  # asked for recipes, too: others are compared with them
        return loses and not (is_recipe and (trial.last_step or 0) <= self._spared)

    def rungs_after(self, trial_id: int, *, epoch: int) -> list[str]:
        """The system attributes in which halving keeps what a trial scored after an epoch; it judges nobody again on a rung that it has.

        Args:
            trial_id: The trial.
            epoch: What it has reported: what is later is of an attempt that does not count.
        """
        return later_rungs(self._study.pruner, self._study, self._trial(trial_id), epoch=epoch)

    def end(self, trial_id: int, *, number: int, state: TrialState, value: float | Sequence[float] | None) -> bool:
        """Give the sampler its word before a trial's end, as `Study.tell` does.

        Args:
            trial_id: The trial.
            number: Its number.
            state: How it ended, as Optuna sees it.
            value: Its objective, or one value for each of several; None or an empty list if it has none.

        Returns:
            Whether every point of the space was tried.
        """
        self._study.sampler = self._sampler(number)
        with _stoppable(self._study) as study:
            self._forget_history()
            values = list(value) if isinstance(value, Sequence) else [] if value is None else [value]
            study.sampler.after_trial(study, self._trial(trial_id), state, values or None)
            return bool(study._stop_flag)  # noqa: SLF001 - how samplers say it; Optuna has no public read

    def why_settled(self, *, metric: str) -> str:
        """Why no more trials are worth their time, by what the user asked; an empty string if they are, or if he did not ask.

        Args:
            metric: What the objective is called.
        """
        asked = self._search.stop_when
        if asked is None or len(self._study.directions) > 1:
            return ""
        self._forget_history()
        return why_settled(self._study, gain=asked.gain, trials=asked.trials, metric=metric)

    def last_reported(self, trial_id: int, *, epoch: int) -> float | None:
        """The objective at the last epoch, up to this one, that a trial reported; None before the first."""
        trial = _until(self._trial(trial_id), epoch)
        return trial.intermediate_values[trial.last_step] if trial.last_step is not None else None

    def values_at(self, epoch: int) -> list[float]:
        """The objective of all trials that reported an epoch, without those whose end makes them no measure of others."""
        return [
            trial.intermediate_values[epoch]
            for trial in self._study.get_trials(deepcopy=False)
            if epoch in trial.intermediate_values and trial.state is not TrialState.FAIL and not is_violated(trial)
        ]

    def _trial(self, trial_id: int) -> FrozenTrial:
        return self._study._storage.get_trial(trial_id)  # noqa: SLF001 - the study has no read of one trial

    def _sampler(self, number: int) -> BaseSampler:
        draw = Draw(seed=self._search.seed, number=number)
        return make_sampler(self._search.sampler, space=self._space, draw=draw)

    def _forget_history(self) -> None:
        """Read the history anew, as `Study.ask` and `Study.tell` do: trials were written past Optuna's cache."""
        self._study._thread_local.cached_all_trials = None  # noqa: SLF001 - what `ask` does first
        self._study.get_trials(deepcopy=False)


class _Draft:
    """A storage to read from, which remembers the parameters that `Trial` would store in it."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self.drawn: dict[str, tuple[float, BaseDistribution]] = {}

    def set_trial_param(self, _trial_id: int, name: str, value: float, distribution: BaseDistribution) -> None:
        self.drawn[name] = (value, distribution)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        return self._storage.get_trial_system_attrs(trial_id)


def _until(trial: FrozenTrial, epoch: int | None) -> FrozenTrial:
    """A trial without what an earlier attempt had reported: later epochs, and steps below 0 where the trial runs again from its beginning."""
    kept = {
        step: value
        for step, value in trial.intermediate_values.items()
        if step >= 0 and (epoch is None or step <= epoch)
    }
    if len(kept) == len(trial.intermediate_values):
        return trial
    trial = copy.copy(trial)  # it may be one that Optuna keeps
    trial.intermediate_values = kept
    return trial


def _suggest(trial: optuna.trial.Trial, name: str, domain: Range | Choice) -> Value:
    # `_suggest` is what every public suggest_* ends in; it takes the distribution as it is.
    value: Value = trial._suggest(name, _distribution(domain))  # noqa: SLF001 - see above
    return value


def _distribution(domain: Range | Choice) -> BaseDistribution:
    """A domain as Optuna's distribution."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(choices=domain.options)
    if domain.kind == "int":
        return IntDistribution(low=int(domain.low), high=int(domain.high), log=domain.log, step=int(domain.step or 1))
    return FloatDistribution(low=domain.low, high=domain.high, log=domain.log, step=domain.step)


@contextlib.contextmanager
def _stoppable(study: optuna.Study) -> Iterator[optuna.Study]:
    """Let a sampler call `Study.stop`, which Optuna allows inside `optimize` only."""
    local: Any = study._thread_local  # noqa: SLF001 - the flag that `optimize` sets
    study._stop_flag = False  # noqa: SLF001
    local.in_optimize_loop = True
    try:
        yield study
    finally:
        local.in_optimize_loop = False
