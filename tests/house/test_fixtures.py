"""The fixtures that all tests stand on."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
import sqlalchemy

from tests.postgres import PostgresServer, running_server


def test_every_storage_starts_empty_and_takes_writes(storage_url: str) -> None:
    url = sqlalchemy.make_url(storage_url)
    if url.get_backend_name() in {"mysql", "mariadb"}:  # tuner chooses the driver; SQLAlchemy would take another one
        url = url.set(drivername=f"{url.get_backend_name()}+pymysql")
    engine = sqlalchemy.create_engine(url)
    try:
        assert sqlalchemy.inspect(engine).get_table_names() == []
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE t (n INTEGER)"))
        assert sqlalchemy.inspect(engine).get_table_names() == ["t"]
    finally:
        engine.dispose()


def test_a_database_is_dropped_although_somebody_is_connected(postgres_server: PostgresServer) -> None:
    with postgres_server.database() as url:
        connection = psycopg.connect(url.replace("+psycopg", ""))
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


def test_a_wrong_password_is_refused(postgres_server: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host="127.0.0.1", port=postgres_server.port, user="tuner", password="wrong", dbname="postgres")


def test_a_server_survives_a_crash_with_its_data() -> None:
    with running_server() as server:
        server.execute("CREATE TABLE kept (n INTEGER)")
        server.restart()
        server.execute("INSERT INTO kept VALUES (1)")
        assert server.url().endswith(f":{server.port}/postgres")


def test_a_missing_tool_skips_here_and_fails_in_ci(
    require_tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert require_tool("sh").endswith("sh")
    monkeypatch.delenv("TUNER_CI", raising=False)
    with pytest.raises(pytest.skip.Exception):
        require_tool("no-such-tool")
    monkeypatch.setenv("TUNER_CI", "1")
    with pytest.raises(pytest.fail.Exception, match="CI skips nothing"):
        require_tool("no-such-tool")
