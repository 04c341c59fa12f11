"""Every strategy of a study, applied to the real model's shapes: no weight is read and nothing is computed.

On torch's meta device a tensor has a shape and no content, so a model of any size is built, adapted and run in
milliseconds. What a strategy refuses there it would refuse in a trial, and where it breaks a forward pass that the model
comes through without it, it would break a trial.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from tuner.errors import TrialInfeasible
from tuner.strategies import resolve
from tuner.strategies.anatomy import find_blocks
from tuner.strategies.base import backbone_of, freeze_backbone
from tuner.strategies.state import count_parameters, trainable_state
from tuner.study.domains import Fixed, Range, Value
from tuner.study.names import components
from tuner.study.proof import Refusal, StrategyProof, bound_on_size, ends_of
from tuner.study.space import SearchSpace, StrategySpace
from tuner.study.spec import StudySpec
from tuner.tasks import TASKS
from tuner.training.memory import is_out_of_memory
from tuner.training.model import load_shapes
from tuner.training.rehearsal import Rehearsal, rehearse

_FLOAT = 4  # bytes; master weights, gradients and moments are float32 in every precision
_MOMENTS = {"adamw": 2, "adam": 2, "adafactor": 0, "rmsprop": 1, "sgd": 1, "lion": 1}
"""Tensors of a parameter's size that an optimizer keeps; adafactor's rows and columns are next to nothing."""

_SAVED_PER_LAYER = 21
"""Tensors of (rows, tokens, width) that a transformer layer keeps for the backward pass, counted on BERT in training mode."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shapes:
    """The model to try strategies on, the size of a batch, how far the model comes as it is, and how many parameters may be trained.

    Where that is not to the end of its blocks, a small copy is run in earnest.
    """

    model: nn.Module
    fresh: frozenset[str]
    tokens: int
    micro_batch: int | None
    reach: _Reach
    rehearsal: Rehearsal | None
    most_trained: float


def probe_study(
    spec: StudySpec, *, space: SearchSpace, classes: Sequence[str], folder: str
) -> tuple[StrategyProof, ...]:
    """Try every strategy of a study with its recipe, and each structural hyperparameter at its ends.

    A hyperparameter that several strategies have is tried on the first of them that works.

    Args:
        spec: The study.
        space: What is searched.
        classes: Names of the classes.
        folder: Where the model's files are on this machine; empty for a hub model that was not fetched.

    Raises:
        ConfigurationError: If the model's configuration cannot be read.
    """
    model, fresh = load_shapes(spec, task=TASKS[spec.task], labels=classes, folder=folder)
    tokens = spec.training.max_length
    with torch.no_grad():
        reach = _pass(model, rows=1, tokens=tokens).reach
    bound = bound_on_size(spec)
    shapes = _Shapes(
        model=model,
        fresh=fresh,
        tokens=tokens,
        micro_batch=spec.training.micro_batch,
        reach=reach,
        rehearsal=rehearse(model, tokens=tokens) if reach < _Reach.BACKBONE else None,
        most_trained=math.inf if bound is None else bound.bound,
    )
    tried: set[str] = set()
    return tuple(_prove(block, space=space, shapes=shapes, tried=tried) for block in space.strategies)


