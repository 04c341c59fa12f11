"""What a study will cost: trials, epochs and steps, before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuner.study.domains import Choice, Domain, Fixed
from tuner.study.names import count_noun, hours_words
from tuner.study.space import SearchSpace
from tuner.study.spec import StudySpec

BASELINE = "full"
"""The strategy that people would take without a search; without it the study's first stands in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """The most that a study does; pruning and early stopping make it less.

    Attributes:
        strategies: Strategies, combinations and sequences that compete.
        tried_first: Those of them whose recipes are tried before the search proposes anything.
        searched: Hyperparameters that are searched, counted over all strategies, shared ones once.
        trials: Trials of the search, None where only epochs or hours bound it.
        epochs: Epochs of one trial.
        search_epochs: Epochs of the whole search, None where only hours bound it.
        gpu_hours: Device hours after which the search ends, None without such a bound.
        hours: Hours by the clock after which it ends, None without such a bound.
        money: What device hours may cost, None without such a bound.
        price_per_hour: What one of them costs, None where that is not given.
        confirm_runs: Runs of the finalists with fresh seeds, the baseline's default recipe among them, where none falls out but to make room.
        confirm_epochs: Epochs of these runs.
        confirm_seeds: Fresh seeds of each finalist that finishes the race.
        baseline: Strategy whose default recipe is confirmed in any case.
        steps: Fewest and most optimizer steps of one epoch, None while the rows are not known.
    """

    strategies: int
    tried_first: int
    searched: int
    trials: int | None
    epochs: int
    search_epochs: int | None
    gpu_hours: float | None
    hours: float | None
    money: float | None
    price_per_hour: float | None
    confirm_runs: int
    confirm_epochs: int
    confirm_seeds: int
    baseline: str
    steps: tuple[int, int] | None = None

    def lines(self) -> tuple[str, ...]:
        """The forecast in words, one fact a line."""
        trials = (
            "trials until the budget is used" if self.trials is None else f"at most {count_noun(self.trials, 'trial')}"
        )
        epochs = "" if self.search_epochs is None else f", {count_noun(self.search_epochs, 'epoch')} in all"
        first = "" if self.tried_first == self.strategies else f" (the recipes of {self.tried_first} are tried first)"
        strategies = f"{count_noun(self.strategies, 'strategy', 'strategies')}"
        lines = [
            f"{strategies}{first}, {count_noun(self.searched, 'searched hyperparameter')}",
            f"search: {trials} of up to {count_noun(self.epochs, 'epoch')}{epochs}{self._hours()}",
        ]
        if self.steps is not None:
            low, high = self.steps
            lines.append(f"steps: {low:,} in an epoch" if low == high else f"steps: {low:,} to {high:,} in an epoch")
        if self.confirm_runs:
            lines.append(
                f"confirmation: up to {count_noun(self.confirm_runs, 'run')} with fresh seeds, {count_noun(self.confirm_epochs, 'epoch')} "
                f"(who falls out of the race is spared the last; the default recipe of {self.baseline} competes in any case)"
            )
        else:
            lines.append("confirmation: none")
        return tuple(lines)

    def _hours(self) -> str:
        """The limits of time and money; of device hours and money, which are one quantity, the one that binds."""
        words = []
        paid = None if self.money is None or self.price_per_hour is None else self.money / self.price_per_hour
        if self.gpu_hours is not None:
            words.append(hours_words(self.gpu_hours, kind="device"))
        if paid is not None:
            first = (
                ""
                if self.gpu_hours is None
                else ", so the money binds"
                if paid < self.gpu_hours
                else ", so the hours bind"
            )
            words.append(f"a cost of {self.money:g} ({hours_words(paid, kind='device')}{first})")
        if self.hours is not None:
            words.append(f"{hours_words(self.hours)} by the clock")
        return "".join(f", {text}" for text in words)


def forecast(spec: StudySpec, *, space: SearchSpace, train_rows: int | None) -> Forecast:
    """What a study does at most.

    Args:
        spec: The study.
        space: Its search space.
        train_rows: Rows that are trained on, if known.
    """
    epochs, budget = spec.training.epochs, spec.budget
    bounds = [bound for bound in (budget.epochs, budget.trials and budget.trials * epochs) if bound is not None]
    runs = spec.confirm.most_runs
    names = {name for block in space.strategies for name in block.recipe}
    sizes = [block.domains["batch_size"] for block in space.strategies if "batch_size" in block.domains]
    return Forecast(
        strategies=len(space.strategies),
        tried_first=sum(block.is_tried_first for block in space.strategies),
        searched=len(names),
        trials=budget.trials,
        epochs=epochs,
        search_epochs=min(bounds, default=None),
        gpu_hours=budget.gpu_hours,
        hours=budget.hours,
        money=budget.money,
        price_per_hour=budget.price_per_hour,
        confirm_runs=runs,
        confirm_epochs=runs * epochs,
        confirm_seeds=spec.confirm.seeds,
        baseline=BASELINE if BASELINE in space.names else space.names[0],
        steps=_steps(sizes, train_rows) if train_rows and sizes else None,
    )


def _steps(sizes: list[Domain], rows: int) -> tuple[int, int]:
    numbers = [number for size in sizes for number in _ends(size)]
    return math.ceil(rows / max(numbers)), math.ceil(rows / min(numbers))


def _ends(domain: Domain) -> tuple[float, ...]:
    if isinstance(domain, Fixed):
        return (float(domain.value),)
    if isinstance(domain, Choice):
        return tuple(float(option) for option in domain.options)
    return (domain.low, domain.high)
