"""What a run must know of an earlier one to be the same bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.samples import Recorder, plan, run, study
from tuner.study.plan import TrialPlan, TrialResult, Verdict
from tuner.training.objective import Objective


def run_out_of_memory(monkeypatch: pytest.MonkeyPatch, *, room: int, first: int) -> None:
    """From a step on, no more rows fit at once; what does not is noticed when most of it was computed, dropout drawn and all."""
    accumulate = Objective.accumulate

    def tight(self: Objective, rows: Tensor, *, step: int, micro_batch: int) -> Tensor:
        loss = accumulate(self, rows, step=step, micro_batch=micro_batch)
        if step >= first and min(micro_batch, len(rows)) > room:
            raise torch.OutOfMemoryError("tried to allocate more")
        return loss

    monkeypatch.setattr(Objective, "accumulate", tight)


@pytest.mark.parametrize("strategy", ["full", "lora+bitfit"])
def test_a_run_whose_batches_were_split_on_the_way_is_the_same_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    first, second, whole = Recorder(), Recorder(), Recorder()
    original = plan(study(tmp_path), tmp_path / "a", strategy=strategy)
    with monkeypatch.context() as patched:
        run_out_of_memory(patched, room=3, first=9)
        result = run(original, report=first)
    assert result.micro_batches == ((0, 8), (9, 2))
    told = TrialResult.from_json(json.loads(json.dumps(result.to_json())))
    again = replace(original, checkpoint_dir="", micro_batches=told.micro_batches)
    run(TrialPlan.from_json(json.loads(json.dumps(again.to_json()))), report=second)
    run(replace(original, checkpoint_dir=""), report=whole)
    assert second.curve == first.curve
    assert whole.curve[0] == first.curve[0]
    assert whole.curve[1] != first.curve[1], "other parts must give other last digits, or this test shows nothing"


def test_a_resumed_run_remembers_how_its_batches_were_split(tmp_path: Path) -> None:
    spec = study(tmp_path, training={"epochs": 4})
    original = replace(plan(spec, tmp_path / "1"), micro_batch=3)
    first, rest, again = Recorder(after=2, verdict=Verdict.RELEASE), Recorder(), Recorder()
    run(original, report=first)
    result = run(plan(spec, tmp_path / "2", resume_from=[tmp_path / "1"]), report=rest)
    assert result.micro_batches == ((0, 3), (12, 8))
    run(replace(original, checkpoint_dir="", micro_batch=0, micro_batches=result.micro_batches), report=again)
    assert again.curve == [*first.curve, *rest.curve[1:]]


def test_a_run_that_keeps_nothing_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, not_kept = Recorder(), Recorder()
    spec = study(tmp_path)
    run(plan(spec, tmp_path / "c"), report=kept)
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = run(replace(plan(spec, tmp_path), checkpoint_dir="", score_test=True), report=not_kept)
    assert not_kept.curve == kept.curve
    assert (result.ended_by, result.checkpoint, result.test) == ("epochs", "", None)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_facts_say_what_the_last_digits_depend_on(tmp_path: Path) -> None:
    facts: list[Any] = []
    from tuner.training.run import run_trial

    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        run_trial(replace(plan(study(folder), folder), checkpoint_dir=""), report=Recorder(), started=facts.append)
    one, other = facts
    assert one == other, "the same rows and weights elsewhere are the same"
    assert one["threads"] == torch.get_num_threads()
    assert len(one["data"]) == len(one["weights"]) == 64
    assert json.loads(json.dumps(one)) == one