def _prove(block: StrategySpace, *, space: SearchSpace, shapes: _Shapes, tried: set[str]) -> StrategyProof:
    recipe = space.absolute(block.strategy, block.recipe)
    refusals: list[Refusal] = []
    try:
        facts = _facts(block, recipe, shapes)
        params: Mapping[str, Value] = recipe
        if isinstance(facts, str):
            refusals.append(Refusal(knob="", value=None, message=facts))
            params = next((near for near in _neighbours(block, recipe) if not _refusal(block, near, shapes)), {})
            facts = _facts(block, params, shapes) if params else facts
        if isinstance(facts, str):
            return StrategyProof(strategy=block.strategy, works=False, refusals=tuple(refusals))
        for knob in _structural(block):
            if params is recipe and knob in tried:
                continue
            refusals += _refused_values(block, knob, params=params, shapes=shapes, told=refusals)
            if params is recipe:
                tried.add(knob)
    except Exception as error:  # noqa: BLE001 - a strategy that breaks here may yet work in a trial; the check goes on
        return StrategyProof(strategy=block.strategy, works=True, unknown=_in_short(error))
    return StrategyProof(
        strategy=block.strategy,
        works=True,
        trainable=facts.trainable,
        fewest=_fewest(block, params, shapes) if facts.trainable > shapes.most_trained else None,
        total=facts.total,
        memory=facts.memory,
        checkpoint=facts.checkpoint,
        is_memory_counted=facts.is_counted,
        refusals=tuple(refusals),
    )


def _fewest(block: StrategySpace, params: Mapping[str, Value], shapes: _Shapes) -> int:
    """Parameters that are trained where each structural hyperparameter in turn is at the end that makes them fewest."""
    at = dict(params)
    best = _count(block, at, shapes)
    for knob in _structural(block):
        domain = block.domains[knob]
        ends = (domain.low, domain.high) if isinstance(domain, Range) and domain.kind != "int" else ends_of(domain)
        for value in ends:
            if (count := _count(block, {**at, knob: value}, shapes)) < best:
                best, at[knob] = count, value
    return int(best)


def _count(block: StrategySpace, params: Mapping[str, Value], shapes: _Shapes) -> float:
    """Parameters that are trained with these values; infinite where they cannot work."""
    try:
        return count_parameters(_adapted(block, params, shapes))[0]
    except TrialInfeasible:
        return math.inf


def _refused_values(
    block: StrategySpace, knob: str, *, params: Mapping[str, Value], shapes: _Shapes, told: Sequence[Refusal]
) -> list[Refusal]:
    """The ends of one hyperparameter that cannot work beside values of the others that can."""
    found: list[Refusal] = []
    for value in ends_of(block.domains[knob]):
        if value == params[knob]:
            continue
        message = _refusal(block, {**params, knob: value}, shapes)
        if message and all(message != refusal.message for refusal in (*told, *found)):
            found.append(Refusal(knob=knob, value=value, message=message))
    return found


def _neighbours(block: StrategySpace, params: Mapping[str, Value]) -> Iterator[dict[str, Value]]:
    """Where else a strategy may work: one value at another end, or all of them at their lowest or highest."""
    ends = {knob: ends_of(block.domains[knob]) for knob in _structural(block)}
    for knob, values in ends.items():
        yield from ({**params, knob: value} for value in values if value != params[knob])
    for extreme in (min, max):
        numbers = {knob: extreme(values) for knob, values in ends.items() if values and _are_numbers(values)}
        if len(numbers) > 1:
            yield {**params, **numbers}


