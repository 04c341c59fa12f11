from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.training.samples import Recorder, plan, run, study
from tuner.study.plan import Verdict
from tuner.training.averaging import Average
from tuner.training.checkpoint import OPTIMIZER, WEIGHTS


def linear() -> nn.Linear:
    return nn.Linear(3, 2)


def test_the_average_follows_its_formula() -> None:
    model, generator = linear(), torch.Generator().manual_seed(0)
    average = Average(model, names={"weight"}, decay=0.5)
    expected, bias = model.weight.detach().clone(), model.bias.detach().clone()
    for step in range(20):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3, generator=generator))
            model.bias.add_(1.0)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))  # 0.1, 0.18… and 0.5 from step 8 on
        expected = decay * expected + (1 - decay) * model.weight.detach()
    raw = model.weight.detach().clone()
    with average.in_place():
        torch.testing.assert_close(model.weight.detach(), expected)
        torch.testing.assert_close(model.bias.detach(), bias + 20.0)
        assert torch.equal(average.raw_state()["raw/weight"], raw)
    assert torch.equal(model.weight, raw)


def test_without_a_decay_there_is_no_average() -> None:
    model = linear()
    average = Average(model, names={"weight", "bias"}, decay=0.0)
    before = model.weight.data_ptr()
    average.update(0)
    with average.in_place():
        assert model.weight.data_ptr() == before
    assert (average.is_kept, average.raw_state(), average.resume({"a": torch.zeros(1)})) == (
        False,
        {},
        {"a": torch.zeros(1)},
    )


def test_the_averaged_weights_are_judged_and_kept_and_the_raw_ones_trained_on(tmp_path: Path) -> None:
    spec = study(tmp_path, training={"epochs": 3, "select": "last"})
    raw, averaged, far = Recorder(), Recorder(), Recorder()
    run(plan(spec, tmp_path / "raw", dropout=0.0), report=raw)
    result = run(plan(spec, tmp_path / "averaged", dropout=0.0, ema=0.9), report=averaged)
    run(plan(spec, tmp_path / "far", dropout=0.0, ema=0.99999, warmup_ratio=0.0), report=far)
    for (_, one), (_, two), (_, three) in zip(raw.curve, averaged.curve, far.curve, strict=True):
        assert one["train_loss"] == two["train_loss"]  # the training does not see the average
        assert len({one["loss"], two["loss"], three["loss"]}) == 3
    run(plan(spec, tmp_path / "part", dropout=0.0, ema=0.9), report=Recorder(after=2, verdict=Verdict.RELEASE))
    last = tmp_path / "part" / "epoch-0002"
    weights, moments = load_file(last / WEIGHTS), load_file(last / OPTIMIZER)
    assert {name.removeprefix("raw/") for name in moments if name.startswith("raw/")} == weights.keys()
    assert not torch.equal(weights["classifier.weight"], moments["raw/classifier.weight"])
    final = load_file(Path(result.checkpoint) / WEIGHTS)
    assert not torch.equal(final["classifier.weight"], load_file(tmp_path / "raw/final" / WEIGHTS)["classifier.weight"])


@pytest.mark.parametrize("strategy", ["full", "head"])
def test_a_resumed_run_has_the_average_of_the_uninterrupted_one(tmp_path: Path, strategy: str) -> None:
    spec, whole, rest = study(tmp_path), Recorder(), Recorder()
    values: dict[str, Any] = {"ema": 0.9, "learning_rate": 3e-3}
    first = run(plan(spec, tmp_path / "whole", strategy=strategy, **values, score_test=True), report=whole)
    run(plan(spec, tmp_path / "part", strategy=strategy, **values), report=Recorder(after=2, verdict=Verdict.RELEASE))
    found = run(
        plan(spec, tmp_path / "rest", strategy=strategy, resume_from=[tmp_path / "part"], **values, score_test=True),
        report=rest,
    )
    assert rest.curve == whole.curve[1:]
    assert found.test == first.test
    ours, theirs = (load_file(Path(result.checkpoint) / WEIGHTS) for result in (first, found))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    again = run(plan(spec, tmp_path / "again", strategy=strategy, resume_from=[tmp_path / "rest"], **values))
    assert (again.metrics, again.best_epoch) == (first.metrics, first.best_epoch)
