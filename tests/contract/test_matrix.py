"""The contract of a strategy, held on every architecture: it works in all respects, or it is refused with a reason.

Which cells are refused stands in ``matrix.py``; nothing is refused, fails or begins to work without an edit there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.contract.architectures import KINDS, LABELS, build, build_on_meta, inputs, logits, padded
from tests.contract.matrix import (
    COMBINATIONS,
    PUT_BACK,
    REFUSED,
    TINY,
    UNMERGED,
    cells,
    is_quick,
    pairs,
    refusal,
    unmerged,
)
from tuner.errors import TrialInfeasible, UsageError
from tuner.strategies import STRATEGIES, resolve
from tuner.strategies.base import Strategy
from tuner.strategies.state import count_parameters, load_trainable_state, trainable_state, trained_names
from tuner.study.names import COMBINE, components

STEPS = 8
RATE = 3e-3


def _marked(name: str, kind: str) -> object:
    marks = () if is_quick(name, kind) else pytest.mark.slow
    return pytest.param(name, kind, id=f"{name}-{kind}", marks=marks)


@pytest.mark.parametrize(("name", "kind"), [_marked(*cell) for cell in cells()])
def test_a_strategy_keeps_its_contract(name: str, kind: str, tmp_path: Path) -> None:
    strategy, reason = resolve(name), refusal(name, kind)
    if reason is not None:
        check_it_is_refused(strategy, kind, reason=reason)
        return
    model = adapt(strategy, kind)
    assert count_parameters(adapt_on_meta(strategy, kind)) == count_parameters(model)
    assert trained_names(adapt_on_meta(strategy, kind)) == trained_names(model)
    check_it_learns_and_changes_only_what_it_trains(strategy, model, kind)
    check_rows_do_not_see_each_other(model, kind)
    check_it_comes_back_from_a_file(strategy, model, kind, file=tmp_path / "weights.safetensors")
    check_it_runs_in_half_precision(model, kind)
    check_it_merges_or_says_why_not(strategy, model, kind, reasons=unmerged(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", pairs())
def test_any_two_that_may_be_combined_can_be(name: str, tmp_path: Path) -> None:
    strategy, kind = resolve(name), "bert"
    model = adapt(strategy, kind)
    one, other = (plain_names(adapt(STRATEGIES[part], kind)) for part in components(name))
    assert plain_names(model) - one
    assert plain_names(model) - other
    turned = resolve(COMBINE.join(reversed(components(name))))
    assert count_parameters(adapt_on_meta(turned, kind)) == count_parameters(model)
    train(strategy, model, kind, count=2)
    check_it_comes_back_from_a_file(strategy, model, kind, file=tmp_path / "weights.safetensors")
    check_it_merges_or_says_why_not(strategy, model, kind, reasons=unmerged(name))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_two_can_be_combined_on_every_architecture_but_those_in_the_list(kind: str) -> None:
    wrong = {}
    for name in pairs():
        expected, found = refusal(name, kind), ""
        try:
            adapt_on_meta(resolve(name), kind)
        except TrialInfeasible as refused:
            found = refused.message
        if expected not in found if expected else found:
            wrong[name] = (expected, found)
    assert wrong == {}


def test_the_lists_speak_of_strategies_that_exist() -> None:
    assert set(REFUSED) <= {*STRATEGIES, *COMBINATIONS, *pairs()}
    assert set(UNMERGED) <= STRATEGIES.keys()


def adapt(strategy: Strategy, kind: str, *, seed: int = 1) -> nn.Module:
    """The architecture's one model, adapted; the seed decides what is drawn, the head included."""
    model = build(kind)
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    return strategy.apply(model, TINY)


def adapt_on_meta(strategy: Strategy, kind: str) -> nn.Module:
    return strategy.apply(build_on_meta(kind), TINY)


def train(strategy: Strategy, model: nn.Module, kind: str, *, count: int = STEPS) -> list[float]:
    """Some steps as the training takes them, with phases, factors and penalties; the losses before each."""
    factors, phases = strategy.learning_rates(model, TINY), strategy.phases(model, TINY)
    everything = trained_names(model)
    parameters = {name: parameter for name, parameter in model.named_parameters() if name in everything}
    groups = [{"params": [tensor], "lr": RATE * factors.get(name, 1.0)} for name, tensor in parameters.items()]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    losses = []
    for step in range(count):
        if phases:
            trained = [phase.trained for phase in phases if phase.start * count <= step][-1]
            for name, parameter in parameters.items():
                parameter.requires_grad_(name in trained)
        loss = nn.functional.cross_entropy(model(**inputs(kind)).logits, LABELS)
        losses.append(loss.item())
        penalty = strategy.penalty(model, TINY)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        strategy.after_step(model, TINY, step=step, steps=count)
        optimizer.zero_grad()
    for parameter in parameters.values():
        parameter.requires_grad_()
    return losses


