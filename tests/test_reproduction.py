"""Trials are made again bit for bit, whatever they went through; on real, tiny models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

import tuner
from tests.cli.conftest import run as run_command
from tests.cli.test_json import validate
from tests.store.toy import holder, toy_study, train
from tests.training.samples import study
from tests.training.test_repeating import run_out_of_memory
from tuner import reproduction
from tuner.errors import ConflictError
from tuner.report.repetition import Repetition
from tuner.search.driver import StudyDriver
from tuner.source import this_code
from tuner.store import leases, queries, studies
from tuner.store.database import Database
from tuner.store.records import Outcome, TrialRecord
from tuner.study.build import build_space
from tuner.study.plan import TrialPlan, TrialResult, Verdict
from tuner.training.run import run_trial
from tuner.worker.once import Once

run = run_command  # a fixture


@dataclass(kw_only=True)
class Box:
    """A database, and what a worker would do to it, in this process."""

    url: str
    folder: Path
    facts: list[Mapping[str, Any]] = field(default_factory=list)

    def create(self, strategy: str, **changes: Any) -> None:
        """Store a study of one strategy whose values are searched."""
        spec = study(
            self.folder, strategies=[strategy], training={"epochs": 4}, **{"confirm": {"finalists": 0}, **changes}
        )
        spec = spec.model_copy(
            update={"space": {"learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}, "batch_size": [8]}}
        )
        space = build_space(spec, catalogue=tuner.catalogue(), parameters=4e6)
        with Database.open(self.url, create=True) as db:
            studies.create_study(db, spec=spec, space=space, maximize=True)

    def train(
        self, name: str = "tiny", *, after: int = 0, verdict: Verdict = Verdict.GO_ON, micro_batch: int = 0
    ) -> TrialResult:
        """Claim a run and train it, as far as told; a run that was given back is gone on with."""
        with Database.open(self.url) as db:
            driver = StudyDriver(db, name=name)
            lease = driver.claim(holder())
            assert lease is not None and lease.strategy is not None and lease.params is not None
            places = [str(self.folder / name / str(attempt)) for attempt in range(lease.attempt, 0, -1)]
            plan = TrialPlan(
                spec=driver.study.spec,
                number=lease.number,
                strategy=lease.strategy,
                params=lease.params,
                seed=lease.seed,
                checkpoint_dir=places[0],
                resume_from=tuple(places[1:]),
                micro_batch=micro_batch,
            )

            def report(epoch: int, metrics: Mapping[str, float], seconds: float) -> Verdict:
                driver.report(lease, epoch=epoch, metrics=metrics, seconds=seconds, extend=60.0)
                return verdict if epoch == after else Verdict.GO_ON

            def started(facts: Mapping[str, Any]) -> None:
                leases.store_facts(db, lease, {**facts, "code": this_code()})

            result = run_trial(plan, report=report, started=started)
            if verdict is Verdict.RELEASE:
                leases.release(db, lease, reason="told to", seconds=1.0)
            else:
                driver.finish(lease, result=result, reason="it lost")
            return result

    def trial(self, name: str = "tiny") -> TrialRecord:
        with Database.open(self.url) as db:
            return queries.load_trial(db, name, 0).trial

    def repeat(self) -> Repetition:
        """As :func:`tuner.repeat_trial`, in this process."""
        return reproduction._repeat("tiny", number=0, storage=self.url, show=None, train=self._here)

    def _here(self, plan: TrialPlan, _facts: Mapping[str, Any], report: Callable[..., Verdict]) -> Once:
        found: list[Mapping[str, Any]] = []
        result = run_trial(plan, report=lambda epoch, metrics, _: report(epoch, metrics), started=found.append)
        outcome = Outcome.PRUNED if result.ended_by == "prune" else Outcome.COMPLETE
        return Once(outcome=outcome, reason="", facts=found[0], seconds=1.0)

    def recipe(self, form: str) -> Path:
        file = self.folder / f"again.{form}"
        file.write_text(tuner.trial_recipe("tiny", number=0, form=form, storage=self.url), encoding="utf-8")
        return file


@pytest.fixture
def box(tmp_path: Path, sqlite_url: str) -> Box:
    return Box(url=sqlite_url, folder=tmp_path)


def curve(trial: TrialRecord) -> list[dict[str, float]]:
    return [dict(record.metrics) for record in trial.epochs]


@pytest.mark.parametrize("strategy", ["full", "lora+bitfit", "head>lora"])
def test_a_trial_is_repeated_bit_for_bit_and_so_is_its_study_file(box: Box, strategy: str) -> None:
    box.create(strategy)
    box.train(after=2, verdict=Verdict.RELEASE)
    box.train()  # resumed
    before = box.trial()
    assert [attempt.outcome for attempt in before.attempts] == [Outcome.PREEMPTED, Outcome.COMPLETE]
    found = box.repeat()
    assert (found.is_equal, found.epochs, found.difference, found.changes) == (True, 4, None, ())
    assert box.trial() == before, "nothing of the trial has changed"

    record = tuner.create_study(box.recipe("yaml"), storage=box.url)
    assert (record.name, record.spec.strategy_names, record.spec.budget.trials) == ("tiny-trial-0", (strategy,), 1)
    box.train(record.name)
    again = box.trial(record.name)
    assert again.params == before.params
    assert curve(again) == curve(before)
    assert again.value == before.value


def test_a_trial_of_folds_is_repeated_and_its_study_file_has_the_same_fold(box: Box) -> None:
    box.create("full", data={"validation": {"folds": 3}}, confirm={"finalists": 2})
    box.train()
    before = box.trial()
    assert (box.repeat().is_equal, box.trial()) == (True, before)
    record = tuner.create_study(box.recipe("yaml"), storage=box.url)
    assert (record.spec.data.folds, record.spec.confirm.finalists) == (3, 0)
    box.train(record.name)
    assert curve(box.trial(record.name)) == curve(before)


def test_the_recipe_of_an_infeasible_trial_keeps_its_constraints_and_its_rows(tmp_path: Path) -> None:
    url, bound = f"sqlite:///{tmp_path / 'tuner.db'}", "peak_memory <= 10 GB"
    with Database.open(url, create=True) as db:
        toy_study(db, constraints=[bound], confirm={"finalists": 2, "seeds": 1})
        driver = StudyDriver(db, name="toy")
        giant, other = driver.claim(holder()), driver.claim(holder())
        assert giant is not None and other is not None
        why = f"peak_memory 20 GB breaks the constraint {bound}"
        driver.fail(giant, outcome=Outcome.INFEASIBLE, reason=why, seconds=1.0, log_tail="")
        train(driver, other)
    text = tuner.trial_recipe("toy", number=giant.number, form="yaml", storage=url)
    assert f"infeasible after 0 epochs, and this may be, too: {why}." in text
    again = yaml.safe_load(text)
    assert again["constraints"] == [bound]
    assert again["confirm"] == {"finalists": 0}, "the other trial was judged by 8 rows: too few to hold any back"


@pytest.mark.slow
def test_parts_of_batches_and_the_end_are_repeated(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.create("full")
    with monkeypatch.context() as patched:
        run_out_of_memory(patched, room=3, first=8)
        box.train(after=3, verdict=Verdict.PRUNE)
    trial = box.trial()
    assert (trial.outcome, trial.micro_batches) == (Outcome.PRUNED, ((0, 8), (8, 2)))
    found = box.repeat()
    assert (found.is_equal, found.epochs, found.ended_as) == (True, 3, Outcome.PRUNED)
    text = box.recipe("yaml").read_text(encoding="utf-8")
    assert "stopped after 3 epochs" in text and "--recipe python says where" in text

    script = box.recipe("python")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=box.folder)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "3 epochs then, 3 now"), done.stderr


def test_a_script_says_where_the_curves_part(
    box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    box.create("full")
    box.train()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    names: dict[str, Any] = {"__name__": "again"}
    exec(box.recipe("python").read_text(encoding="utf-8"), names)
    assert names["main"]() == 0
    names["CURVE"][1]["train_loss"] += 1e-12
    assert names["main"]() == 1
    assert capsys.readouterr().out.splitlines()[-3:-1] == ["epoch 1: the same", "epoch 2: train_loss differ"]


def test_other_rows_are_named(box: Box) -> None:
    box.create("full")
    box.train(micro_batch=4)
    assert box.trial().micro_batches == ((0, 4),)
    assert "micro_batch: 4" in box.recipe("yaml").read_text(encoding="utf-8")
    rows = box.folder / "train.csv"
    head, first, *rest = rows.read_text(encoding="utf-8").splitlines()
    rows.write_text("\n".join([head, f"dog {first}", *rest]) + "\n", encoding="utf-8")
    found = box.repeat()
    assert not found.is_equal
    assert found.difference is not None and found.difference.epoch == 1
    assert [change.what for change in found.changes] == ["data"]


def test_a_study_file_keeps_the_rows_that_were_held_back(box: Box) -> None:
    box.create("full", confirm={"finalists": 2, "held_back": 0.5})
    box.train()
    file = box.recipe("yaml")
    assert "held_back: 0.5" in file.read_text(encoding="utf-8")
    record = tuner.create_study(file, storage=box.url)
    box.train(record.name)
    assert curve(box.trial(record.name)) == curve(box.trial())


def test_what_has_no_curve_is_not_compared(box: Box) -> None:
    box.create("full")
    box.train(after=2, verdict=Verdict.RELEASE)
    with pytest.raises(ConflictError, match=r"trial 0 of study tiny is waiting - only what is complete"):
        tuner.repeat_trial("tiny", number=0, storage=box.url)


@pytest.mark.slow
def test_the_command_trains_in_a_process_of_its_own(box: Box, run: Callable[..., Any]) -> None:
    box.create("head>lora")
    box.train(after=2, verdict=Verdict.RELEASE)
    box.train()
    result = run("trial", "retry", "tiny", "0", "--exact", "--json", "--storage", box.url)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    validate(document, "trial-retry")
    assert document["trials"][0]["is_equal"] is True
    assert result.stderr.splitlines() == [f"trial 0: epoch {epoch} is the same" for epoch in (1, 2, 3, 4)]
    shown = json.loads(run("trial", "show", "tiny", "0", "--json", "--storage", box.url).stdout)
    validate(shown, "trial-show")
    assert [one["kind"] for one in shown["events"]][-1] == "trial_repeated"
    assert "reproduced bit for bit: every metric of 4 epochs" in shown["events"][-1]["text"]
    assert shown["facts"][0]["code"] == this_code()
    printed = run("trial", "show", "tiny", "0", "--recipe", "yaml", "--storage", box.url).stdout
    assert printed == box.recipe("yaml").read_text(encoding="utf-8")
