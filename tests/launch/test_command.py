"""What a launched worker is told, and that no password is in it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from tests.house.command_line import why_refused
from tuner.errors import ConfigurationError, UsageError
from tuner.launch.command import PASSWORD_FILE, WorkerCommand, command_for, no_secrets_in_environment

SERVER = "postgresql://tuner@db.example.org/tuner"
CANARY = "s3cr3tPW"


def made(storage: str = SERVER, *, gpus: int = 1, alone: bool = False) -> WorkerCommand:
    return command_for(storage, files="/files", studies=("a", "b", "a"), gpus=gpus, alone=alone)


def test_its_words_are_a_command_that_the_program_takes() -> None:
    command = command_for(SERVER, files="/files", studies=("a", "b"), gpus=2, per_device=3)
    assert why_refused(command.words) is None
    assert command.words[-4:] == ["--study", "a", "--study", "b"]
    assert "--until-done" in command.words
    assert command.words[command.words.index("--per-device") + 1] == "3"


def test_each_study_is_named_once() -> None:
    assert made().studies == ("a", "b")


def test_who_asks_for_gpus_does_not_get_a_cpu() -> None:
    assert made(gpus=1).devices == "cuda"
    assert made(gpus=0).devices == "cpu"


def test_the_password_travels_as_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(CANARY, encoding="utf-8")
    monkeypatch.setenv(PASSWORD_FILE, str(file))
    command = made()
    assert command.environment == {"TUNER_STORAGE": SERVER, "TUNER_FILES": "/files", PASSWORD_FILE: str(file)}
    assert CANARY.encode() not in pickle.dumps(command)


def test_checkpoints_go_to_the_same_place_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "TUNER_CHECKPOINTS" not in made().environment
    monkeypatch.setenv("TUNER_CHECKPOINTS", "s3://bucket/tuner/")
    assert made().environment["TUNER_CHECKPOINTS"] == "s3://bucket/tuner"


def test_a_password_file_that_only_the_nodes_have_is_not_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_FILE, "/on/the/nodes/only")
    assert made().password_file == "/on/the/nodes/only"


@pytest.mark.parametrize(
    "storage",
    [
        f"postgresql://tuner:{CANARY}@db/tuner",
        f"mysql+pymysql://tuner:{CANARY}@db/tuner",
        f"postgresql://tuner@db/tuner?password={CANARY}",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(storage: str) -> None:
    with pytest.raises(UsageError, match=PASSWORD_FILE) as caught:
        made(storage)
    assert CANARY not in str(caught.value)


def test_a_password_in_the_environment_is_refused_unless_a_file_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", CANARY)
    with pytest.raises(UsageError, match="the database password is in PGPASSWORD") as caught:
        made()
    assert CANARY not in str(caught.value)
    monkeypatch.setenv(PASSWORD_FILE, "/somewhere")
    assert made().password_file == "/somewhere"


def test_sqlite_serves_one_machine_only() -> None:
    with pytest.raises(UsageError, match="cannot be shared by several machines; use PostgreSQL"):
        made("sqlite:///tuner.db")
    assert made("sqlite:///tuner.db", alone=True).storage == "sqlite:///tuner.db"


@pytest.mark.parametrize("storage", ["tuner.db", "postgrsql://db/x", "postgresql://[::1/x"])
def test_what_is_no_database_is_refused(storage: str) -> None:
    with pytest.raises(ConfigurationError, match="storage: "):
        made(storage)


def test_secrets_leave_the_environment_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", CANARY)
    monkeypatch.setenv("TUNER_STORAGE", f"postgresql://tuner:{CANARY}@db/x")
    before = dict(os.environ)
    with no_secrets_in_environment():
        assert CANARY not in str(dict(os.environ))
    assert dict(os.environ) == before