def check_it_is_refused(strategy: Strategy, kind: str, *, reason: str) -> None:
    """Before a trial is spent, and with what to do about it."""
    for attempt in (adapt, adapt_on_meta):
        with pytest.raises(TrialInfeasible) as caught:
            attempt(strategy, kind)
        assert reason in caught.value.message
        assert caught.value.why
        assert caught.value.fix


def check_it_learns_and_changes_only_what_it_trains(strategy: Strategy, model: nn.Module, kind: str) -> None:
    before = tensors(model)
    phases, factors = strategy.phases(model, TINY), strategy.learning_rates(model, TINY)
    assert factors.keys() <= trained_names(model)
    if phases:
        assert phases[0].start == 0
        assert [phase.start for phase in phases] == sorted({phase.start for phase in phases})
        assert frozenset().union(*(phase.trained for phase in phases)) == trained_names(model)
    losses = train(strategy, model, kind)
    assert losses[-1] < losses[0]
    changed = {name for name, tensor in tensors(model).items() if not torch.equal(tensor, before[name])}
    assert changed <= trainable_state(model).keys()
    # … and nothing that is said to be trained stands still, unless nothing can move it.
    put_back = tuple(PUT_BACK[part] for part in components(strategy.info.name) if part in PUT_BACK)
    still = {
        name for name in trained_names(model) - changed if factors.get(name, 1.0) > 0 and not name.endswith(put_back)
    }
    assert {plain(name) for name in still} <= idle(kind)


@cache
def idle(kind: str) -> frozenset[str]:
    """Parameters that no loss depends on: full fine-tuning does not move them either."""
    model = build(kind).requires_grad_(requires_grad=True)
    before = tensors(model)
    train(resolve("full"), model, kind)
    return frozenset(name for name in trained_names(model) if torch.equal(model.get_parameter(name), before[name]))


def check_rows_do_not_see_each_other(model: nn.Module, kind: str) -> None:
    """A row's logits are the same alone, among others, and padded to the length of longer ones."""
    rows = inputs(kind)
    alone = {name: value[1:3] for name, value in padded(rows).items()}
    torch.testing.assert_close(logits(model, alone), logits(model, rows)[1:3], rtol=1e-4, atol=1e-5)


def check_it_comes_back_from_a_file(strategy: Strategy, model: nn.Module, kind: str, *, file: Path) -> None:
    save_file({name: value.contiguous() for name, value in trainable_state(model).items()}, file)
    other = adapt(strategy, kind, seed=99)
    assert not torch.equal(logits(other, inputs(kind)), logits(model, inputs(kind)))
    load_trainable_state(other, load_file(file))
    assert torch.equal(logits(other, inputs(kind)), logits(model, inputs(kind)))


def check_it_runs_in_half_precision(model: nn.Module, kind: str) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nn.functional.cross_entropy(model(**inputs(kind)).logits.float(), LABELS)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    model.zero_grad()


def check_it_merges_or_says_why_not(strategy: Strategy, model: nn.Module, kind: str, *, reasons: Sequence[str]) -> None:
    rows, before = inputs(kind), tensors(model)
    expected = logits(model, rows)
    if not reasons:
        merged = strategy.merge(model)
        assert layers(merged) == layers(build(kind))
        torch.testing.assert_close(logits(merged, rows), expected, rtol=1e-4, atol=1e-5)
        return
    with pytest.raises(UsageError) as caught:
        strategy.merge(model)
    assert any(reason in caught.value.message for reason in reasons)
    assert caught.value.why
    after = tensors(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(logits(model, rows), expected)


def plain_names(model: nn.Module) -> frozenset[str]:
    """What is trained, by the names that it has where nothing is wrapped."""
    return frozenset(map(plain, trained_names(model)))


def plain(name: str) -> str:
    return name.replace(".base_layer", "")


def tensors(model: nn.Module) -> Mapping[str, Tensor]:
    """Copies of all parameters and buffers, those that are not saved included."""
    return {name: value.detach().clone() for name, value in (*model.named_parameters(), *model.named_buffers())}


def layers(model: nn.Module) -> Mapping[str, object]:
    """The kind of every module, and the shape of every saved tensor."""
    kinds = {name: type(module) for name, module in model.named_modules()}
    return kinds | {f"{name}:": tuple(value.shape) for name, value in model.state_dict().items()}
