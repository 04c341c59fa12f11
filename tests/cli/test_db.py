"""``tuner db``: the schema is made once, checked and brought up to date."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_init_makes_the_database_and_may_run_again(run: Run, storage_url: str) -> None:
    for _ in range(2):
        result = run("db", "init", "--storage", storage_url)
        assert result.exit_code == 0, result.stderr
        assert result.stdout.endswith(" is ready\n")
    assert run("db", "check", "--storage", storage_url).exit_code == 0


def test_check_refuses_a_database_without_tables(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "tuner.db").touch()
    result = run("db", "check", "--storage", sqlite_url)
    assert result.exit_code == 78
    assert "tuner schema   none" in result.stdout
    assert "next: tuner db init" in result.stderr


def test_upgrade_says_what_it_did(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    assert run("db", "upgrade", "--storage", sqlite_url).exit_code == 69
    (tmp_path / "tuner.db").touch()
    first = run("db", "upgrade", "--storage", sqlite_url)
    assert first.exit_code == 0
    assert "schema none is now" in first.stdout
    assert "has the schema of this tuner already" in run("db", "upgrade", "--storage", sqlite_url).stdout


def test_init_refuses_somebody_else_s_database(run: Run, sqlite_url: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "tuner.db")) as connection:
        connection.execute("CREATE TABLE customers (id INTEGER)")
    result = run("db", "init", "--storage", sqlite_url)
    assert result.exit_code == 78
    assert "refusing to write" in result.stderr


def test_password_is_never_printed(run: Run) -> None:
    result = run("db", "init", "--storage", "postgresql://tuner:s3cr3tPW@127.0.0.1:9/tuner")
    assert result.exit_code == 69
    assert "s3cr3tPW" not in result.stderr + result.stdout
    assert "127.0.0.1" in result.stderr


@pytest.mark.parametrize("name", ["init", "upgrade", "check"])
def test_help_has_an_example(run: Run, name: str) -> None:
    assert f"tuner db {name}" in run("db", name, "--help").stdout
