from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.training.samples import Recorder, plan, run, study
from tests.training.toy import Linear, Odd, a_run, do_train
from tuner.errors import TrialDiverged, TrialOutOfMemory
from tuner.strategies.base import Phase
from tuner.strategies.full import Full
from tuner.study.domains import Value
from tuner.study.plan import Verdict
from tuner.training.cache import WarmCache
from tuner.training.checkpoint import WEIGHTS
from tuner.training.loop import Run
from tuner.training.run import run_trial
from tuner.training.settings import Settings


def test_what_does_not_fit_is_halved_until_it_does(tmp_path: Path) -> None:
    tight, wide = Linear(room=3), Linear()
    monitor, reference = Recorder(), Recorder()
    told: list[int] = []
    do_train(a_run(tmp_path / "a", model=tight, fitted=told.append), report=monitor)
    do_train(a_run(tmp_path / "b", model=wide, fitted=told.append), report=reference)
    assert (tight.largest, wide.largest) == (2, 8)
    assert told == [2], "once, and nothing where all fits"
    for (_, found), (_, expected) in zip(monitor.curve, reference.curve, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


def test_a_single_row_that_does_not_fit_is_infeasible(tmp_path: Path) -> None:
    with pytest.raises(TrialOutOfMemory, match=r"out of memory on cpu with 1 row of 1 tokens \(batch size 8\)"):
        do_train(a_run(tmp_path, model=Linear(room=0)))


def test_a_non_finite_loss_ends_the_run_at_its_step(tmp_path: Path) -> None:
    what = a_run(tmp_path, scale=math.inf)
    with pytest.raises(TrialDiverged, match="epoch 1, step 1;"):
        do_train(what)


def test_an_exploding_learning_rate_diverges(tmp_path: Path) -> None:
    with pytest.raises(TrialDiverged, match="non-finite"):
        run(plan(study(tmp_path), tmp_path / "c", learning_rate=1e30, max_grad_norm=0.0, warmup_ratio=0.0))


def test_a_diverged_run_leaves_nothing(tmp_path: Path) -> None:
    run(plan(study(tmp_path), tmp_path / "c"), report=Recorder(after=1, verdict=Verdict.RELEASE))
    assert (tmp_path / "c").exists()
    with pytest.raises(TrialDiverged):
        run(plan(study(tmp_path), tmp_path / "c", learning_rate=1e30, max_grad_norm=0.0, warmup_ratio=0.0))
    assert not (tmp_path / "c").exists()


def test_clipping_bounds_the_step_and_zero_does_not_clip(tmp_path: Path) -> None:
    norms = {}
    for limit in (0.0, 0.01):
        what = a_run(tmp_path / str(limit), max_grad_norm=limit)
        seen: list[float] = []

        def watch(*_: object, what: Run = what, seen: list[float] = seen) -> None:
            gradients = [p.grad for p in what.objective.model.parameters() if p.grad is not None]
            seen.append(torch.nn.utils.get_total_norm(gradients).item())

        what.optimizer.register_step_pre_hook(watch)
        do_train(what)
        norms[limit] = max(seen)
    assert norms[0.01] == pytest.approx(0.01, rel=1e-3)
    assert norms[0.0] > 0.1


def test_learning_rate_of_every_step_follows_the_schedule(tmp_path: Path) -> None:
    what = a_run(tmp_path, warmup_ratio=0.25)
    rates: list[float] = []
    what.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    do_train(what)
    total, warmup = 12, 3  # 30 rows in batches of 8, 3 epochs
    expected = [(s + 1) / warmup if s < warmup else (total - s) / (total - warmup) for s in range(total)]
    assert rates == pytest.approx([0.05 * share for share in expected])


def test_a_strategy_is_called_after_every_step_with_the_gradients(tmp_path: Path) -> None:
    strategy = Odd()
    do_train(a_run(tmp_path, strategy=strategy))
    assert strategy.steps == [(step, 12, True) for step in range(12)]


def test_a_strategy_may_slow_parameters_down(tmp_path: Path) -> None:
    what = a_run(tmp_path, strategy=Odd(), warmup_ratio=0.0)
    rates: list[list[float]] = []
    what.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append([g["lr"] for g in optimizer.param_groups]))
    do_train(what)
    assert rates[:2] == [pytest.approx([0.05, 0.025]), pytest.approx([0.05 * 11 / 12, 0.025 * 11 / 12])]


def test_in_a_phase_the_rest_stands_still_without_gradients(tmp_path: Path) -> None:
    weight, bias = frozenset({"layer.weight"}), frozenset({"layer.bias"})
    phases = (Phase(start=0.0, trained=bias), Phase(start=0.5, trained=weight | bias, restarts=True))
    strategy = Odd(phases=phases)
    what = a_run(tmp_path, strategy=strategy, schedule="constant", warmup_ratio=0.0)
    model, seen = what.objective.model, []

    def watch(*_: object) -> None:
        moments = [what.optimizer.state.get(parameter, {}).get("step") for parameter in model.parameters()]
        seen.append(
            (model.get_parameter("layer.weight").flatten()[0].item(), *(None if m is None else int(m) for m in moments))
        )

    what.optimizer.register_step_pre_hook(watch)
    do_train(what)
    values, *counts = zip(*seen, strict=True)
    assert len(set(values[:7])) == 1  # before step 6, which is its first
    assert len(set(values[6:])) == 6
    assert counts == [(None,) * 7 + (1, 2, 3, 4, 5), (None, 1, 2, 3, 4, 5, None, 1, 2, 3, 4, 5)]
    assert [had_gradient for _, _, had_gradient in strategy.steps] == [False] * 6 + [True] * 6


