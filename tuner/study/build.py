"""The search space of a study: every strategy's own ranges, overridden where the study file says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuner.errors import Problem, StudyFileError
from tuner.study.catalogue import Catalogue
from tuner.study.domains import Domain, Fixed, Hyperparameter, Range, Value
from tuner.study.hyperparameters import RELATIVE_LEARNING_RATE, SHARED_HYPERPARAMETERS
from tuner.study.messages import home_of
from tuner.study.names import COMBINE, THEN, components, did_you_mean, nearest, stages, synonyms
from tuner.study.ranges import Findings, read_domain
from tuner.study.space import SearchSpace, StrategySpace, learning_rate_prior
from tuner.study.spec import StudySpec
from tuner.study.switch import SWITCH, SWITCH_AT, SWITCH_HYPERPARAMETERS, SWITCH_RATE
from tuner.study.teacher import DISTILL_HYPERPARAMETERS

LEARNING_RATE = Hyperparameter(
    name="learning_rate",
    domain=Range(low=1e-6, high=1e-2, log=True),
    default=1e-4,
    help="peak learning rate, absolute",
    allowed=Range(low=1e-10, high=10.0),
)
"""What a study file may say instead of the relative learning rate; the default comes from the strategy's prior."""

_SHARED = {knob.name: knob for knob in SHARED_HYPERPARAMETERS}
_IN_BLOCKS = {
    LEARNING_RATE.name: LEARNING_RATE,
    **{name: knob for name, knob in _SHARED.items() if name != RELATIVE_LEARNING_RATE},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedSpace:
    """A search space, or the reasons why there is none.

    Attributes:
        space: Only to be used if there are no problems.
        problems: Mistakes, with their dotted keys.
        warnings: What was changed or looks odd, with its dotted key.
    """

    space: SearchSpace
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def build_space(spec: StudySpec, *, catalogue: Catalogue, parameters: float) -> SearchSpace:
    """The space that is searched.

    Args:
        spec: A valid study.
        catalogue: The strategies that exist.
        parameters: Number of parameters of the model; it decides where the learning rate is looked for.

    Raises:
        StudyFileError: If ``space`` has mistakes or names what does not exist.
    """
    resolved = resolve_study_space(spec, catalogue=catalogue, parameters=parameters)
    if resolved.problems:
        raise StudyFileError(resolved.problems, source=spec.name)
    return resolved.space


def resolve_study_space(spec: StudySpec, *, catalogue: Catalogue, parameters: float) -> ResolvedSpace:
    """As :func:`build_space`, with every mistake and warning instead of an exception."""
    return resolve_space(
        spec.space,
        strategies=spec.strategy_names,
        catalogue=catalogue,
        parameters=parameters,
        tried_first=spec.tried_first,
        distill=None if spec.distill is None else spec.distill.model_dump(),
    )


def resolve_space(
    raw: Mapping[str, Any],
    *,
    strategies: Sequence[str],
    catalogue: Catalogue,
    parameters: float,
    tried_first: Collection[str] | None = None,
    distill: Mapping[str, Any] | None = None,
) -> ResolvedSpace:
    """The space of the raw sections of a study file, which may hold mistakes.

    Args:
        raw: The section ``space``.
        strategies: Strategies, combinations and sequences of the study; all their components exist.
        catalogue: The strategies that exist.
        parameters: Number of parameters of the model.
        tried_first: Those whose recipes are tried first; None: all.
        distill: The section ``distill``, None without one.
    """
    findings = Findings()
    given = _Given()
    parts = {part for strategy in strategies for part in components(strategy)}
    for name, value in raw.items():
        key = f"space.{name}"
        if name in _SHARED or name == LEARNING_RATE.name:
            knob = _SHARED.get(name, LEARNING_RATE)
            given.note(name, read_domain(value, key=key, knob=knob, findings=findings))
        elif name == SWITCH:
            _read_switch(value, strategies=strategies, given=given, findings=findings)
        elif name in strategies or name in catalogue.strategies:
            if not isinstance(value, Mapping):
                findings.refuse(key, f"must be a block of ranges for the strategy {name}")
            elif name in strategies or name in parts:
                _read_block(name, value, strategies=strategies, catalogue=catalogue, given=given, findings=findings)
            else:
                findings.warn(key, f'has no effect, since "{name}" is not among the strategies')
        else:
            _refuse_name(name, catalogue=catalogue, strategies=strategies, findings=findings)
    _refuse_two_rates(raw, findings=findings)
    if distill is not None:
        _read_distill(distill, given=given, findings=findings)
    blocks = [
        _block(
            strategy,
            catalogue=catalogue,
            parameters=parameters,
            given=given,
            distills=distill is not None,
            is_tried_first=tried_first is None or strategy in tried_first,
        )
        for strategy in strategies
    ]
    return ResolvedSpace(
        space=SearchSpace(strategies=tuple(blocks)),
        problems=tuple(findings.problems),
        warnings=tuple(findings.warnings),
    )


class _Given(dict[str, Domain]):
    """What the study file gives: domains by the name under which they are searched."""

    def note(self, name: str, domain: Domain | None) -> None:
        """Keep a domain that has no mistake."""
        if domain is not None:
            self[name] = domain


def _refuse_two_rates(raw: Mapping[str, Any], *, findings: Findings) -> None:
    if LEARNING_RATE.name in raw and RELATIVE_LEARNING_RATE in raw:
        findings.refuse_key(
            f"space.{RELATIVE_LEARNING_RATE}",
            f"{LEARNING_RATE.name} and {RELATIVE_LEARNING_RATE} exclude each other; remove one",
        )


def _read_switch(value: Any, *, strategies: Sequence[str], given: _Given, findings: Findings) -> None:
    """When sequences go from one stage to the next, and with what learning rate they begin."""
    key = f"space.{SWITCH}"
    if not isinstance(value, Mapping):
        findings.refuse(key, "must be a block with the keys at, rate")
        return
    if not any(len(stages(strategy)) > 1 for strategy in strategies):
        findings.warn(key, f"has no effect, since no strategy is a sequence such as head{THEN}lora")
    knobs = {knob.name.removeprefix(f"{SWITCH}."): knob for knob in SWITCH_HYPERPARAMETERS}
    for name, inner in value.items():
        inner_key = f"{key}.{name}"
        if name in knobs:
            given.note(knobs[name].name, read_domain(inner, key=inner_key, knob=knobs[name], findings=findings))
        else:
            findings.refuse_key(inner_key, f'unknown key "{name}"{did_you_mean(name, knobs)}')


def _read_distill(distill: Mapping[str, Any], *, given: _Given, findings: Findings) -> None:
    """How a study learns from its teacher; the section's other keys are read elsewhere."""
    for knob in DISTILL_HYPERPARAMETERS:
        name = knob.name.rpartition(".")[2]
        if name in distill:
            given.note(knob.name, read_domain(distill[name], key=f"distill.{name}", knob=knob, findings=findings))


def _read_block(
    strategy: str,
    block: Mapping[str, Any],
    *,
    strategies: Sequence[str],
    catalogue: Catalogue,
    given: _Given,
    findings: Findings,
) -> None:
    """One strategy's block: its own hyperparameters, and shared ones for it alone."""
    own = (
        {knob.name.removeprefix(f"{strategy}."): knob for knob in _own(strategy, catalogue)}
        if strategy in catalogue.strategies
        else {}
    )
    for name, value in block.items():
        key = f"space.{strategy}.{name}"
        if name in own:
            given.note(own[name].name, read_domain(value, key=key, knob=own[name], findings=findings))
        elif name in _IN_BLOCKS and strategy in strategies:
            given.note(f"{strategy}.{name}", read_domain(value, key=key, knob=_IN_BLOCKS[name], findings=findings))
        elif name in _IN_BLOCKS:
            inside = [other for other in strategies if strategy in components(other)]
            findings.refuse_key(
                key, f'"{strategy}" is not among the strategies; write {name} in the block {" or ".join(inside)}'
            )
        elif name == RELATIVE_LEARNING_RATE:
            findings.refuse_key(key, f"{name} is for all strategies; write {LEARNING_RATE.name} in the block of one")
        else:
            _refuse_knob(strategy, name, key=key, known=[*own, *_IN_BLOCKS], catalogue=catalogue, findings=findings)


def _refuse_knob(
    strategy: str, name: str, *, key: str, known: Sequence[str], catalogue: Catalogue, findings: Findings
) -> None:
    """Say what a strategy's block may hold; where a hyperparameter of one of its components belongs."""
    parts = components(strategy)
    owners = [part for part in parts if f"{part}.{name}" in {knob.name for knob in _own(part, catalogue)}]
    if len(stages(strategy)) > 1 and f"{SWITCH}.{name}" in {knob.name for knob in SWITCH_HYPERPARAMETERS}:
        owners.append(SWITCH)
    if len(parts) > 1 and owners:
        findings.refuse_key(key, f"{name} belongs to {owners[0]}; write it in the block {owners[0]}")
        return
    _refuse_unknown(name, key=key, known=known, findings=findings)


def _refuse_unknown(name: str, *, key: str, known: Sequence[str], findings: Findings) -> None:
    """Say which key was meant, or to which other section it belongs."""
    hint = "" if nearest(name, known) in synonyms(name) else home_of(name)
    findings.refuse_key(key, f'unknown key "{name}"{hint or did_you_mean(name, known)}')


def _refuse_name(name: str, *, catalogue: Catalogue, strategies: Sequence[str], findings: Findings) -> None:
    """Say what was probably meant by a name that is neither a hyperparameter nor a strategy."""
    key = f"space.{name}"
    strategy, _, knob = name.partition(".")
    own = {inner.name for part in catalogue.strategies for inner in _own(part, catalogue)}
    owners = [
        (part, meant) for meant in (name, *synonyms(name)) for part in catalogue.strategies if f"{part}.{meant}" in own
    ]
    if knob and strategy in catalogue.strategies:
        findings.refuse_key(key, f'unknown key "{name}"; write it as a block, {strategy}: {{{knob}: ...}}')
    elif owners and not set(synonyms(name)) & set(_IN_BLOCKS):
        part, meant = next((found for found in owners if found[0] in strategies), owners[0])
        findings.refuse_key(key, f'unknown key "{name}"; it belongs to a strategy, write {part}: {{{meant}: ...}}')
    elif name == "distill":
        findings.refuse_key(key, "distill is a section of its own; write it beside space, not in it")
    elif COMBINE in name or THEN in name:
        findings.refuse_key(key, f'"{name}" is not among the strategies{did_you_mean(name, strategies)}')
    else:
        known = [LEARNING_RATE.name, *_SHARED, SWITCH, *dict.fromkeys([*strategies, *catalogue.strategies])]
        _refuse_unknown(name, key=key, known=known, findings=findings)


def _own(strategy: str, catalogue: Catalogue) -> tuple[Hyperparameter, ...]:
    return catalogue.strategies[strategy].hyperparameters


def _block(
    strategy: str,
    *,
    catalogue: Catalogue,
    parameters: float,
    given: Mapping[str, Domain],
    distills: bool,
    is_tried_first: bool,
) -> StrategySpace:
    priors = [_prior(stage, catalogue=catalogue, parameters=parameters) for stage in stages(strategy)]
    knobs = [knob for part in components(strategy) for knob in _own(part, catalogue)]
    own = {knob.name for knob in knobs}
    # Names of shared hyperparameters that the file gives this strategy alone; lora.dropout is lora's own.
    alone = {name for name in given if name.startswith(f"{strategy}.")} - own
    domains: dict[str, Domain] = {}
    defaults: dict[str, Value] = {}
    for knob in SHARED_HYPERPARAMETERS:
        name, domain, default = knob.name, knob.domain, knob.default
        absolute = LEARNING_RATE.name in given or f"{strategy}.{LEARNING_RATE.name}" in alone
        if name == RELATIVE_LEARNING_RATE and absolute:
            name, default = LEARNING_RATE.name, priors[-1]
        if f"{strategy}.{name}" in alone:
            name = f"{strategy}.{name}"
        domains[name] = given.get(name, domain)
        defaults[name] = default
    if len(priors) > 1:
        knobs += [SWITCH_AT, _first_stage_rate(priors)]
    if distills:
        knobs += DISTILL_HYPERPARAMETERS
    for knob in knobs:
        domains[knob.name] = given.get(knob.name, knob.domain)
        defaults[knob.name] = knob.default
    recipe = {name: domain.clip(defaults[name]) for name, domain in domains.items() if not isinstance(domain, Fixed)}
    block = StrategySpace(
        strategy=strategy, prior=priors[-1], domains=domains, recipe=recipe, is_tried_first=is_tried_first
    )
    return replace(block, recipe=_with_rate(block))


def _with_rate(block: StrategySpace) -> Mapping[str, Value]:
    """The recipe, with the learning rate of its optimizer where that is searched in absolute units."""
    rate = _own_or_shared(LEARNING_RATE.name, block)
    if rate not in block.recipe:
        return block.recipe
    optimizer = _own_or_shared("optimizer", block)
    domain = block.domains[optimizer]
    chosen = domain.value if isinstance(domain, Fixed) else block.recipe[optimizer]
    return {**block.recipe, rate: block.domains[rate].clip(block.rate(chosen))}


def _own_or_shared(name: str, block: StrategySpace) -> str:
    own = f"{block.strategy}.{name}"
    return own if own in block.domains else name


def _prior(stage: str, *, catalogue: Catalogue, parameters: float) -> float:
    curves = [catalogue.strategies[part].learning_rate for part in components(stage)]
    return learning_rate_prior(curves, parameters)


def _first_stage_rate(priors: Sequence[float]) -> Hyperparameter:
    """The trial's learning rate is the last stage's; the first one has its own by this factor."""
    ratio = float(f"{priors[0] / priors[-1]:.12g}")
    return replace(SWITCH_RATE, domain=Fixed(value=ratio), default=ratio)
