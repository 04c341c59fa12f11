from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.samples import Recorder, plan, run, study
from tuner.study.hyperparameters import SHARED_HYPERPARAMETERS
from tuner.training.regularisers import Adversary, Mixing, l1, l2_sp, r_drop

OFF: dict[str, Any] = {"l1": 0.0, "l2_sp": 0.0, "mixup": 0.0, "r_drop": 0.0, "fgm": 0.0, "ema": 0.0, "patience": 0}
ON: dict[str, Any] = {"l1": 1e-2, "l2_sp": 1e-2, "mixup": 0.4, "r_drop": 1.0, "fgm": 1.0, "ema": 0.9}


def test_l1_counts_matrices() -> None:
    matrix, vector = torch.tensor([[1.0, -2.0], [0.5, 0.0]], requires_grad=True), torch.ones(3)
    value = l1([matrix, vector, torch.ones(3, 1), torch.ones(1, 3)])
    value.backward()
    assert value.item() == 3.5
    assert matrix.grad is not None and matrix.grad.tolist() == [[1.0, -1.0], [1.0, 0.0]]


def test_l2_sp_pulls_to_the_start_and_what_has_none_to_zero() -> None:
    old, new = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    value = l2_sp({"old": old, "new": new}, starts={"old": torch.tensor([0.0, 4.0])})
    value.backward()
    assert value.item() == 0.5 * (1.0 + 4.0) + 0.5 * 9.0
    assert old.grad is not None and old.grad.tolist() == [1.0, -2.0]
    assert new.grad is not None and new.grad.tolist() == [3.0]


def test_r_drop_is_the_mean_of_both_divergences() -> None:
    one, two = torch.tensor([[1.0, 0.0], [2.0, 2.0]]), torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    p, q = one.softmax(1), two.softmax(1)
    expected = 0.5 * ((p * (p / q).log()).sum() + (q * (q / p).log()).sum())
    torch.testing.assert_close(r_drop(one, two), expected)
    assert r_drop(one, one).item() == 0.0


def test_a_mixing_depends_on_seed_and_step_alone() -> None:
    draws = [Mixing.draw(alpha=0.4, rows=16, seed=seed, step=step) for seed, step in ((1, 1), (1, 1), (1, 2), (2, 1))]
    assert draws[0].share == draws[1].share and torch.equal(draws[0].partners, draws[1].partners)
    assert len({draw.share for draw in draws}) == 3
    assert all(sorted(draw.partners.tolist()) == list(range(16)) and 0 <= draw.share <= 1 for draw in draws)
    shares = torch.tensor([Mixing.draw(alpha=0.4, rows=2, seed=0, step=step).share for step in range(2000)])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.1)  # of a Beta(a, a)


@pytest.mark.parametrize("frozen", [True, False])
def test_the_adversary_goes_its_length_along_the_gradient_of_each_row(frozen: bool) -> None:
    embedded = torch.tensor([[[3.0, 4.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    leaf = embedded.clone().requires_grad_(not frozen)
    adversary = Adversary(epsilon=0.5)
    (adversary.watch(leaf * 1.0).square().sum() * 7.0).backward()
    change = adversary.disturb()(embedded) - embedded
    # The gradient is along the row itself, whatever the loss is scaled by; a row without one stays.
    torch.testing.assert_close(change[0], torch.tensor([[0.3, 0.4], [0.0, 0.0]]))
    torch.testing.assert_close(change[1], torch.full((2, 2), 0.25))
    assert change[2].abs().sum() == 0.0


def test_the_adversary_keeps_the_order_of_several_embeddings() -> None:
    one, two = torch.ones(1, 2, 1), torch.ones(1, 3, 1)
    adversary = Adversary(epsilon=1.0)
    (adversary.watch(one).sum() - adversary.watch(two).sum()).backward()
    disturb = adversary.disturb()
    torch.testing.assert_close(disturb(one), one + 0.5**0.5)
    torch.testing.assert_close(disturb(two), two - (1 / 3) ** 0.5)


def test_an_overflown_gradient_moves_nothing() -> None:
    adversary = Adversary(epsilon=1.0)
    embedded = adversary.watch(torch.zeros(2, 2))
    embedded.grad = torch.tensor([[torch.inf, 1.0], [torch.nan, 1.0]])
    assert torch.isfinite(adversary.disturb()(embedded)).all()


@pytest.mark.parametrize("strategy", ["full", "head"])
def test_switched_off_nothing_changes(tmp_path: Path, strategy: str) -> None:
    spec, without, off = study(tmp_path), Recorder(), Recorder()
    run(plan(spec, tmp_path / "without", strategy=strategy), report=without)
    run(plan(spec, tmp_path / "off", strategy=strategy, optimizer="adamw", **OFF), report=off)
    assert off.curve == without.curve


@pytest.mark.parametrize("strategy", ["full", "head"])
@pytest.mark.parametrize("name", ON)
def test_switched_on_each_one_changes_the_curve_and_the_run_learns(tmp_path: Path, strategy: str, name: str) -> None:
    spec, plain, changed = study(tmp_path), Recorder(), Recorder()
    run(plan(spec, tmp_path / "plain", strategy=strategy), report=plain)
    run(plan(spec, tmp_path / "changed", strategy=strategy, **{name: ON[name]}), report=changed)
    assert [curve["loss"] for _, curve in changed.curve] != [curve["loss"] for _, curve in plain.curve]
    assert changed.curve[-1][1]["train_loss"] < changed.curve[0][1]["train_loss"]


def test_all_together_run_on_parts_of_a_batch_in_any_precision(tmp_path: Path) -> None:
    report = Recorder()
    spec = study(tmp_path, training={"micro_batch": 3, "precision": "bf16", "epochs": 4})
    run(plan(spec, tmp_path / "c", balance="class_weight", label_smoothing=0.1, **ON), report=report)
    assert report.curve[-1][1]["train_loss"] < report.curve[0][1]["train_loss"]


def test_every_regulariser_is_off_by_default_and_may_be_searched() -> None:
    knobs = {knob.name: knob for knob in SHARED_HYPERPARAMETERS}
    for name, off in OFF.items():
        assert (knobs[name].default, knobs[name].domain.clip(1)) == (off, off)
        assert knobs[name].allowed is not None
        assert all(knobs[name].allowed.clip(value) == value for value in (off, ON.get(name, 3)))  # type: ignore[union-attr]


def test_l2_sp_of_a_run_knows_the_pretrained_weights(tmp_path: Path) -> None:
    spec = study(tmp_path, training={"epochs": 4})
    distances = {}
    for factor in (0.0, 0.3):
        result = run(plan(spec, tmp_path / str(factor), strategy="full", l2_sp=factor, weight_decay=0.0, dropout=0.0))
        trained = load_file(Path(result.checkpoint) / "weights.safetensors")
        start = load_file(tmp_path / "model-bert" / "model.safetensors")
        moved = [
            (trained[f"bert.{name}"] - tensor).square().sum() for name, tensor in start.items() if "encoder" in name
        ]
        distances[factor] = torch.stack(moved).sum().item()
    assert distances[0.3] < 0.5 * distances[0.0]


def test_patience_may_be_a_hyperparameter(tmp_path: Path) -> None:
    spec = study(tmp_path, training={"epochs": 6}, objective={"metric": "loss"})
    diverging: dict[str, Any] = {"learning_rate": 0.5, "schedule": "constant"}
    assert run(plan(spec, tmp_path / "a", **diverging)).epochs == 6
    result = run(plan(spec, tmp_path / "b", patience=1, **diverging))
    assert (result.ended_by, result.epochs < 6) == ("patience", True)