@pytest.mark.parametrize("share", [0.2, 1 / 3, 0.5])  # in the first epoch, at the border to the second one, inside it
@pytest.mark.parametrize("restarts", [False, True])
def test_a_run_resumed_in_any_phase_equals_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, restarts: bool
) -> None:
    class Gradual(Full):
        def phases(self, model: nn.Module, params: Mapping[str, Value]) -> tuple[Phase, ...]:
            names = [name for name, _ in model.named_parameters()]
            head = frozenset(name for name in names if name.startswith("classifier"))
            return (
                Phase(start=0.0, trained=head, rate=2.0),
                Phase(start=share, trained=frozenset(names), restarts=restarts),
            )

    monkeypatch.setattr("tuner.training.adapt.resolve", lambda _: Gradual())
    spec, whole = study(tmp_path), Recorder()
    expected = run(plan(spec, tmp_path / "whole"), report=whole)
    everything = run(plan(spec, tmp_path / "again", score_test=True))
    assert everything.trainable_params == everything.total_params
    for epoch in (1, 2):
        rest, part = Recorder(), tmp_path / f"part-{epoch}"
        run(plan(spec, part), report=Recorder(after=epoch, verdict=Verdict.RELEASE))
        found = run(plan(spec, tmp_path / f"rest-{epoch}", resume_from=[part]), report=rest)
        assert rest.curve == whole.curve[epoch - 1 :]
        ours, theirs = (load_file(Path(result.checkpoint) / WEIGHTS) for result in (expected, found))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_pruned_run_leaves_nothing(tmp_path: Path) -> None:
    report = Recorder(after=2, verdict=Verdict.PRUNE)
    result = run(plan(study(tmp_path), tmp_path / "c"), report=report)
    assert (result.ended_by, result.epochs, result.checkpoint) == ("prune", 2, "")
    assert [epoch for epoch, _ in report.curve] == [1, 2]
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("verdict", [Verdict.RELEASE, Verdict.STOP])
def test_a_run_that_is_asked_to_end_does_so_before_the_next_step(tmp_path: Path, verdict: Verdict) -> None:
    asked, report = 0, Recorder()

    def released() -> Verdict | None:
        nonlocal asked
        asked += bool(report.curve)
        return verdict if asked > 2 else None  # in the second epoch

    result = run(plan(study(tmp_path), tmp_path / "c"), report=report, released=released)
    assert (result.ended_by, result.epochs, asked) == (verdict.value, 1, 3)
    assert (tmp_path / "c" / "epoch-0001" / "manifest.json").exists()


def test_a_run_asked_to_end_in_its_first_epoch_has_no_result_yet(tmp_path: Path) -> None:
    stepping = False

    def started(_: object) -> None:
        nonlocal stepping
        stepping = True

    result = run_trial(
        plan(study(tmp_path), tmp_path / "c"),
        report=Recorder(),
        started=started,
        released=lambda: Verdict.RELEASE if stepping else None,
    )
    assert (result.ended_by, result.epochs, result.best_epoch, dict(result.metrics)) == ("release", 0, 0, {})


def test_early_stopping_counts_epochs_without_a_better_objective(tmp_path: Path) -> None:
    spec = study(tmp_path, training={"epochs": 9, "patience": 2}, objective={"metric": "loss"})
    report = Recorder()
    # A step in the wrong direction in every epoch: the first one stays the best.
    what = a_run(tmp_path, settings=Settings.of(plan(spec, tmp_path, learning_rate=5.0, schedule="constant")))
    ended, history = do_train(what, report=report)
    assert (ended, history.best_epoch, len(report.curve)) == ("patience", 1, 3)


def test_progress_rises_within_the_epoch_and_ends_at_one(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    run_trial(
        plan(study(tmp_path), tmp_path / "c"),
        report=Recorder(),
        progress=lambda epoch, share: told.append((epoch, share)),
    )
    assert told == sorted(told)
    assert [entry for entry in told if entry[1] == 1.0] == [(1, 1.0), (2, 1.0), (3, 1.0)]


def test_warm_and_cold_runner_give_the_same_bits(tmp_path: Path) -> None:
    spec = study(tmp_path)
    warm = WarmCache()
    for strategy in ("head", "lora", "full"):  # each leaves something in the cache
        run(plan(spec, tmp_path / f"before-{strategy}", strategy=strategy, dropout=0.3), cache=warm)
    for strategy in ("full", "head", "lora+bitfit"):
        first, second = Recorder(), Recorder()
        run(plan(spec, tmp_path / f"warm-{strategy}", strategy=strategy), report=first, cache=warm)
        run(plan(spec, tmp_path / f"cold-{strategy}", strategy=strategy), report=second)
        assert first.curve == second.curve


def test_the_seed_decides_the_curve(tmp_path: Path) -> None:
    spec, cache = study(tmp_path), WarmCache()
    curves: list[str] = []
    for seed in (1, 1, 2):
        report = Recorder()
        run(plan(spec, tmp_path / f"{len(curves)}", seed=seed), report=report, cache=cache)
        curves.append(json.dumps(report.curve))
    assert curves[0] == curves[1] != curves[2]
