"""``tuner doctor`` and the checks behind it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy.engine import make_url

from tests.cli.conftest import Run
from tests.store.toy import holder, sql, toy_study
from tuner.cli import checkup
from tuner.cli.checkup import Finding, Level, database, gpu, machine
from tuner.search.driver import StudyDriver
from tuner.store.connections import ConnectionUse
from tuner.store.database import Database
from tuner.store.roles import Duty, apply_roles, find_roles, role_names
from tuner.store.standing import granted_by


def test_doctor_of_a_good_database_is_status_0(run: Run, finished: str) -> None:
    result = run("doctor", "--skip-torch", "--storage", finished)
    assert result.exit_code == 0, result.stdout
    levels = {line.split()[1]: line.split()[0] for line in result.stdout.splitlines() if not line.startswith(" ")}
    assert levels["database"] == "OK"
    assert levels["schema"] == "OK"
    assert max(map(len, result.stdout.splitlines())) <= 80 + len(finished)


def test_doctor_without_a_database_warns_and_makes_none(run: Run, tmp_path: Path) -> None:
    result = run("doctor", "--skip-torch")
    assert result.exit_code == 0
    assert "WARN  database" in result.stdout
    assert not (tmp_path / "tuner.db").exists()


@pytest.mark.parametrize(
    ("storage", "name", "status"),
    [
        ("postgresql://tuner:s3cr3tPW@127.0.0.1:9/tuner", "database", 69),
        ("postgrsql://tuner:s3cr3tPW@db/tuner", "database", 78),
        ("sqlite:////nowhere/at/all/tuner.db", "filesystem", 69),
    ],
)
def test_doctor_s_status_is_that_of_the_worst(run: Run, storage: str, name: str, status: int) -> None:
    result = run("doctor", "--skip-torch", "--storage", storage)
    assert result.exit_code == status
    assert f"FAIL  {name}" in result.stdout
    assert "s3cr3tPW" not in result.stdout + result.stderr


def test_a_database_without_tables_fails_with_the_command_that_mends_it(
    run: Run, sqlite_url: str, tmp_path: Path
) -> None:
    (tmp_path / "tuner.db").touch()
    result = run("doctor", "--skip-torch", "--storage", sqlite_url)
    assert result.exit_code == 78
    assert "tuner db init" in result.stdout


def test_torch_is_looked_at_by_another_process() -> None:
    findings = list(gpu.check_torch())
    assert {finding.name for finding in findings} == {"gpu"}


def test_a_torch_that_does_not_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_TORCH", "raise ImportError('libcudart.so.13 is missing')")
    (finding,) = gpu.check_torch()
    assert finding.level is Level.FAIL
    assert finding.status == 69
    assert "libcudart.so.13 is missing" in finding.text


def test_a_torch_that_hangs_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_TORCH", "import time; time.sleep(60)")
    monkeypatch.setattr(gpu, "_TORCH_SECONDS", 0.5)
    (finding,) = gpu.check_torch()
    assert finding.level is Level.FAIL
    assert "nvidia-smi" in finding.fix


def test_gpus_in_words() -> None:
    card = {"name": "NVIDIA H100", "free": 70 * 2**30, "total": 80 * 2**30, "bf16": True}
    findings = list(
        gpu.torch_findings(
            {"version": "2.13.0", "cuda": "13.0", "gpus": [card, {**card, "free": 2**30, "bf16": False}]}
        )
    )
    assert [finding.level for finding in findings] == [Level.OK, Level.WARN]
    assert findings[0].text == "cuda:0 NVIDIA H100, 70.0 of 80.0 GiB free, bf16"
    assert "nvidia-smi" in findings[1].fix


@pytest.mark.parametrize(
    ("offset", "level"), [(0.1, Level.OK), (-0.1, Level.OK), (6.0, Level.WARN), (-3600.0, Level.WARN)]
)
def test_clock(offset: float, level: Level) -> None:
    assert database.check_clock(offset).level is level


@pytest.mark.parametrize(("free", "level"), [(0.5, Level.FAIL), (5.0, Level.WARN), (50.0, Level.OK)])
def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, level: Level) -> None:
    class _Usage:
        def __init__(self) -> None:
            self.free = free * 2**30

    monkeypatch.setattr("shutil.disk_usage", lambda _folder: _Usage())
    assert machine.check_disk("disk", tmp_path / "not" / "yet").level is level


def test_network_file_systems_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tuner.store.filesystem.filesystem_of", lambda _folder: "nfs4")
    finding = machine.check_filesystem(tmp_path / "tuner.db")
    assert finding.level is Level.FAIL
    assert finding.status == 78


def test_missing_libraries_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LIBRARIES", ("optuna", "no-such-library"))
    assert [finding.level for finding in machine.check_libraries()] == [Level.OK, Level.FAIL]


def test_exit_status_is_the_first_failure_s() -> None:
    good = Finding(name="a", level=Level.WARN, text="")
    bad = Finding(name="b", level=Level.FAIL, text="", status=78)
    assert checkup.exit_status([good]) == 0
    assert checkup.exit_status([good, bad, Finding(name="c", level=Level.FAIL, text="", status=69)]) == 78


def test_this_python_is_named() -> None:
    assert sys.executable in machine.check_python().text


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_server_s_connections_and_their_protection_are_told(
    run: Run, request: pytest.FixtureRequest, kind: str
) -> None:
    url = str(request.getfixturevalue(f"{kind}_url"))
    assert run("db", "init", "--storage", url).exit_code == 0
    said = " ".join(run("doctor", "--skip-torch", "--storage", url).stdout.split())
    assert re.search(r"\d+ of 100 are taken; a worker keeps one, so there is room for \d+ more", said)
    assert "not encrypted, and does not leave this machine" in said
    assert "no trial is stuck" in said
    assert "WARN role tuner may create and upgrade the tables, and do anything else on this server" in said


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
@pytest.mark.parametrize(
    ("duty", "level", "text"),
    [
        (Duty.OWNER, "OK", "little_owner may create and upgrade the tables"),
        (Duty.WORKER, "OK", "little_worker may run workers and create studies"),
        (Duty.VIEWER, "WARN", "little_viewer may read: workers need a user that may write"),
    ],
)
def test_each_role_is_told_what_it_may(
    run: Run, request: pytest.FixtureRequest, kind: str, duty: Duty, level: str, text: str
) -> None:
    url = make_url(str(request.getfixturevalue(f"{kind}_url")))
    with Database.open(url.render_as_string(hide_password=False), create=True) as db:
        found = find_roles(db, role_names("little"))
        apply_roles(db, found, passwords=dict.fromkeys(Duty, "s3cr3tPW"))
    mine = url.set(username=f"little_{duty.value}", password="s3cr3tPW").render_as_string(hide_password=False)
    result = run("doctor", "--skip-torch", "--storage", mine)
    assert result.exit_code == 0
    assert re.search(rf"^{level} +role +{re.escape(text)}", re.sub(r"\n {18}", " ", result.stdout), re.MULTILINE)
    assert "s3cr3tPW" not in result.output


@pytest.mark.parametrize(
    ("grants", "granted", "is_superuser"),
    [
        (["GRANT ALL PRIVILEGES ON *.* TO `root`@`%` WITH GRANT OPTION"], {"CREATE", "INSERT", "SELECT"}, True),
        (
            ["GRANT USAGE ON *.* TO `w`@`%`", "GRANT SELECT, INSERT, UPDATE ON `a\\_b`.* TO `w`@`%`"],
            {"INSERT", "SELECT"},
            False,
        ),
        (["GRANT SELECT ON `other`.* TO `v`@`%`", "GRANT INSERT ON `a_b`.`tuner_workers` TO `v`@`%`"], set(), False),
    ],
)
def test_grants_are_read(grants: list[str], granted: set[str], is_superuser: bool) -> None:
    found, may_all = granted_by(grants, database="a_b")
    assert found & {"CREATE", "INSERT", "SELECT"} == granted
    assert may_all is is_superuser


def test_a_password_in_the_environment_is_told_and_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "s3cr3tPW")
    monkeypatch.setenv("TUNER_FILES", "/nowhere/files")
    result = run("doctor", "--skip-torch")
    said = " ".join(result.stdout.split())
    assert "WARN environment the database password is in PGPASSWORD" in said
    assert re.search(r"environment set: (TUNER_CI, )?TUNER_FILES", said)
    assert "s3cr3tPW" not in result.output


@pytest.mark.parametrize(("mode", "level"), [(0o600, None), (0o640, None), (0o644, Level.WARN)])
def test_a_password_file_that_everybody_may_read(tmp_path: Path, mode: int, level: Level | None) -> None:
    file = tmp_path / "password"
    file.write_text("s3cr3tPW", encoding="utf-8")
    file.chmod(mode)
    findings = list(machine.check_password_file(file))
    assert [finding.level for finding in findings] == ([] if level is None else [level])
    assert "s3cr3tPW" not in str(findings)


def test_a_password_file_that_is_not_there_fails(tmp_path: Path) -> None:
    (finding,) = machine.check_password_file(tmp_path / "nowhere")
    assert finding.level is Level.FAIL
    assert finding.status == 78


@pytest.mark.parametrize(("limit", "level"), [("max", Level.OK), (str(2**30), Level.WARN)])
def test_a_container_s_share_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, level: Level) -> None:
    for name, text in {"memory.max": limit, "memory.current": "0", "cpu.max": "50000 100000"}.items():
        (tmp_path / name).write_text(f"{text}\n", encoding="ascii")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**40, total=2**40))
    finding = machine.check_machine()
    assert finding.level is level
    assert finding.text.startswith("0.5 cores, ")


def test_few_descriptors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _kind: (64, 64))
    assert [finding.level for finding in machine.check_environment()] == [Level.OK, Level.WARN]


def test_the_folder_for_files_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert machine.check_files(tmp_path / "file" / "below", is_shared=False).level is Level.FAIL
    assert machine.check_files(tmp_path / "not" / "yet", is_shared=False).level is Level.OK
    assert "only if they see the same folder" in machine.check_files(tmp_path, is_shared=True).text


def test_a_stuck_trial_is_told_with_its_command(run: Run, sqlite_url: str) -> None:
    leave_stuck(sqlite_url)
    result = run("doctor", "--skip-torch", "--storage", sqlite_url)
    said = " ".join(result.stdout.split())
    assert result.exit_code == 0
    assert "WARN contents" in said
    assert "tuner db check, then tuner db check --fix" in said


def leave_stuck(url: str) -> None:
    """A study with a run whose lease ran out an hour ago, and nobody left who would notice."""
    with Database.open(url, create=True) as db:
        toy_study(db)
        driver = StudyDriver(db, name="toy")
        assert driver.claim(holder("gone")) is not None
        db.write(sql("UPDATE tuner_runs SET expires_at = expires_at - 3600"))


def test_full_servers_warn(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    monkeypatch.setattr("tuner.store.connections.read_connections", lambda _db: ConnectionUse(used=95, limit=100))
    with Database.open(sqlite_url, create=True) as db:
        (finding,) = database.check_connections(db)
    assert finding.level is Level.WARN
    assert "room for 0 more" in finding.text
