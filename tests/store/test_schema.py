"""The schema: made once, checked by everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from optuna.storages._rdb import models as optuna_models

from tests.store.toy import holder, sql, toy_study
from tuner.errors import ConfigurationError
from tuner.search.driver import StudyDriver
from tuner.store import leases, schema
from tuner.store.checks import find_problems
from tuner.store.database import Database
from tuner.store.location import parse_url
from tuner.store.records import BudgetUse, Outcome
from tuner.store.tables import attempts, metadata, workers
from tuner.study.spec import BudgetSpec


@pytest.fixture
def bare(storage_url: str) -> Iterator[Database]:
    with Database(parse_url(storage_url)) as database:
        yield database


def test_an_empty_database_says_what_to_do(bare: Database) -> None:
    with pytest.raises(ConfigurationError, match="has no tuner tables; run: tuner db init"):
        schema.require_current(bare)


def test_initialise_makes_everything_and_again_nothing(bare: Database) -> None:
    first = schema.initialise(bare)
    assert first.is_current
    assert schema.initialise(bare) == first
    assert schema.upgrade(bare) == first
    assert schema.require_current(bare) == first


def test_the_migrations_make_the_tables_that_the_code_reads(bare: Database) -> None:
    schema.initialise(bare)

    def _differences(connection: sqlalchemy.Connection) -> list[object]:
        options = {"include_name": lambda name, kind, _: kind != "table" or str(name).startswith("tuner_")}
        context = MigrationContext.configure(connection, opts={**options, "version_table": schema.VERSION_TABLE})
        return list(compare_metadata(context, metadata))

    assert bare.read(_differences) == []


def test_a_foreign_database_is_not_touched(bare: Database) -> None:
    bare.write(lambda tx: tx.exec_driver_sql("CREATE TABLE customers (id INTEGER)"))
    with pytest.raises(ConfigurationError, match="has tables but no Optuna schema - refusing to write"):
        schema.initialise(bare)


@pytest.mark.parametrize(
    ("revision", "message"),
    [("9999", "newer than this tuner's 0003; upgrade tuner")],
)
def test_another_schema_is_refused(bare: Database, revision: str, message: str) -> None:
    schema.initialise(bare)
    bare.write(lambda tx: tx.exec_driver_sql(f"UPDATE {schema.VERSION_TABLE} SET version_num = '{revision}'"))
    with pytest.raises(ConfigurationError, match=message):
        schema.require_current(bare)


def test_a_half_made_schema_is_made_whole(mariadb_url: str) -> None:
    """MySQL commits after each table: a process that dies among them leaves some, and the next one goes on."""
    with Database(parse_url(mariadb_url)) as db:
        tables = list(optuna_models.BaseModel.metadata.sorted_tables)
        for kept in (1, 5, len(tables)):
            db.write(lambda tx, kept=kept: [table.create(tx, checkfirst=True) for table in tables[:kept]] and None)  # type: ignore[misc]
            assert not schema.read_state(db).is_foreign
        schema.initialise(db)
        for kept in (1, 3, 6):
            db.write(sql(f"DELETE FROM {schema.VERSION_TABLE}"))
            torn = metadata.sorted_tables[kept:]
            db.write(lambda tx, torn=torn: [table.drop(tx, checkfirst=True) for table in reversed(torn)] and None)  # type: ignore[misc]
            assert schema.initialise(db).is_current
        with Database.open(mariadb_url) as whole:
            toy_study(whole)
        db.write(sql(f"DELETE FROM {schema.VERSION_TABLE}"))
        with pytest.raises(ConfigurationError, match="tuner tables with rows but no version"):
            schema.initialise(db)


def test_mariadb_keeps_names_apart_and_tables_safe(mariadb_url: str) -> None:
    with Database.open(mariadb_url, create=True) as db:
        kinds = db.read(
            lambda tx: tx.exec_driver_sql(
                "SELECT DISTINCT engine, table_collation FROM information_schema.tables WHERE table_schema = DATABASE()"
            ).all()
        )
    assert [tuple(row) for row in kinds] == [("InnoDB", "utf8mb4_bin")]


def test_the_file_of_a_sqlite_study_is_in_write_ahead_mode(tmp_path: Path) -> None:
    with Database.open(f"sqlite:///{tmp_path}/x.db", create=True) as database:
        mode = database.read(lambda tx: tx.exec_driver_sql("PRAGMA journal_mode").scalar_one())
    assert mode == "wal"


def test_an_older_schema_is_upgraded_where_it_stands(bare: Database) -> None:
    """Stored ends get their new names, and an upgrade that died in the middle of its changes is gone on with."""
    schema.initialise(bare)
    ended = {
        "worker_id": "w",
        "host": "h",
        "boot": "b",
        "pid": 1,
        "process_started": 0.0,
        "devices": "[]",
        "version": "1",
    }
    ended |= {
        "code": "",
        "beat": 0,
        "asked": "",
        "state": "running",
        "started_at": 0.0,
        "seen_at": 0.0,
        "expires_at": 0.0,
    }
    bare.write(lambda tx: tx.execute(sqlalchemy.insert(workers).values(ended)))
    bare.write(lambda tx: _migrate(tx, command.downgrade, "0001"))
    bare.write(sql("ALTER TABLE tuner_studies ADD COLUMN code VARCHAR(80) NOT NULL DEFAULT ''"))
    with pytest.raises(ConfigurationError, match=r"has schema 0001, this tuner needs 0003.*tuner db upgrade"):
        schema.require_current(bare)
    assert schema.upgrade(bare).is_current
    assert bare.read(lambda tx: tx.execute(sqlalchemy.select(workers.c.worker_id, workers.c.beat)).all()) == [("w", 0)]


def test_ends_are_told_by_their_new_names(bare: Database) -> None:
    schema.initialise(bare)
    study = toy_study(bare)
    lease = leases.claim(
        bare,
        study_id=study.study_id,
        uid=study.uid,
        holder=holder(),
        quota=_no_end,
        limit=_no_limit,
        recipes=(),
        epochs=1,
        seed=0,
    )
    assert lease is not None
    leases.finish(bare, lease, outcome=Outcome.ERRORED, reason="", seconds=1.0)
    bare.write(lambda tx: _migrate(tx, command.downgrade, "0001"))
    assert bare.read(_ends) == ["failed"]
    schema.upgrade(bare)
    assert bare.read(_ends) == ["errored"]


def test_infeasible_trials_of_an_older_schema_are_what_they_are_for_optuna(bare: Database) -> None:
    schema.initialise(bare)
    toy_study(bare)
    driver = StudyDriver(bare, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    driver.fail(lease, outcome=Outcome.INFEASIBLE, reason="", seconds=1.0, log_tail="")
    bare.write(lambda tx: _migrate(tx, command.downgrade, "0001"))
    assert bare.read(_told_optuna) == [("FAIL", 0)]
    schema.upgrade(bare)
    assert bare.read(_told_optuna) == [("PRUNED", 1)]
    assert find_problems(bare) == []


def _told_optuna(tx: sqlalchemy.Connection) -> list[tuple[str, int]]:
    """Each trial's state, and how many constraints it violates."""
    rows = tx.exec_driver_sql(
        "SELECT state, (SELECT count(*) FROM trial_system_attributes a"
        " WHERE a.trial_id = trials.trial_id AND a.key = 'constraints:runs') FROM trials"
    )
    return [(str(state), int(count)) for state, count in rows]


def _no_end(_budget: BudgetSpec, _use: BudgetUse) -> str:
    return ""


def _no_limit(_budget: BudgetSpec, _use: BudgetUse, _is_search: bool) -> str:
    return ""


def _ends(tx: sqlalchemy.Connection) -> list[str]:
    return [row.outcome for row in tx.execute(sqlalchemy.select(attempts.c.outcome))]


def _migrate(tx: sqlalchemy.Connection, move: Callable[[Config, str], None], revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", "tuner.store:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = tx
    move(config, revision)
