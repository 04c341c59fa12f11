"""The search space of a study: one block of domains for each strategy, resolved and ready to be sampled.

The learning rate is searched *relative* to the strategy's prior, in decades around it, because the optimum differs
between strategies by one to four decades while its offset from the prior does not: measured on LCBench with
shifted ranges, a relative learning rate with univariate TPE ranked best of ten encodings and one raw range over
all strategies was among the worst. People never see decades: :meth:`SearchSpace.absolute` turns a proposal into
absolute units.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuner.study.domains import Domain, Fixed, Value, domain_from_json, domain_to_json
from tuner.study.hyperparameters import OPTIMIZER_RATES, RELATIVE_LEARNING_RATE, SHARED_HYPERPARAMETERS


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategySpace:
    """What may be proposed for one strategy.

    Attributes:
        strategy: The strategy or combination, such as ``lora+bitfit``.
        prior: Learning rate of the default recipe with AdamW, absolute.
        domains: Domain of each proposed name. The learning rate stands either as :data:`RELATIVE_LEARNING_RATE` or,
            where the study file gave an absolute range, as ``learning_rate`` (one range for all strategies) or
            ``<strategy>.learning_rate``.
        recipe: The value of each searched name in the default recipe, inside its domain.
        is_tried_first: Whether the recipe is tried before the search proposes anything.
    """

    strategy: str
    prior: float
    domains: Mapping[str, Domain]
    recipe: Mapping[str, Value]
    is_tried_first: bool = True

    def rate(self, optimizer: Value | None) -> float:
        """The learning rate that the relative one is relative to: the prior, for the optimizer that takes the steps."""
        return self.prior * OPTIMIZER_RATES.get(str(optimizer), 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelKind:
    """What must be known of a study's model to tell which other models are like it.

    Attributes:
        family: Such as ``bert``; empty if its configuration does not say.
        parameters: Number of its parameters; 0 if not known.
    """

    family: str
    parameters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LearntRecipe:
    """Values that did well in a past study, for this study's space.

    Attributes:
        strategy: One of the study's.
        values: The value of each searched name of its block, inside its domain.
        source: The past trial, as ``STUDY/NUMBER``.
        clipped: Names of the values that lay outside this study's ranges.
    """

    strategy: str
    values: Mapping[str, Value]
    source: str
    clipped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Values that a study tries before its search proposes anything.

    Attributes:
        strategy: One of the study's.
        values: The value of each searched name of its block.
        is_default: Whether they are the strategy's own recipe.
        learnt_from: The past trial that they were learnt from, as ``STUDY/NUMBER``; empty for none.
    """

    strategy: str
    values: Mapping[str, Value]
    is_default: bool = True
    learnt_from: str = ""

    @property
    def params(self) -> dict[str, Value]:
        """What a sampler would have said."""
        return {"strategy": self.strategy, **self.values}


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSpace:
    """All strategies of a study, in the order of the study file, and what its search begins with.

    Attributes:
        strategies: The space of each.
        model: What its learning rates were chosen for; None in older databases.
        learnt: What past studies taught when this one was created, the most promising first.
    """

    strategies: tuple[StrategySpace, ...]
    model: ModelKind | None = None
    learnt: tuple[LearntRecipe, ...] = ()

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """What is tried first, in order: what was learnt, then each strategy's own recipe.

        A strategy's own recipe that was learnt, too, stands where the learnt one would.
        """
        found = [
            Recipe(
                strategy=one.strategy,
                values=one.values,
                is_default=dict(one.values) == dict(self.block(one.strategy).recipe),
                learnt_from=one.source,
            )
            for one in self.learnt
        ]
        there = {recipe.strategy for recipe in found if recipe.is_default}
        own = [block for block in self.strategies if block.is_tried_first and block.strategy not in there]
        return (*found, *(Recipe(strategy=block.strategy, values=block.recipe) for block in own))

    @property
    def names(self) -> tuple[str, ...]:
        """The strategies' names, in the order of the study file."""
        return tuple(block.strategy for block in self.strategies)

    def block(self, strategy: str) -> StrategySpace:
        """The space of one strategy.

        Raises:
            KeyError: If the study has no such strategy.
        """
        for block in self.strategies:
            if block.strategy == strategy:
                return block
        raise KeyError(strategy)

    def absolute(self, strategy: str, proposal: Mapping[str, Value]) -> dict[str, Value]:
        """A proposal in absolute units, fixed values filled in, ready to train with.

        Args:
            strategy: The strategy that was proposed.
            proposal: Value of each searched name of the strategy's block.

        Returns:
            Plain names for shared hyperparameters (``learning_rate``, ``batch_size``…) and dotted names for those
            of a component (``lora.r``); never a relative one.
        """
        block = self.block(strategy)
        values: dict[str, Value] = {}
        for name, domain in block.domains.items():
            values[absolute_name(name, block)] = domain.value if isinstance(domain, Fixed) else proposal[name]
        if RELATIVE_LEARNING_RATE in block.domains:
            decades = float(values["learning_rate"])
            values["learning_rate"] = block.rate(values.get("optimizer")) * 10.0**decades
        return values

    def searched(self, strategy: str, values: Mapping[str, Value]) -> dict[str, Value]:
        """Those of a trial's absolute values that may be other in another trial of its strategy.

        Args:
            strategy: The trial's strategy.
            values: What :meth:`absolute` gave.
        """
        block = self.block(strategy)
        fixed = {absolute_name(name, block) for name, domain in block.domains.items() if isinstance(domain, Fixed)}
        return {name: value for name, value in values.items() if name not in fixed}

    def to_json(self) -> dict[str, Any]:
        """The space as JSON, for the database."""
        return {
            "strategies": [
                {
                    "strategy": block.strategy,
                    "prior": block.prior,
                    "domains": {name: domain_to_json(domain) for name, domain in block.domains.items()},
                    "recipe": dict(block.recipe),
                    "is_tried_first": block.is_tried_first,
                }
                for block in self.strategies
            ],
            "model": None if self.model is None else asdict(self.model),
            "learnt": [
                {
                    "strategy": one.strategy,
                    "values": dict(one.values),
                    "source": one.source,
                    "clipped": list(one.clipped),
                }
                for one in self.learnt
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> SearchSpace:
        """The inverse of :meth:`to_json`; older databases have the list of strategies alone."""
        whole: Mapping[str, Any] = data if isinstance(data, Mapping) else {"strategies": data}
        model = whole.get("model")
        return cls(
            strategies=tuple(
                StrategySpace(
                    strategy=block["strategy"],
                    prior=block["prior"],
                    domains={name: domain_from_json(domain) for name, domain in block["domains"].items()},
                    recipe=dict(block["recipe"]),
                    is_tried_first=block.get("is_tried_first", True),  # older databases have no such key
                )
                for block in whole["strategies"]
            ),
            model=None if model is None else ModelKind(**model),
            learnt=tuple(
                LearntRecipe(
                    strategy=one["strategy"],
                    values=dict(one["values"]),
                    source=one["source"],
                    clipped=tuple(one["clipped"]),
                )
                for one in whole.get("learnt", ())
            ),
        )


_PLAIN_NAMES = frozenset(knob.name for knob in SHARED_HYPERPARAMETERS) - {RELATIVE_LEARNING_RATE} | {"learning_rate"}


def absolute_name(name: str, block: StrategySpace) -> str:
    """Under which name a domain of a block stands among absolute values.

    Args:
        name: A key of ``block.domains``.
        block: The strategy's space.
    """
    if name == RELATIVE_LEARNING_RATE:
        return "learning_rate"
    plain = name.removeprefix(f"{block.strategy}.")
    # The study file gave this strategy its own range of a shared hyperparameter. Where the shared one is there too, the
    # dotted one is the strategy's own (``lora.dropout`` beside ``dropout``).
    return plain if plain in _PLAIN_NAMES and plain not in block.domains else name


def learning_rate_prior(curves: Sequence[Sequence[tuple[float, float]]], parameters: float) -> float:
    """The default learning rate of a strategy or combination for a model of a given size.

    Args:
        curves: For each component, its ``(model parameters, learning rate)`` pairs in ascending size.
        parameters: Number of parameters of the model.

    Returns:
        The geometric mean over the components of each curve's value, interpolated on log-log axes.
    """
    logs = [_interpolate(curve, parameters) for curve in curves]
    return float(f"{math.exp(sum(logs) / len(logs)):.12g}")  # 0.0005 again, not 0.0005000000000000001


def _interpolate(curve: Sequence[tuple[float, float]], parameters: float) -> float:
    x = math.log(max(parameters, 1.0))
    points = [(math.log(size), math.log(rate)) for size, rate in curve]
    if x <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]
