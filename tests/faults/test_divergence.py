"""Runs that lose their numbers are told apart at once: thirty trials, each at a step of its own, in each of the ways there are."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.cli.little import write_model, write_rows
from tests.faults.figures import RecordProperty, record
from tests.faults.unsound_training import KINDS, kind_of, step_of
from tuner import api
from tuner.cli.app import app
from tuner.report import write_report
from tuner.store.records import Outcome, StudyState
from tuner.worker.display import PlainDisplay
from tuner.worker.options import WorkerOptions
from tuner.worker.supervisor import run_worker

pytestmark = pytest.mark.slow

TRIALS = 30
STEPS = 4  # of an epoch
STUDY = f"""\
name: unsound
task: text-classification
model: model
data: {{train: rows.csv, validation: 0.25}}
objective: {{metric: accuracy}}
strategies: [head, lora]
space: {{batch_size: [8], lora: {{r: [2, 4]}}}}
training: {{epochs: 4, max_length: 16}}
search: {{sampler: random, pruner: none}}
budget: {{trials: {TRIALS}}}
confirm: {{finalists: 0}}
"""


def count_not_finite(value: object) -> int:
    """Numbers in a document that JSON does not know."""
    if isinstance(value, float):
        return int(not math.isfinite(value))
    if isinstance(value, dict):
        return sum(count_not_finite(item) for item in value.values())
    return sum(count_not_finite(item) for item in value) if isinstance(value, list) else 0


def stored_not_finite(file: Path) -> int:
    """Cells of all tables that are such a number, or a text in which JSON would have one."""
    found = 0
    with closing(sqlite3.connect(file)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                for cell in row:
                    if isinstance(cell, float):
                        found += not math.isfinite(cell)
                    elif isinstance(cell, str):
                        with suppress(ValueError):  # most texts are no documents
                            found += count_not_finite(json.loads(cell))
    return found


@pytest.mark.timeout(300)
def test_a_run_that_loses_its_numbers_has_diverged(tmp_path: Path, record_property: RecordProperty) -> None:
    write_rows(tmp_path / "rows.csv")
    write_model(tmp_path / "model")
    (tmp_path / "unsound.yaml").write_text(STUDY, encoding="utf-8")
    url = f"sqlite:///{tmp_path}/tuner.db"
    api.create_study(tmp_path / "unsound.yaml", storage=url)
    with (tmp_path / "worker.log").open("w", encoding="utf-8") as log:
        run_worker(
            WorkerOptions(
                storage=url,
                files=tmp_path / "files",
                devices="cpu",
                until_done=True,
                runner="tests.faults.unsound_training",
            ),
            display=PlainDisplay(log),
        )
    snapshot = api.load_study("unsound", storage=url)
    said = (tmp_path / "worker.log").read_text(encoding="utf-8")
    assert snapshot.study.state is StudyState.FINISHED, said
    write_report(snapshot, tmp_path / "report.html")
    command = ["study", "trials", "unsound", "--json", "--storage", url]
    documents = [
        json.loads(CliRunner().invoke(app, command, prog_name="tuner").stdout),
        json.loads(
            (tmp_path / "report.html").read_text(encoding="utf-8").split('id="figures">')[1].split("</script>")[0]
        ),
    ]
    diverged = [trial for trial in snapshot.trials if trial.outcome is Outcome.DIVERGED]
    late = [trial.number for trial in diverged if len(trial.epochs) != step_of(trial.number) // STEPS]
    figures = {
        "trials": len(snapshot.trials),
        "diverged": len(diverged),
        "later than in the epoch of the step": len(late),
        "tried again": sum(len(trial.attempts) > 1 for trial in snapshot.trials),
        "non-finite numbers stored or shown": stored_not_finite(tmp_path / "tuner.db")
        + sum(count_not_finite(document) for document in documents),
    }
    record(record_property, row=21, database=url, figures=figures)
    assert list(figures.values()) == [TRIALS, TRIALS, 0, 0, 0]
    for trial in diverged:
        words = "the loss grew to" if kind_of(trial.number) == "loss explodes" else "loss or gradient became non-finite"
        where = f"in epoch {step_of(trial.number) // STEPS + 1}, step {step_of(trial.number) % STEPS + 1}"
        assert trial.reason.startswith(words), trial.reason
        assert where in trial.reason
    assert {kind_of(trial.number) for trial in diverged} == set(KINDS)
    assert not list((tmp_path / "files" / "checkpoints").glob("*/*/attempt-*/*"))
