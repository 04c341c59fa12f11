"""The schema: made once, checked by everybody."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tuner.errors import ConfigurationError
from tuner.store import schema
from tuner.store.database import Database
from tuner.store.location import parse_url
from tuner.store.tables import metadata


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
    [("9999", "newer than this tuner's 0001; upgrade tuner")],
)
def test_another_schema_is_refused(bare: Database, revision: str, message: str) -> None:
    schema.initialise(bare)
    bare.write(lambda tx: tx.exec_driver_sql(f"UPDATE {schema.VERSION_TABLE} SET version_num = '{revision}'"))
    with pytest.raises(ConfigurationError, match=message):
        schema.require_current(bare)


def _open(url: str, barrier: object, results: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    try:
        Database.open(url, create=True).close()
        results.put("")  # type: ignore[attr-defined]
    except BaseException as error:  # noqa: BLE001 - told by the assertion
        results.put(repr(error))  # type: ignore[attr-defined]


def test_eight_processes_may_open_an_empty_database_at_once(storage_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_open, args=(storage_url, barrier, results)) for _ in range(8)]
    for process in processes:
        process.start()
    said = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    results.close()
    results.join_thread()
    assert said == [""] * 8


def test_the_file_of_a_sqlite_study_is_in_write_ahead_mode(tmp_path: Path) -> None:
    with Database.open(f"sqlite:///{tmp_path}/x.db", create=True) as database:
        mode = database.read(lambda tx: tx.exec_driver_sql("PRAGMA journal_mode").scalar_one())
    assert mode == "wal"
