"""Studies in the database: what another code made that this one cannot read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from tests.store.toy import estrange, holder, toy_study, train
from tuner.cli.app import app
from tuner.errors import ConfigurationError
from tuner.search.driver import StudyDriver
from tuner.store.database import Database
from tuner.store.past import load_past
from tuner.store.studies import budget_now, find_study, list_studies, list_unreadable, read_budget
from tuner.store.tables import studies


@pytest.fixture
def db(sqlite_url: str) -> Iterator[Database]:
    """A database with a study that a newer code made, and one of this code."""
    with Database.open(sqlite_url, create=True) as database:
        toy_study(database, "strange")
        toy_study(database, "toy", budget={"trials": 1})
        estrange(database, "strange")
        yield database


def test_a_study_that_cannot_be_read_is_named_in_one_line(db: Database) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_study(db, "strange")
    said = str(caught.value)
    assert said.startswith('study "strange" cannot be read - it was made by tuner 9.0.0/abc, this is ')
    assert "search.invented" in said
    assert "\n" not in said
    assert [str(error) for error in list_unreadable(db)] == [said]


def test_a_study_that_cannot_be_read_disturbs_no_other(db: Database) -> None:
    assert [study.name for study in list_studies(db)] == ["toy"]
    assert [study.name for study in load_past(db)] == ["toy"]
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_past(db, names=["strange"])
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    train(driver, lease)
    assert driver.advance().counts["complete"] == 1


def test_a_list_of_studies_names_what_cannot_be_read(db: Database, sqlite_url: str) -> None:
    result = CliRunner().invoke(app, ["study", "list", "--storage", sqlite_url])
    assert result.exit_code == 0
    assert "toy" in result.stdout
    assert 'study "strange" cannot be read' in result.stderr
    assert "strange" not in result.stdout


def test_a_study_that_cannot_be_read_can_be_deleted(db: Database, sqlite_url: str) -> None:
    result = CliRunner().invoke(app, ["study", "delete", "strange", "--yes", "--storage", sqlite_url])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("deleted study strange with 0 trials from ")
    assert not list_unreadable(db)


def test_a_budget_that_cannot_be_read_is_named_in_one_line_and_one_that_is_gone_is_none(db: Database) -> None:
    estrange(db, "toy", section="budget")
    toy = db.read(lambda tx: tx.execute(select(studies.c.study_id).where(studies.c.name == "toy")).scalar_one())
    with pytest.raises(ConfigurationError, match=r'^study "toy" cannot be read - .*: budget\.invented: [^\n]*$'):
        db.read(lambda tx: read_budget(tx, toy))
    assert db.read(lambda tx: budget_now(tx, toy, uid="of another")) is None
    assert db.read(lambda tx: budget_now(tx, toy + 1)) is None
