"""``tuner db``: the schema is made once, checked and brought up to date."""

from __future__ import annotations

import json
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.cli.conftest import Run
from tests.cli.test_json import validate
from tuner.store.location import as_user


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


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_roles_are_made_with_passwords_in_files(
    run: Run, request: pytest.FixtureRequest, kind: str, tmp_path: Path
) -> None:
    url = str(request.getfixturevalue(f"{kind}_url"))
    prefix = f"cli_{kind}"
    words = ("db", "init", "--storage", url, "--roles", "--role-prefix", prefix)
    planned = run(*words, "--dry-run")
    assert planned.exit_code == 0, planned.stderr
    assert f"{prefix}_viewer" in planned.stdout
    assert not (tmp_path / "secrets").exists()

    made = run(*words)
    assert made.exit_code == 0, made.stderr
    files = sorted((tmp_path / "secrets").iterdir())
    assert [file.name for file in files] == [f"{prefix}_{duty}" for duty in ("owner", "viewer", "worker")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    said = planned.output + made.output
    assert not [file for file in files if file.read_text(encoding="utf-8") in said]
    assert "pässword" not in said and "ssword/1" not in said

    again = run(*words)
    assert again.exit_code == 0, again.stderr
    (tmp_path / "secrets" / f"{prefix}_worker").unlink()
    assert "its password was not changed" in run(*words).stdout

    viewer = as_user(make_url(url), f"{prefix}_viewer").render_as_string()
    checked = run(
        "db",
        "check",
        "--storage",
        viewer,
        env={"TUNER_STORAGE_PASSWORD_FILE": str(tmp_path / "secrets" / f"{prefix}_viewer")},
    )
    assert checked.exit_code == 0, checked.stderr


def test_roles_may_be_asked_for_their_passwords(run: Run, mariadb_url: str, tmp_path: Path) -> None:
    words = ("db", "init", "--storage", mariadb_url, "--roles", "--role-prefix", "asked", "--ask")
    result = run(*words, answer="one\none\ntwo\ntwo\nthree\nthree\n")
    assert result.exit_code == 0, result.stderr
    assert not (tmp_path / "secrets").exists()
    assert (
        run(
            "study",
            "list",
            "--storage",
            make_url(mariadb_url).set(username="asked_viewer", password="three").render_as_string(hide_password=False),
        ).exit_code
        == 0
    )


def test_sqlite_has_no_roles(run: Run, sqlite_url: str) -> None:
    result = run("db", "init", "--storage", sqlite_url, "--roles")
    assert result.exit_code == 78
    assert "SQLite has none" in result.stderr
    assert run("db", "init", "--storage", sqlite_url, "--dry-run").exit_code == 2


def test_check_finds_and_mends(run: Run, finished: str, tmp_path: Path) -> None:
    healthy = run("db", "check", "--storage", finished)
    assert healthy.exit_code == 0
    assert "problems       none" in healthy.stdout
    with closing(sqlite3.connect(tmp_path / "tuner.db")) as connection:
        connection.execute(
            "UPDATE tuner_runs SET outcome = 'running', expires_at = 1.0 WHERE number = 1 AND purpose = 'search'"
        )
        connection.commit()
    found = run("db", "check", "--storage", finished)
    assert found.exit_code == 1
    assert "study played: trial 1 is running, but the lease of worker w-1 ended" in found.stdout
    assert "next: tuner db check --fix" in found.stderr
    assert run("db", "check", "--quick", "--storage", finished).exit_code == 0

    mended = json.loads(run("db", "check", "--fix", "--json", "--storage", finished).stdout)
    validate(mended, "db-check")
    assert {problem["kind"] for problem in mended["problems"]} >= {"expired_lease"}
    assert all(problem["is_mended"] for problem in mended["problems"])
    assert run("db", "check", "--storage", finished).exit_code == 0
