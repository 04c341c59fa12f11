"""What a study costs, in words and as a document: before it begins, and while it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.rehearsal import open_study, play
from tests.cli.test_json import validate
from tests.report.samples import make_space, make_spec
from tuner.cli.costs import outlook_words
from tuner.cli.documents import study_document
from tuner.prospect import expect_cost
from tuner.store.database import Database
from tuner.store.queries import load_snapshot
from tuner.study.check import CheckReport
from tuner.study.forecast import forecast
from tuner.study.outlook import Outlook, Span


@pytest.fixture
def begun(sqlite_url: str) -> str:
    """A database with a study that has three of its twelve trials."""
    open_study(sqlite_url, trials=12)
    play(sqlite_url, runs=3)
    return sqlite_url


def checked() -> CheckReport:
    """A study of the same model, not stored."""
    spec, space = make_spec(name="next", trials=20), make_space()
    expected = forecast(spec, space=space, train_rows=None)
    return CheckReport(spec=spec, problems=(), warnings=(), model=None, data=None, space=space, forecast=expected)


def test_words() -> None:
    span = Span(low=0.5, high=2.0)
    outlook = Outlook(device_hours=span, hours=Span(low=0.5, high=0.5), workers=1, money=None, stands_on="x")
    assert outlook_words(outlook) == "30 min 0 s to 2 h 0 min of device time, 30 min 0 s with 1 worker"


def test_nothing_is_known_of_a_model_that_was_never_trained(sqlite_url: str, tmp_path: Path) -> None:
    unknown = "unknown until the first trials: no trial of this model has been trained in this database"
    assert expect_cost(checked(), storage=f"sqlite:///{tmp_path}/not-here.db") == unknown
    assert not (tmp_path / "not-here.db").exists()
    open_study(sqlite_url)
    assert expect_cost(checked(), storage=sqlite_url) == unknown
    (tmp_path / "broken.db").write_text("no database")
    broken = expect_cost(checked(), storage=f"sqlite:///{tmp_path}/broken.db")
    assert isinstance(broken, str)
    assert broken.startswith("unknown until the first trials: past ones cannot be read (")


def test_past_trials_of_the_model_tell_it(begun: str) -> None:
    one, three = (expect_cost(checked(), workers=workers, storage=begun) for workers in (1, 3))
    assert isinstance(one, Outlook)
    assert isinstance(three, Outlook)
    assert one.stands_on == "3 past trials of this model"
    assert one.device_hours == three.device_hours
    assert three.hours.high < one.hours.high
    whole = 18.0 * (20 + 19) / 3600.0  # 2 s an epoch, nine of them; 20 trials and 19 re-trainings, nothing stopped
    assert 0.0 < one.device_hours.low < whole < one.device_hours.high


def test_a_study_that_runs_tells_its_end(run: Run, begun: str) -> None:
    assert run("study", "set", "played", "--money", "9", "--price-per-hour", "3600", "--storage", begun).exit_code == 5
    changed = run("study", "set", "played", "--money", "900", "--price-per-hour", "3600", "--storage", begun)
    assert "cost 18.00 of 900" in changed.stderr
    shown = run("study", "show", "played", "--storage", begun).stdout
    assert "cost 18.00 of 900" in shown
    assert "  at the end  " in shown
    document = json.loads(run("study", "show", "played", "--json", "--storage", begun).stdout)
    validate(document, "study-show")
    assert document["budget"]["used"]["money"] == pytest.approx(18.0)
    assert document["forecast"]["money"]["low"] > 18.0
    assert "cost 18.00 of 900" in run("study", "list", "--storage", begun).stdout


def test_a_study_that_is_over_has_no_more_to_come(finished: str) -> None:
    with Database.open(finished) as database:
        snapshot = load_snapshot(database, "played")
    document = study_document(snapshot)
    assert document["forecast"] is None
    finished_at, began_at = snapshot.study.finished_at, snapshot.study.used.began_at
    assert finished_at is not None
    assert began_at is not None
    assert document["budget"]["used"]["hours"] == pytest.approx((finished_at - began_at) / 3600.0)
