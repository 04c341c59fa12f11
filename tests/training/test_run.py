from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn import metrics

from tests.training.samples import LABELS, Recorder, plan, run, study, write_rows
from tuner.errors import TrialInfeasible, TrialOutOfMemory
from tuner.study.plan import TrialPlan, TrialResult, Verdict
from tuner.training.run import run_trial
from tuner.training.settings import Settings, run_identity


def test_a_run_learns_and_says_how_it_went(tmp_path: Path) -> None:
    write_rows(tmp_path / "test.csv", rows=12, seed=1)
    write_rows(tmp_path / "train.csv", rows=240)
    report = Recorder()
    facts: list[Mapping[str, Any]] = []
    result = run_trial(
        plan(study(tmp_path, training={"epochs": 8}), tmp_path / "c", score_test=True, dropout=0.0, learning_rate=3e-3),
        report=report,
        started=facts.append,
    )
    assert (result.ended_by, result.epochs) == ("epochs", 8)
    assert [epoch for epoch, _ in report.curve] == list(range(1, 9))
    assert result.metrics["macro_f1"] > 0.9
    assert dict(result.metrics) == report.curve[result.best_epoch - 1][1]
    assert result.metrics["macro_f1"] == max(curve["macro_f1"] for _, curve in report.curve)
    assert result.device == "cpu" and result.seconds > 0 and result.peak_memory > 2**20
    assert facts[0]["trainable_params"] == result.trainable_params == result.total_params
    assert facts[0]["versions"].keys() >= {"torch", "transformers", "peft"}
    assert TrialResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_the_test_score_is_that_of_the_epoch_that_counts(tmp_path: Path) -> None:
    spec = study(tmp_path, training={"epochs": 4})
    result = run(plan(spec, tmp_path / "c", score_test=True))
    score = result.test
    assert score is not None
    assert score.confusion.labels == LABELS
    assert score.truth == (0, 1, 2) * 4
    assert score.metrics["macro_f1"] == pytest.approx(
        metrics.f1_score(score.truth, score.predictions, average="macro", zero_division=0)
    )
    assert Path(result.checkpoint) == tmp_path / "c" / "final"


def test_the_search_never_scores_the_test_rows(tmp_path: Path) -> None:
    assert run(plan(study(tmp_path), tmp_path / "c")).test is None


def test_a_plan_that_went_through_json_runs_the_same(tmp_path: Path) -> None:
    original = plan(study(tmp_path, data={"text": ["text", "other"]}), tmp_path / "a")
    copied = TrialPlan.from_json(json.loads(json.dumps(original.to_json())))
    first, second = Recorder(), Recorder()
    run(original, report=first)
    run(replace(copied, checkpoint_dir=str(tmp_path / "b")), report=second)
    assert first.curve == second.curve
    assert run_identity(original, model="m", data="d") == run_identity(copied, model="m", data="d")


def test_what_changes_the_curve_changes_the_identity(tmp_path: Path) -> None:
    spec = study(tmp_path)
    first = plan(spec, tmp_path / "c")
    others = [
        plan(spec, tmp_path / "c", seed=6),
        plan(spec, tmp_path / "c", batch_size=4),
        plan(spec, tmp_path / "c", strategy="lora"),
        plan(study(tmp_path, training={"epochs": 5}), tmp_path / "c"),
    ]
    found = {run_identity(item, model="m", data="d") for item in (first, *others)}
    found |= {run_identity(first, model="other", data="d"), run_identity(first, model="m", data="other")}
    assert len(found) == 7
    moved = replace(first, number=7, checkpoint_dir="/elsewhere", score_test=True, resume_from=("/before",))
    assert run_identity(moved, model="m", data="d") == run_identity(first, model="m", data="d")


def edit_a_text(folder: Path) -> None:
    file = folder / "train.csv"
    head, first, *rest = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([head, f"dog {first}", *rest]) + "\n", encoding="utf-8")


def edit_a_label(folder: Path) -> None:
    file = folder / "train.csv"
    *rows, last = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([*rows, last.rpartition(",")[0] + ",animal"]) + "\n", encoding="utf-8")


def edit_the_model(folder: Path) -> None:
    file = folder / "model-bert" / "model.safetensors"
    weights = load_file(file)
    weights["encoder.layer.0.output.dense.bias"][0] += 0.5
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("edit", [edit_a_text, edit_a_label, edit_the_model])
def test_a_checkpoint_of_other_rows_or_weights_is_not_gone_on_from(
    tmp_path: Path, edit: Callable[[Path], None]
) -> None:
    spec = study(tmp_path)
    run(plan(spec, tmp_path / "1"), report=Recorder(after=2, verdict=Verdict.RELEASE))
    edit(tmp_path)
    anew, fresh = Recorder(), Recorder()
    result = run(plan(spec, tmp_path / "2", resume_from=[tmp_path / "1"]), report=anew)
    run(plan(spec, tmp_path / "fresh"), report=fresh)
    assert [epoch for epoch, _ in anew.curve] == [1, 2, 3]
    assert anew.curve == fresh.curve
    assert any("belongs to another run" in note for note in result.notes)