def _are_numbers(values: Sequence[Value]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _in_short(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"[:200]


def _structural(block: StrategySpace) -> list[str]:
    """The components' own hyperparameters that have ends to try: a switch or a temperature changes no shape."""
    parts = set(components(block.strategy))
    return [
        name
        for name, domain in block.domains.items()
        if name.partition(".")[0] in parts and name in block.recipe and not isinstance(domain, Fixed)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Facts:
    trainable: int
    total: int
    memory: int
    checkpoint: int
    is_counted: bool


def _adapted(block: StrategySpace, params: Mapping[str, Value], shapes: _Shapes) -> nn.Module:
    model = freeze_backbone(copy.deepcopy(shapes.model), fresh=shapes.fresh)
    with torch.device("meta"):
        return resolve(block.strategy).apply(model, params)


def _refusal(block: StrategySpace, params: Mapping[str, Value], shapes: _Shapes) -> str:
    """Why a strategy cannot work with some values; empty if it can.

    The values of a strategy change the size of what it inserts, in every block alike, and the positions of the tokens,
    which the embeddings count: the first block is as far as the model need be run.
    """
    try:
        model = _adapted(block, params, shapes)
    except TrialInfeasible as error:
        return error.message
    if len(find_blocks(model)) < 2:
        return ""
    try:
        with torch.no_grad():
            passed = _pass(model, rows=1, tokens=shapes.tokens, is_short=True)
    except TrialInfeasible as error:
        return _too_long(error, block=block, params=params, model=model, tokens=shapes.tokens)
    return _breakage(passed, block=block, model=model, shapes=shapes)


def _too_long(
    error: TrialInfeasible, *, block: StrategySpace, params: Mapping[str, Value], model: nn.Module, tokens: int
) -> str:
    """What a strategy says of texts that are too long; where several parts take positions, none of them knows of all."""
    parts = {f"{part}.length" for part in components(block.strategy)}
    lengths = [name for name in params if name in parts]
    if len(lengths) < 2:
        return error.message
    fits, fails = 0, tokens
    while fails - fits > 1:
        middle = (fits + fails) // 2
        try:
            with torch.no_grad():
                _pass(model, rows=1, tokens=middle, is_short=True)
            fits = middle
        except TrialInfeasible:
            fails = middle
    knobs = " and ".join(f"{name} {params[name]}" for name in lengths)
    lower = " or ".join(f"space.{name}" for name in lengths)
    fix = f"lower training.max_length to {fits}, or {lower}" if fits else f"lower {lower}"
    return TrialInfeasible(f"{tokens} tokens, {knobs} exceed the model's positions together", fix=fix).message


class _Reach(IntEnum):
    """How far a forward pass came."""

    START = 0
    BLOCK = 1  # the second of the repeated blocks
    BACKBONE = 2  # its end
    END = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pass:
    """A forward pass on shapes.

    Attributes:
        reach: How far it came.
        error: What ended it before its end.
    """

    reach: _Reach
    error: Exception | None


class _Enough(Exception):
    """What was to be seen was seen."""


def _pass(model: nn.Module, *, rows: int, tokens: int, is_short: bool = False) -> _Pass:
    """Run a model on tokens without content, to the loss or, if ``is_short``, to the second block.

    Raises:
        TrialInfeasible: If a strategy finds that the texts are too long for it.
    """
    reach = _Reach.START

    def note_block(*_: object) -> None:
        nonlocal reach
        reach = max(reach, _Reach.BLOCK)
        if is_short:
            raise _Enough

    def note_backbone(*_: object) -> None:
        nonlocal reach
        reach = max(reach, _Reach.BACKBONE)

    blocks = find_blocks(model)
    watches = [backbone_of(model).register_forward_hook(note_backbone)]
    if len(blocks) > 1:
        watches.append(model.get_submodule(blocks[1].name).register_forward_pre_hook(note_block))
    try:
        logits = model(input_ids=torch.zeros(rows, tokens, dtype=torch.long, device="meta")).logits
        nn.functional.cross_entropy(logits, torch.zeros(rows, dtype=torch.long, device="meta"))
    except TrialInfeasible:
        raise
    except _Enough:
        return _Pass(reach=reach, error=None)
    except Exception as error:  # noqa: BLE001 - an operation that needs the content fails in many ways
        return _Pass(reach=reach, error=error)
    finally:
        for watch in watches:
            watch.remove()
    return _Pass(reach=_Reach.END, error=None)


def _breakage(passed: _Pass, *, block: StrategySpace, model: nn.Module, shapes: _Shapes) -> str:
    """Why an adapted model does not come as far as it does without the strategy; empty if it does.

    An operation that asks for the content of a tensor says nothing about a trial, where there is one.

    Raises:
        Exception: What says that memory ran out here.
    """
    error = passed.error
    if error is None or passed.reach >= shapes.reach:
        return ""
    if isinstance(error, NotImplementedError) or "meta" in str(error).lower():
        return ""
    if is_out_of_memory(error):
        raise error  # of a trial on its own box that says nothing
    return _does_not_run(block, model=model, why=_in_short(error))


def _does_not_run(block: StrategySpace, *, model: nn.Module, why: str) -> str:
    return TrialInfeasible(
        f"{block.strategy} does not run on {type(model).__name__}",
        why=why,
        fix=f"take {block.strategy} out of strategies",
    ).message


def _facts(block: StrategySpace, params: Mapping[str, Value], shapes: _Shapes) -> _Facts | str:
    """What an adapted model is, or why it cannot be."""
    try:
        model = _adapted(block, params, shapes)
    except TrialInfeasible as error:
        return error.message
    rows = _largest_batch(block, params)
    if shapes.micro_batch is not None:
        rows = min(rows, shapes.micro_batch)
    try:
        passed, activations = _activations(model, rows=rows, tokens=shapes.tokens)
    except TrialInfeasible as error:
        return _too_long(error, block=block, params=params, model=model, tokens=shapes.tokens)
    if message := _breakage(passed, block=block, model=model, shapes=shapes):
        return message
    if shapes.rehearsal is not None and (why := shapes.rehearsal.failure(block.strategy, params)):
        return _does_not_run(block, model=model, why=why)
    trainable, total = count_parameters(model)
    copies = _MOMENTS.get(str(params.get("optimizer")), 2)
    copies += sum(float(params.get(name, 0.0)) > 0.0 for name in ("ema", "l2_sp"))  # each keeps weights of its own
    return _Facts(
        trainable=trainable,
        total=total,
        # The gradients fill what the activations leave, step by step: at no time are both there in full.
        memory=_FLOAT * (total + copies * trainable) + max(activations, _FLOAT * trainable),
        checkpoint=sum(tensor.numel() * tensor.element_size() for tensor in trainable_state(model).values()),
        is_counted=passed.error is None,
    )


def _largest_batch(block: StrategySpace, params: Mapping[str, Value]) -> int:
    own = f"{block.strategy}.batch_size"
    domain = block.domains.get(own, block.domains.get("batch_size"))
    sizes = ends_of(domain) if domain is not None else ()
    return max((int(size) for size in sizes), default=int(params.get("batch_size", 1)))


def _activations(model: nn.Module, *, rows: int, tokens: int) -> tuple[_Pass, int]:
    """A forward pass, and the bytes at its end; they are counted if it came to it.

    They are what is kept for the backward pass, and twice the largest output of a layer, as input and output of the
    operation at work: within 11 % of the allocator's peak on BERT-tiny (16 rows of 128 tokens, eight strategies).
    Some models look at the content of a tensor, which has none here; theirs are taken from a rule of thumb.

    Raises:
        TrialInfeasible: If a strategy finds that the texts are too long for it.
    """
    weights = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, Tensor] = {}  # kept alive, so that no storage takes another's place

    def note(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in weights:
            saved[_storage(tensor)] = tensor
        return tensor

    largest = 0

    def look(_module: nn.Module, _inputs: object, made: object) -> None:
        nonlocal largest
        if isinstance(made, Tensor):
            largest = max(largest, made.numel() * made.element_size())

    watch = register_module_forward_hook(look)
    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            passed = _pass(model, rows=rows, tokens=tokens)
    finally:
        watch.remove()
    if passed.error is not None:
        return passed, _rule_of_thumb(model, rows=rows, tokens=tokens)
    return passed, sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) + 2 * largest


def _storage(tensor: Tensor) -> int:
    """Which piece of memory a tensor is in; tensors without content have no address."""
    identity: int = tensor.untyped_storage()._cdata  # noqa: SLF001 - torch has no public name for it
    return identity


def _rule_of_thumb(model: nn.Module, *, rows: int, tokens: int) -> int:
    config = model.config
    width, layers = (int(getattr(config, name, None) or 1) for name in ("hidden_size", "num_hidden_layers"))
    return _SAVED_PER_LAYER * _FLOAT * rows * tokens * width * layers
