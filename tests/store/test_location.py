"""Where the database and the files are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tuner.errors import ConfigurationError, UnavailableError
from tuner.store.database import Database
from tuner.store.filesystem import filesystem_of, why_refused
from tuner.store.location import checkpoint_place, files_dir, parse_url, shown, storage_url


def test_the_option_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage_url() == "sqlite:///tuner.db"
    monkeypatch.setenv("TUNER_STORAGE", "postgresql://db/a")
    assert storage_url() == "postgresql://db/a"
    assert storage_url("sqlite:///b.db") == "sqlite:///b.db"


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("sqlite:///x.db", "sqlite"),
        ("postgresql://u@h/d", "postgresql+psycopg"),
        ("postgres://u@h/d", "postgresql+psycopg"),
        ("mysql://u@h/d", "mysql+pymysql"),
        ("mysql+pymysql://u@h/d", "mysql+pymysql"),
        ("mariadb://u@h/d", "mysql+pymysql"),
        ("mariadb+pymysql://u@h/d", "mysql+pymysql"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg"),
    ],
)
def test_a_url_gets_its_driver(text: str, driver: str) -> None:
    assert parse_url(text).drivername == driver


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tuner.db", "storage: not a database URL; use for example sqlite:///tuner.db"),
        ("postgrsql://u:s3cr3tPW@h/d", 'storage: unknown database "postgrsql"; did you mean "postgresql"?'),
        ("postgresql://u:s3cr3tPW@h:port/d", "storage: not a database URL - it cannot be parsed"),
        ("mariabd://u:s3cr3tPW@h/d", 'storage: unknown database "mariabd"; did you mean "mariadb"?'),
        ("mysql+mysqldb://u:s3cr3tPW@h/d", "storage: MySQL and MariaDB are spoken to with pymysql; write mysql://"),
    ],
)
def test_a_wrong_url_is_told_without_its_password(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(text)
    assert str(caught.value).startswith(message)
    assert "s3cr3tPW" not in str(caught.value)


def test_a_password_comes_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "password"
    secret.write_text("p@ss{w}ord%/\n", encoding="utf-8")
    monkeypatch.setenv("TUNER_STORAGE_PASSWORD_FILE", str(secret))
    assert parse_url("postgresql://u@h/d").password == "p@ss{w}ord%/"
    assert parse_url("postgresql://u:given@h/d").password == "given"
    monkeypatch.setenv("TUNER_STORAGE_PASSWORD_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="cannot read"):
        parse_url("postgresql://u@h/d")


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
@pytest.mark.parametrize("word", ["password", "passwd"])
def test_a_password_among_the_options_is_a_password(scheme: str, word: str) -> None:
    url = parse_url(f"{scheme}://h/d?user=u&{word}=s3cr3t%26PW&sslpassword=s3cr3tPW&sslmode=require")
    assert (url.username, url.password, url.query["sslmode"]) == ("u", "s3cr3t&PW", "require")
    assert "s3cr3t" not in shown(url)
    with pytest.raises(UnavailableError) as caught:
        Database.open(f"{scheme}://127.0.0.1:1/none?user=u&{word}=s3cr3tPW&sslmode=disable")
    assert "s3cr3tPW" not in str(caught.value)


def test_files_are_beside_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files_dir(None, "sqlite:////data/x.db") == Path("/data/tuner-files")
    assert files_dir(None, "postgresql://u@h/d") == tmp_path / "tuner-files"
    monkeypatch.setenv("TUNER_FILES", "here")
    assert files_dir(None, "sqlite:////data/x.db") == tmp_path / "here"
    assert files_dir("/there", "sqlite:////data/x.db") == Path("/there")


def test_a_missing_database_is_not_created_by_readers(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"no database at .*; create a study first"):
        Database.open(f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_reader_is_told_of_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        Database.open(f"sqlite:///{tmp_path}/nodir/x.db")
    assert caught.value.message == (
        f"no database at {tmp_path}/nodir/x.db - the folder {tmp_path}/nodir does not exist; "
        "name another with --storage or TUNER_STORAGE"
    )


def test_sqlite_that_may_not_write_beside_its_file_says_so(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    file.touch()
    (tmp_path / "x.db-journal").mkdir()
    with pytest.raises(UnavailableError) as caught:
        Database.open(f"sqlite:///{file}", create=True)
    assert caught.value.message == (
        f"database sqlite:///{file}: unable to open database file - "
        f"{file}-journal is a folder, and SQLite writes a file of that name; rename the folder"
    )


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        ("folder", "the folder {folder} cannot be written to, and SQLite writes beside its file, also to read it"),
        ("file", "the file cannot be read and written by this user"),
        ("", ""),
    ],
)
def test_why_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str, why: str) -> None:
    file = tmp_path / "x.db"
    file.touch()
    closed = {"folder": tmp_path, "file": file}.get(refused)
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != closed)  # nothing is closed to root
    found, fix = why_refused(file)
    assert found == why.format(folder=tmp_path)
    assert ("copy the file elsewhere" in fix) == bool(refused)


@pytest.mark.parametrize(
    ("path", "message"),
    [("folder", "is a folder; name a file"), ("none/x.db", "does not exist; mkdir -p")],
)
def test_a_path_that_cannot_be_a_database_is_told(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises((ConfigurationError, UnavailableError), match=message):
        Database.open(f"sqlite:///{tmp_path}/{path}", create=True)


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert filesystem_of(str(tmp_path)) != ""
    monkeypatch.setattr("tuner.store.filesystem.filesystem_of", lambda _: "nfs4")
    with pytest.raises(ConfigurationError, match="is on nfs4 - SQLite's locks are unsafe there; use PostgreSQL"):
        Database.open(f"sqlite:///{tmp_path}/x.db", create=True)


def test_an_unreachable_server_is_one_line_without_the_password() -> None:
    with pytest.raises(UnavailableError) as caught:
        Database.open("postgresql://tuner:s3cr3tPW@127.0.0.1:1/none")
    assert "s3cr3tPW" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "module", "message"),
    [
        ("mysql://u@h/d", "pymysql", "storage: mysql needs a driver that is not installed; pip install 'pymysql'"),
        (
            "postgresql://u@h/d",
            "psycopg",
            r"storage: postgresql needs a driver that is not installed; pip install 'psycopg\[binary\]'",
        ),
    ],
)
def test_a_missing_driver_is_one_line(monkeypatch: pytest.MonkeyPatch, url: str, module: str, message: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=message):
        Database(parse_url(url))


def test_checkpoints_are_with_the_files_unless_they_have_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert checkpoint_place(None) == ""
    monkeypatch.setenv("TUNER_CHECKPOINTS", "gs://bucket/x/")
    assert checkpoint_place(None) == "gs://bucket/x"
    assert checkpoint_place("here") == str(tmp_path / "here")
    assert checkpoint_place(Path("there")) == str(tmp_path / "there")
    with pytest.raises(ConfigurationError, match="the URL holds a password"):
        checkpoint_place("sftp://me:s3cret@host/x")
