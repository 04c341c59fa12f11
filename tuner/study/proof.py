"""What is known of each strategy of a study before a trial is spent: whether it can work, and what it will take.

The proof itself needs torch, so whoever may import it hands it in (:class:`Probe`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tuner.study.constraints import Constraint, read_constraints, show_fact
from tuner.study.domains import Choice, Domain, Fixed, Value
from tuner.study.names import components
from tuner.study.ranges import Findings
from tuner.study.space import SearchSpace
from tuner.study.spec import ComposeSpec, StudySpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A value that a strategy cannot work with on this model.

    Attributes:
        knob: The hyperparameter that has the value; empty for the recipe as a whole.
        value: The value, None for the recipe.
        message: What, why and the fix.
    """

    knob: str
    value: Value | None
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategyProof:
    """One strategy, applied to the model's shapes.

    Attributes:
        strategy: The strategy, combination or sequence.
        works: Whether it can be applied with its recipe, or with another value of its space.
        trainable: Parameters that are ever trained; None where nothing could be applied.
        fewest: Parameters that are ever trained where its values are chosen so that they are fewest; counted only where a constraint
            asks for fewer than ``trainable``, else None.
        total: All parameters of the adapted model.
        memory: Bytes that a training step takes with the largest batch of the space, estimated.
        checkpoint: Bytes of the weights that are kept of a trial.
        is_memory_counted: Whether the activations were counted in a forward pass, not taken from a rule of thumb.
        refusals: What cannot work.
        unknown: Why it could not be proven, in words; empty if it was.
    """

    strategy: str
    works: bool
    trainable: int | None = None
    fewest: int | None = None
    total: int | None = None
    memory: int | None = None
    checkpoint: int | None = None
    is_memory_counted: bool = False
    refusals: tuple[Refusal, ...] = ()
    unknown: str = ""


class Probe(Protocol):
    """Applies every strategy of a study to its model, without reading a weight; only who may import torch has one."""

    def __call__(
        self, spec: StudySpec, *, space: SearchSpace, classes: Sequence[str], folder: str
    ) -> Sequence[StrategyProof]:
        """One proof for each block of the space.

        Args:
            spec: The study.
            space: What is searched.
            classes: Names of the classes.
            folder: Where the model's files are on this machine; empty for a hub model that was not fetched: only its
                configuration is then.

        Raises:
            TunerError: If the model's shapes cannot be had.
        """
        ...


def strategy_keys(spec: StudySpec) -> dict[str, str]:
    """The dotted key under which each strategy stands in the study file."""
    bare = isinstance(spec.strategies, ComposeSpec)
    keys: dict[str, str] = {}
    for index, item in enumerate((spec.strategies,) if isinstance(spec.strategies, ComposeSpec) else spec.strategies):
        key = "strategies" if bare else f"strategies.{index}"
        if isinstance(item, str):
            keys[item] = key
        else:
            keys |= dict.fromkeys(item.names, f"{key}.compose")
            keys |= {part: f"{key}.compose.{number}" for number, part in enumerate(item.compose)}
    return keys


def note_proofs(proofs: Sequence[StrategyProof], *, spec: StudySpec, findings: Findings) -> None:
    """Turn refusals into problems, where a strategy can never work, and warnings, where a value cannot.

    Args:
        proofs: What was found.
        spec: The study, for the places in its file.
        findings: Takes them.
    """
    keys = strategy_keys(spec)
    told: set[tuple[str, str]] = set()
    impossible = {proof.strategy for proof in proofs if not proof.works}
    for proof in proofs:
        key = keys.get(proof.strategy, "strategies")
        if proof.unknown:
            findings.warn(key, f"{proof.strategy} could not be tried on the model ({proof.unknown})")
        for refusal in proof.refusals:
            place = _place(refusal, spec=spec) or key if proof.works and refusal.knob else key
            if (place, refusal.message) in told or (not proof.works and refusal.knob):
                continue
            told.add((place, refusal.message))
            if proof.works:
                findings.warn(place, _with_value(refusal))
            elif not (key.endswith(".compose") and impossible.intersection(components(proof.strategy))):
                # Of what is composed a part that cannot work is told once, at its own place.
                findings.refuse(key, refusal.message)
    _note_sizes(proofs, spec=spec, keys=keys, findings=findings)


def bound_on_size(spec: StudySpec) -> Constraint | None:
    """The study's constraint on trained parameters, which are known before a trial; None without one."""
    bounds = [one for one in read_constraints(spec.constraints) if one.name == "trainable_params"]
    return bounds[0] if bounds else None


def _note_sizes(
    proofs: Sequence[StrategyProof], *, spec: StudySpec, keys: Mapping[str, str], findings: Findings
) -> None:
    """Strategies that train more parameters than the study allows, whatever values are tried; and that all of them do."""
    bound = bound_on_size(spec)
    if bound is None:
        return
    sizes = {proof.strategy: proof.fewest or proof.trainable for proof in proofs if proof.works}
    known = {name: size for name, size in sizes.items() if size is not None}
    never = {name: size for name, size in known.items() if bound.excess(size) > 0.0}
    if known and len(never) == len(sizes):
        least = min(never, key=lambda name: never[name])
        index = next(number for number, text in enumerate(spec.constraints or ()) if bound.name in text)
        findings.refuse(
            f"constraints.{index}",
            f"no strategy can keep {bound.text}: the smallest is {least} with {show_fact(bound.name, never[least])} "
            "trained parameters; raise the bound or add a smaller strategy",
        )
        return
    for proof in proofs:
        key = keys.get(proof.strategy, "strategies")
        if proof.strategy in never:
            fewest = show_fact(bound.name, never[proof.strategy])
            findings.warn(
                key,
                f"{proof.strategy} trains {fewest} parameters or more and can never keep {bound.text}: "
                "take it out, or raise the bound",
            )
        elif proof.trainable is not None and bound.excess(proof.trainable) > 0.0:
            recipe, fewest = (show_fact(bound.name, size) for size in (proof.trainable, known[proof.strategy]))
            findings.warn(
                key,
                f"the default recipe of {proof.strategy} trains {recipe} parameters and breaks {bound.text}: "
                f"only others of its values can keep it, with {fewest} at least",
            )


def _with_value(refusal: Refusal) -> str:
    """The message, with the value in front where it does not speak of it."""
    told = not refusal.knob or str(refusal.value) in refusal.message
    return refusal.message if told else f"with {refusal.knob} {refusal.value}: {refusal.message}"


def _place(refusal: Refusal, *, spec: StudySpec) -> str:
    """Where the value stands in the file; empty if it is one of the strategy's own."""
    strategy, _, name = refusal.knob.partition(".")
    given = spec.space.get(strategy)
    raw = given.get(name) if isinstance(given, Mapping) else None
    key = f"space.{strategy}.{name}"
    if isinstance(raw, list | tuple) and refusal.value in raw:
        return f"{key}.{list(raw).index(refusal.value)}"
    if isinstance(raw, Mapping):
        return next((f"{key}.{end}" for end in ("low", "high") if raw.get(end) == refusal.value), key)
    return key if raw is not None else ""


def ends_of(domain: Domain) -> tuple[Value, ...]:
    """The values at which a structural hyperparameter is tried: every choice, or both ends of a range of whole numbers."""
    if isinstance(domain, Choice):
        return domain.options
    if isinstance(domain, Fixed):
        return (domain.value,)
    return (int(domain.low), int(domain.high)) if domain.kind == "int" else ()
