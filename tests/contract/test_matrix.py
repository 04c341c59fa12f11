"""The contract of a strategy, held on every architecture: it works in all respects, or it is refused with a reason.

Which cells are refused stands in ``matrix.py``; nothing is refused, fails or begins to work without an edit there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    options,
    pairs,
    refusal,
    unmerged,
)
from tuner.errors import TrialInfeasible, UsageError
from tuner.strategies import STRATEGIES, resolve
from tuner.strategies.base import Strategy
from tuner.strategies.state import count_parameters, load_trainable_state, trainable_state, trained_names
from tuner.study.domains import Value
from tuner.study.names import COMBINE, components

pytestmark = pytest.mark.slow

STEPS = 8
RATE = 3e-3


@dataclass(frozen=True, kw_only=True)
class Case:
    """A strategy, combination or sequence on an architecture, with hyperparameters that suit the small models."""

    name: str
    kind: str
    params: Mapping[str, Value] = field(default_factory=lambda: TINY)

    @property
    def strategy(self) -> Strategy:
        return resolve(self.name)


def _marked(name: str, kind: str) -> object:
    marks = () if is_quick(name, kind) else pytest.mark.slow
    return pytest.param(name, kind, id=f"{name}-{kind}", marks=marks)


@pytest.mark.parametrize(("name", "kind"), [_marked(*cell) for cell in cells()])
def test_a_strategy_keeps_its_contract(name: str, kind: str, tmp_path: Path) -> None:
    check_the_contract(Case(name=name, kind=kind), folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("knob", "option"), list(options()))
def test_so_does_every_variant_of_it(knob: str, option: Value, kind: str, tmp_path: Path) -> None:
    case = Case(name=knob.partition(".")[0], kind=kind, params={**TINY, knob: option})
    check_the_contract(case, folder=tmp_path)


def check_the_contract(case: Case, *, folder: Path) -> None:
    """All of it; every line is a promise of ``docs/strategies.md``."""
    reason = refusal(case.name, case.kind, params=case.params)
    if reason is not None:
        check_it_is_refused(case, reason=reason)
        return
    model = adapt(case)
    assert count_parameters(adapt_on_meta(case)) == count_parameters(model)
    assert trained_names(adapt_on_meta(case)) == trained_names(model)
    check_it_learns_and_changes_only_what_it_trains(case, model)
    check_rows_do_not_see_each_other(model, case.kind)
    check_it_comes_back_from_a_file(case, model, file=folder / "weights.safetensors")
    check_it_runs_in_half_precision(model, case.kind)
    check_it_merges_or_says_why_not(case, model, reasons=unmerged(case.name))


@pytest.mark.slow
@pytest.mark.parametrize("name", pairs())
def test_any_two_that_may_be_combined_can_be(name: str, tmp_path: Path) -> None:
    case = Case(name=name, kind="bert")
    model = adapt(case)
    one, other = (plain_names(adapt(Case(name=part, kind="bert"))) for part in components(name))
    assert plain_names(model) - one
    assert plain_names(model) - other
    turned = Case(name=COMBINE.join(reversed(components(name))), kind="bert")
    assert count_parameters(adapt_on_meta(turned)) == count_parameters(model)
    train(case, model, count=2)
    check_it_comes_back_from_a_file(case, model, file=tmp_path / "weights.safetensors")
    check_it_merges_or_says_why_not(case, model, reasons=unmerged(name))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_two_can_be_combined_on_every_architecture_but_those_in_the_list(kind: str) -> None:
    wrong = {}
    for name in pairs():
        expected, found = refusal(name, kind), ""
        try:
            adapt_on_meta(Case(name=name, kind=kind))
        except TrialInfeasible as refused:
            found = refused.message
        if expected not in found if expected else found:
            wrong[name] = (expected, found)
    assert wrong == {}


def test_the_lists_speak_of_strategies_that_exist() -> None:
    chosen = {f"{knob}: {option}" for knob, option in options()}
    assert set(REFUSED) <= {*STRATEGIES, *COMBINATIONS, *pairs(), *chosen}
    assert set(UNMERGED) <= STRATEGIES.keys()


def adapt(case: Case, *, seed: int = 1) -> nn.Module:
    """The architecture's one model, adapted; the seed decides what is drawn, the head included."""
    model = build(case.kind)
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    return case.strategy.apply(model, case.params)


