"""Samplers by name: Optuna's own classes, with the options a study file gives them.

Adding one: one function and one line in :data:`SAMPLERS`.
"""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler

from tuner.errors import ConfigurationError
from tuner.study.domains import Fixed
from tuner.study.messages import shown
from tuner.study.names import did_you_mean
from tuner.study.space import SearchSpace, absolute_name
from tuner.study.spec import ChoiceSpec

Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """Whose random numbers a sampler takes: it is made anew for each trial, by whichever worker has it.

    Attributes:
        seed: The study's; None for a different search each time.
        number: The trial's.
    """

    seed: int | None
    number: int = 0

    @property
    def own(self) -> int | None:
        """The trial's own seed."""
        return None if self.seed is None else (self.seed * 1_000_003 + self.number) % 2**31


def make_sampler(choice: ChoiceSpec, *, space: SearchSpace, draw: Draw) -> BaseSampler:
    """The sampler that a study asks for.

    Args:
        choice: Its name and the arguments of its class.
        space: What will be sampled.
        draw: What its random numbers depend on.

    Raises:
        ConfigurationError: If the name or an option is unknown, or the space does not suit the sampler.
    """
    make = SAMPLERS.get(choice.name)
    if make is None:
        raise ConfigurationError(f'unknown sampler "{choice.name}"{did_you_mean(choice.name, SAMPLERS)}')
    with warnings.catch_warnings():
        # Optuna warns of experimental arguments that we choose on purpose.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return make(choice.options, space, draw)


def construct(cls: type[Any], *, what: str, options: Options, defaults: Options) -> Any:
    """Build one of Optuna's classes; an unknown option is named, with those that exist."""
    known = [name for name in inspect.signature(cls).parameters if name != "self"]
    for option in options:
        if option not in known:
            raise ConfigurationError(f'{what}: unknown option "{option}"{did_you_mean(option, known)}')
    _check_types(cls, what=what, options=options)
    chosen = {name: value for name, value in defaults.items() if name in known} | dict(options)
    try:
        return cls(**chosen)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{what}: {error}") from error


_KINDS: Mapping[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "None": (type(None),),
}
_NAMES = {"bool": "true or false", "int": "an integer", "float": "a number", "str": "text"}


def _check_types(cls: type[Any], *, what: str, options: Options) -> None:
    """Refuse what Optuna would take and stumble over later, or understand as something else: its classes check few values."""
    parameters = inspect.signature(cls).parameters
    for option, value in options.items():
        annotation = parameters[option].annotation
        kinds = [kind.strip() for kind in str(getattr(annotation, "__name__", annotation)).split("|")]
        if not set(kinds) <= set(_KINDS):
            continue  # a function or an object, which no study file can give
        fits = isinstance(value, tuple(kind for name in kinds for kind in _KINDS[name]))
        if not fits or (isinstance(value, bool) and "bool" not in kinds):
            wanted = " or ".join(_NAMES[kind] for kind in kinds if kind != "None")
            raise ConfigurationError(f"{what}: {option} must be {wanted}, got {shown(value)}")
        if isinstance(value, int) and value < 0:
            raise ConfigurationError(f"{what}: {option} must not be negative, got {value}")


Make = Callable[[Options, SearchSpace, Draw], BaseSampler]


def _plain(cls: type[BaseSampler], name: str) -> Make:
    def _make(options: Options, _space: SearchSpace, draw: Draw) -> BaseSampler:
        sampler: BaseSampler = construct(cls, what=f"sampler {name}", options=options, defaults={"seed": draw.own})
        return sampler

    return _make


def _auto(options: Options, _space: SearchSpace, draw: Draw) -> BaseSampler:
    # Univariate: with a pruner and 5 to 50 trainings, Optuna 5's multivariate default re-samples near-copies of its few good
    # trials (LCBench regret at 50 trainings .129 against .060).
    defaults = {"seed": draw.own, "multivariate": False}
    sampler: BaseSampler = construct(
        optuna.samplers.TPESampler, what="sampler auto", options=options, defaults=defaults
    )
    return sampler


def _steady(draw: Draw) -> dict[str, Any]:
    """Defaults of a sampler whose sequence is one for the whole study; what it has no place for, each trial draws for itself."""
    return {"seed": draw.seed, "independent_sampler": optuna.samplers.RandomSampler(seed=draw.own)}


def _cmaes(options: Options, _space: SearchSpace, draw: Draw) -> BaseSampler:
    # Optuna keeps the optimizer's state as a pickle in the trial's attributes and loads it again: whoever may write to the
    # database may run code in its workers. So it is never chosen by itself, and its package is an extra.
    if importlib.util.find_spec("cmaes") is None:
        raise ConfigurationError("sampler cmaes needs a package that is not installed", fix="pip install cmaes")
    sampler: BaseSampler = construct(
        optuna.samplers.CmaEsSampler, what="sampler cmaes", options=options, defaults=_steady(draw)
    )
    return sampler


def _qmc(options: Options, _space: SearchSpace, draw: Draw) -> BaseSampler:
    sampler: optuna.samplers.QMCSampler = construct(
        optuna.samplers.QMCSampler, what="sampler qmc", options=options, defaults=_steady(draw)
    )

    # Optuna counts the points in an attribute of the study, which two workers may read at once, and where a worker that dies takes a
    # point with it. A trial's number tells its point as well.
    def _point(study: optuna.Study, search_space: dict[str, BaseDistribution]) -> int:  # noqa: ARG001 - as Optuna calls it
        return draw.number

    sampler._find_sample_id = _point  # type: ignore[method-assign]  # noqa: SLF001 - see above
    return sampler


def _enumerate(name: str) -> Make:
    """Every point of a finite space once, also of one whose strategies have different knobs.

    Optuna's GridSampler would repeat each point for every value of the knobs that the point does not have.
    """

    def _make(options: Options, space: SearchSpace, draw: Draw) -> BaseSampler:
        for block in space.strategies:
            for knob, domain in block.domains.items():
                if not isinstance(domain, Fixed) and getattr(domain, "step", None) is None and not _is_finite(domain):
                    known_as = absolute_name(knob, block)
                    raise ConfigurationError(
                        f'sampler {name}: "{known_as}" of strategy {block.strategy} is a range without a step',
                        why="a grid needs a finite space",
                        fix=f"give it choices, as in {known_as}: [..], or a step",
                    )
        sampler: BaseSampler = construct(
            optuna.samplers.BruteForceSampler, what=f"sampler {name}", options=options, defaults={"seed": draw.own}
        )
        return sampler

    return _make


def _is_finite(domain: Any) -> bool:
    return hasattr(domain, "options") or getattr(domain, "kind", "") == "int"


SAMPLERS: Mapping[str, Make] = {
    "auto": _auto,
    "random": _plain(optuna.samplers.RandomSampler, "random"),
    "tpe": _plain(optuna.samplers.TPESampler, "tpe"),
    "gp": _plain(
        optuna.samplers.GPSampler, "gp"
    ),  # Optuna's needs torch: the only sampler that loads it in the supervisor
    "cmaes": _cmaes,
    "nsgaii": _plain(optuna.samplers.NSGAIISampler, "nsgaii"),
    "nsgaiii": _plain(optuna.samplers.NSGAIIISampler, "nsgaiii"),
    "qmc": _qmc,
    "grid": _enumerate("grid"),
    "brute_force": _enumerate("brute_force"),
}
