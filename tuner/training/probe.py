"""Every strategy of a study, applied to the real model's shapes: no weight is read and nothing is computed.

On torch's meta device a tensor has a shape and no content, so a model of any size is built, adapted and run in
milliseconds. What a strategy refuses there it would refuse in a trial.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from tuner.errors import TrialInfeasible
from tuner.strategies import resolve
from tuner.strategies.anatomy import find_blocks
from tuner.strategies.base import freeze_backbone
from tuner.strategies.state import count_parameters, trainable_state
from tuner.study.domains import Fixed, Value
from tuner.study.names import components
from tuner.study.proof import Refusal, StrategyProof, ends_of
from tuner.study.space import SearchSpace, StrategySpace
from tuner.study.spec import StudySpec
from tuner.tasks import TASKS
from tuner.training.model import load_shapes

_FLOAT = 4  # bytes; master weights, gradients and moments are float32 in every precision
_MOMENTS = {"adamw": 2, "adam": 2, "adafactor": 0, "rmsprop": 1, "sgd": 1, "lion": 1}
"""Tensors of a parameter's size that an optimizer keeps; adafactor's rows and columns are next to nothing."""

_SAVED_PER_LAYER = 21
"""Tensors of (rows, tokens, width) that a transformer layer keeps for the backward pass, counted on BERT in training mode."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shapes:
    """The model to try strategies on, and the size of a batch."""

    model: nn.Module
    fresh: frozenset[str]
    tokens: int
    micro_batch: int | None


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
    shapes = _Shapes(model=model, fresh=fresh, tokens=spec.training.max_length, micro_batch=spec.training.micro_batch)
    tried: set[str] = set()
    return tuple(_prove(block, space=space, shapes=shapes, tried=tried) for block in space.strategies)


def _prove(block: StrategySpace, *, space: SearchSpace, shapes: _Shapes, tried: set[str]) -> StrategyProof:
    params = space.absolute(block.strategy, block.recipe)
    refusals: list[Refusal] = []
    try:
        facts = _facts(block, params, shapes)
        if isinstance(facts, str):
            refusals.append(Refusal(knob="", value=None, message=facts))
        works = not refusals
        for knob in _structural(block):
            if works and knob in tried:
                continue
            for value in ends_of(block.domains[knob]):
                if value == params[knob]:
                    continue
                changed = {**params, knob: value}
                if message := _refusal(block, changed, shapes):
                    if all(message != refusal.message for refusal in refusals):
                        refusals.append(Refusal(knob=knob, value=value, message=message))
                elif isinstance(facts, str):
                    facts = _facts(block, changed, shapes)
            if works:
                tried.add(knob)
    except Exception as error:  # noqa: BLE001 - a strategy that breaks here may yet work in a trial; the check goes on
        text = (str(error).splitlines() or [""])[0]
        return StrategyProof(strategy=block.strategy, works=True, unknown=f"{type(error).__name__}: {text}"[:200])
    if isinstance(facts, str):
        return StrategyProof(strategy=block.strategy, works=False, refusals=tuple(refusals))
    return StrategyProof(
        strategy=block.strategy,
        works=True,
        trainable=facts.trainable,
        total=facts.total,
        memory=facts.memory,
        checkpoint=facts.checkpoint,
        is_memory_counted=facts.is_counted,
        refusals=tuple(refusals),
    )


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
        blocks = find_blocks(model)
        if len(blocks) > 1:
            model.get_submodule(blocks[1].name).register_forward_pre_hook(_stop)
            _run_to_the_stop(model, tokens=shapes.tokens)
    except TrialInfeasible as error:
        return error.message
    return ""


def _run_to_the_stop(model: nn.Module, *, tokens: int) -> None:
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(1, tokens, dtype=torch.long, device="meta"))
    except TrialInfeasible:
        raise
    except Exception:  # noqa: BLE001, S110 - the stop, or an operation that needs the content: it came no further
        pass


class _Enough(Exception):
    """What was to be seen was seen."""


def _stop(*_: object) -> None:
    raise _Enough


def _facts(block: StrategySpace, params: Mapping[str, Value], shapes: _Shapes) -> _Facts | str:
    """What an adapted model is, or why it cannot be."""
    try:
        model = _adapted(block, params, shapes)
        rows = _largest_batch(block, params)
        if shapes.micro_batch is not None:
            rows = min(rows, shapes.micro_batch)
        activations, is_counted = _activations(model, rows=rows, tokens=shapes.tokens)
    except TrialInfeasible as error:
        return error.message
    trainable, total = count_parameters(model)
    copies = _MOMENTS.get(str(params.get("optimizer")), 2)
    copies += sum(float(params.get(name, 0.0)) > 0.0 for name in ("ema", "l2_sp"))  # each keeps weights of its own
    return _Facts(
        trainable=trainable,
        total=total,
        # The gradients fill what the activations leave, step by step: at no time are both there in full.
        memory=_FLOAT * (total + copies * trainable) + max(activations, _FLOAT * trainable),
        checkpoint=sum(tensor.numel() * tensor.element_size() for tensor in trainable_state(model).values()),
        is_counted=is_counted,
    )


def _largest_batch(block: StrategySpace, params: Mapping[str, Value]) -> int:
    own = f"{block.strategy}.batch_size"
    domain = block.domains.get(own, block.domains.get("batch_size"))
    sizes = ends_of(domain) if domain is not None else ()
    return max((int(size) for size in sizes), default=int(params.get("batch_size", 1)))


def _activations(model: nn.Module, *, rows: int, tokens: int) -> tuple[int, bool]:
    """Bytes at the end of a forward pass, and whether they were counted.

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

    ids = torch.zeros(rows, tokens, dtype=torch.long, device="meta")
    watch = register_module_forward_hook(look)
    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            logits = model(input_ids=ids).logits
            nn.functional.cross_entropy(logits, torch.zeros(rows, dtype=torch.long, device="meta"))
    except TrialInfeasible:
        raise
    except Exception:  # noqa: BLE001 - an operation that needs the content fails in many ways
        return _rule_of_thumb(model, rows=rows, tokens=tokens), False
    finally:
        watch.remove()
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) + 2 * largest, True


def _storage(tensor: Tensor) -> int:
    """Which piece of memory a tensor is in; tensors without content have no address."""
    identity: int = tensor.untyped_storage()._cdata  # noqa: SLF001 - torch has no public name for it
    return identity


def _rule_of_thumb(model: nn.Module, *, rows: int, tokens: int) -> int:
    config = model.config
    width, layers = (int(getattr(config, name, None) or 1) for name in ("hidden_size", "num_hidden_layers"))
    return _SAVED_PER_LAYER * _FLOAT * rows * tokens * width * layers