def adapt_on_meta(case: Case) -> nn.Module:
    return case.strategy.apply(build_on_meta(case.kind), case.params)


def train(case: Case, model: nn.Module, *, count: int = STEPS) -> list[float]:
    """Some steps as the training takes them, with phases, factors and penalties; the losses before each."""
    factors, phases = case.strategy.learning_rates(model, case.params), case.strategy.phases(model, case.params)
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
        loss = nn.functional.cross_entropy(model(**inputs(case.kind)).logits, LABELS)
        losses.append(loss.item())
        penalty = case.strategy.penalty(model, case.params)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        case.strategy.after_step(model, case.params, step=step, steps=count)
        optimizer.zero_grad()
    for parameter in parameters.values():
        parameter.requires_grad_()
    return losses


def check_it_is_refused(case: Case, *, reason: str) -> None:
    """Before a trial is spent, and with what to do about it."""
    for attempt in (adapt, adapt_on_meta):
        with pytest.raises(TrialInfeasible) as caught:
            attempt(case)
        assert reason in caught.value.message
        assert caught.value.why
        assert caught.value.fix


def check_it_learns_and_changes_only_what_it_trains(case: Case, model: nn.Module) -> None:
    before = tensors(model)
    phases, factors = case.strategy.phases(model, case.params), case.strategy.learning_rates(model, case.params)
    assert factors.keys() <= trained_names(model)
    if phases:
        assert phases[0].start == 0
        assert [phase.start for phase in phases] == sorted({phase.start for phase in phases})
        assert frozenset().union(*(phase.trained for phase in phases)) == trained_names(model)
    losses = train(case, model)
    assert losses[-1] < losses[0]
    changed = {name for name, tensor in tensors(model).items() if not torch.equal(tensor, before[name])}
    assert changed <= trainable_state(model).keys()
    # … and nothing that is said to be trained stands still, unless nothing can move it.
    put_back = tuple(PUT_BACK[part] for part in components(case.name) if part in PUT_BACK)
    still = {
        name for name in trained_names(model) - changed if factors.get(name, 1.0) > 0 and not name.endswith(put_back)
    }
    assert {plain(name) for name in still} <= idle(case.kind)


@cache
def idle(kind: str) -> frozenset[str]:
    """Parameters that no loss depends on: full fine-tuning does not move them either."""
    model = build(kind).requires_grad_(requires_grad=True)
    before = tensors(model)
    train(Case(name="full", kind=kind), model)
    return frozenset(name for name in trained_names(model) if torch.equal(model.get_parameter(name), before[name]))


def check_rows_do_not_see_each_other(model: nn.Module, kind: str) -> None:
    """A row's logits are the same alone, among others, and padded to the length of longer ones."""
    rows = inputs(kind)
    alone = {name: value[1:3] for name, value in padded(rows).items()}
    torch.testing.assert_close(logits(model, alone), logits(model, rows)[1:3], rtol=1e-4, atol=1e-5)


def check_it_comes_back_from_a_file(case: Case, model: nn.Module, *, file: Path) -> None:
    save_file({name: value.contiguous() for name, value in trainable_state(model).items()}, file)
    other = adapt(case, seed=99)
    assert not torch.equal(logits(other, inputs(case.kind)), logits(model, inputs(case.kind)))
    load_trainable_state(other, load_file(file))
    assert torch.equal(logits(other, inputs(case.kind)), logits(model, inputs(case.kind)))


def check_it_runs_in_half_precision(model: nn.Module, kind: str) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nn.functional.cross_entropy(model(**inputs(kind)).logits.float(), LABELS)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    model.zero_grad()


def check_it_merges_or_says_why_not(case: Case, model: nn.Module, *, reasons: Sequence[str]) -> None:
    rows, before = inputs(case.kind), tensors(model)
    expected = logits(model, rows)
    if not reasons:
        merged = case.strategy.merge(model)
        assert layers(merged) == layers(build(case.kind))
        torch.testing.assert_close(logits(merged, rows), expected, rtol=1e-4, atol=1e-5)
        return
    with pytest.raises(UsageError) as caught:
        case.strategy.merge(model)
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
