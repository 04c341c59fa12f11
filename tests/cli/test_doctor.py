"""``tuner doctor`` and the checks behind it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tuner.cli import checkup
from tuner.cli.checkup import Finding, Level


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
    findings = list(checkup.check_torch())
    assert {finding.name for finding in findings} == {"gpu"}


def test_a_torch_that_does_not_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_TORCH", "raise ImportError('libcudart.so.13 is missing')")
    (finding,) = checkup.check_torch()
    assert finding.level is Level.FAIL
    assert finding.status == 69
    assert "libcudart.so.13 is missing" in finding.text


def test_a_torch_that_hangs_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_TORCH", "import time; time.sleep(60)")
    monkeypatch.setattr(checkup, "_TORCH_SECONDS", 0.5)
    (finding,) = checkup.check_torch()
    assert finding.level is Level.FAIL
    assert "nvidia-smi" in finding.fix


def test_gpus_in_words() -> None:
    gpu = {"name": "NVIDIA H100", "free": 70 * 2**30, "total": 80 * 2**30, "bf16": True}
    findings = list(
        checkup.torch_findings(
            {"version": "2.13.0", "cuda": "13.0", "gpus": [gpu, {**gpu, "free": 2**30, "bf16": False}]}
        )
    )
    assert [finding.level for finding in findings] == [Level.OK, Level.WARN]
    assert findings[0].text == "cuda:0 NVIDIA H100, 70.0 of 80.0 GiB free, bf16"
    assert "nvidia-smi" in findings[1].fix


@pytest.mark.parametrize(
    ("offset", "level"), [(0.1, Level.OK), (-0.1, Level.OK), (6.0, Level.WARN), (-3600.0, Level.WARN)]
)
def test_clock(offset: float, level: Level) -> None:
    assert checkup.check_clock(offset).level is level


@pytest.mark.parametrize(("free", "level"), [(0.5, Level.FAIL), (5.0, Level.WARN), (50.0, Level.OK)])
def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, level: Level) -> None:
    class _Usage:
        def __init__(self) -> None:
            self.free = free * 2**30

    monkeypatch.setattr("shutil.disk_usage", lambda _folder: _Usage())
    assert checkup.check_disk("disk", tmp_path / "not" / "yet").level is level


def test_network_file_systems_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tuner.store.filesystem.filesystem_of", lambda _folder: "nfs4")
    finding = checkup.check_filesystem(tmp_path / "tuner.db")
    assert finding.level is Level.FAIL
    assert finding.status == 78


def test_missing_libraries_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "LIBRARIES", ("optuna", "no-such-library"))
    assert [finding.level for finding in checkup.check_libraries()] == [Level.OK, Level.FAIL]


def test_exit_status_is_the_first_failure_s() -> None:
    good = Finding(name="a", level=Level.WARN, text="")
    bad = Finding(name="b", level=Level.FAIL, text="", status=78)
    assert checkup.exit_status([good]) == 0
    assert checkup.exit_status([good, bad, Finding(name="c", level=Level.FAIL, text="", status=69)]) == 78


def test_this_python_is_named() -> None:
    assert sys.executable in checkup.check_python().text


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_server_s_connections_and_their_protection_are_told(
    run: Run, request: pytest.FixtureRequest, kind: str
) -> None:
    url = str(request.getfixturevalue(f"{kind}_url"))
    assert run("db", "init", "--storage", url).exit_code == 0
    said = run("doctor", "--skip-torch", "--storage", url).stdout
    assert "of 100 are taken" in said
    assert "not encrypted, and does not leave this machine" in " ".join(said.split())
    assert "no trial is stuck" in said