def test_files_written_again_with_the_same_rows_are_gone_on_from(tmp_path: Path) -> None:
    spec = study(tmp_path)
    run(plan(spec, tmp_path / "1"), report=Recorder(after=2, verdict=Verdict.RELEASE))
    for file in (tmp_path / "train.csv", tmp_path / "model-bert" / "model.safetensors"):
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
        os.utime(file, (1, 1))
    report = Recorder()
    run(plan(spec, tmp_path / "2", resume_from=[tmp_path / "1"]), report=report)
    assert [epoch for epoch, _ in report.curve] == [2, 3]


def test_a_plan_without_values_has_those_of_the_recipe(tmp_path: Path) -> None:
    bare = replace(plan(study(tmp_path), tmp_path), params={"learning_rate": 1e-3})
    settings = Settings.of(bare)
    assert (settings.batch_size, settings.dropout, settings.schedule) == (16, 0.1, "linear")
    assert settings.rules.maximize and settings.micro_batch == 16
    loss = Settings.of(plan(study(tmp_path, objective={"metric": "loss"}), tmp_path))
    assert not loss.rules.maximize


def test_balance_may_be_searched(tmp_path: Path) -> None:
    assert Settings.of(plan(study(tmp_path), tmp_path, balance="oversample")).balance == "oversample"


def test_memory_that_runs_out_anywhere_makes_the_trial_infeasible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(*_: object, **__: object) -> None:
        torch.empty(2**60, dtype=torch.uint8)  # what torch says where there really is no room

    monkeypatch.setattr("tuner.training.loop.evaluate", evaluate)
    with pytest.raises(TrialInfeasible, match=r"out of memory on cpu with batch size 8 and up to 16 tokens"):
        run(plan(study(tmp_path), tmp_path / "c"))


@pytest.mark.parametrize("place", ["tuner.training.loop.evaluate", "torch.optim.AdamW.step"])
def test_a_run_without_memory_leaves_its_checkpoint_to_another_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def run_out(*_: object, **__: object) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    run(plan(study(tmp_path), tmp_path / "1"), report=Recorder(after=1, verdict=Verdict.RELEASE))
    monkeypatch.setattr(place, run_out)
    report = Recorder()
    with pytest.raises(TrialOutOfMemory, match="out of memory") as caught:
        run(plan(study(tmp_path), tmp_path / "2", resume_from=[tmp_path / "1"]), report=report)
    assert caught.value.micro_batch == 4, "half of what it had"
    assert [epoch for epoch, _ in report.curve] == [1]  # it had taken over the checkpoint of the first attempt
    assert (tmp_path / "2" / "epoch-0001").exists()
    assert (tmp_path / "1" / "epoch-0001").exists()


def test_memory_that_runs_out_without_a_word_is_told_by_the_name_of_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("tuner.training.loop.evaluate", evaluate)
    with pytest.raises(TrialOutOfMemory, match=r"up to 16 tokens - MemoryError; lower training.max_length"):
        run(plan(study(tmp_path), tmp_path / "c"))


def test_other_errors_are_bugs_and_pass_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(*_: object, **__: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("tuner.training.loop.evaluate", evaluate)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(plan(study(tmp_path), tmp_path / "c"))


def test_mixed_precision_learns_too(tmp_path: Path) -> None:
    report = Recorder()
    run(plan(study(tmp_path, training={"precision": "bf16"}), tmp_path / "c"), report=report)
    assert report.curve[-1][1]["train_loss"] < report.curve[0][1]["train_loss"]


def test_parts_of_a_batch_give_the_curve_of_the_whole_one(tmp_path: Path) -> None:
    whole, parts = Recorder(), Recorder()
    run(plan(study(tmp_path), tmp_path / "a", dropout=0.0), report=whole)
    run(plan(study(tmp_path, training={"micro_batch": 3}), tmp_path / "b", dropout=0.0), report=parts)
    for (_, found), (_, expected) in zip(parts.curve, whole.curve, strict=True):
        assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-3)


def test_a_resumed_run_tells_of_the_epochs_before_the_last(tmp_path: Path) -> None:
    """The database may have been gone when they were measured; the checkpoint knows them."""
    spec = study(tmp_path, training={"epochs": 3})
    first = Recorder(after=2, verdict=Verdict.RELEASE)
    told: list[tuple[int, dict[str, float]]] = []
    run(plan(spec, tmp_path / "part"), report=first)
    second = Recorder()
    run_trial(
        plan(spec, tmp_path / "rest", resume_from=[tmp_path / "part"]),
        report=second,
        recall=lambda epoch, metrics: told.append((epoch, dict(metrics))),
    )
    assert told == first.curve[:1]
    assert [epoch for epoch, _ in second.curve] == [2, 3]
