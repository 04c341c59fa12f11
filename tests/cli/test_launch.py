"""``tuner launch``: what is printed before anything starts, and jobs on this machine."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import psutil
import pytest
import sqlalchemy
import yaml

from tests.cli.command import tuner
from tests.cli.conftest import Run
from tests.cli.little import STUDY
from tests.launch.canary import assert_no_canary, showing
from tests.postgres import PASSWORD
from tuner.api import load_study
from tuner.store.records import StudyState

SERVER = "postgresql://tuner@nowhere.example.org/tuner"
POD = ("--image", "registry/tuner:0.1.0", "--files-claim", "files")


def test_a_dry_run_on_slurm_prints_a_script_and_asks_nobody(run: Run, tmp_path: Path) -> None:
    words = ("--study", "a", "--workers", "4", "--time", "2:00:00", "--partition", "gpu", "--sbatch", "account=vision")
    result = run("launch", "slurm", *words, "--setup", "module load cuda", "--storage", SERVER, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("#!/bin/bash\n")
    for line in (
        "--array=0-3%4",
        "--time=120",
        "--partition=gpu",
        "--account=vision",
        "--gpus-per-node=1",
        "--requeue",
    ):
        assert f"#SBATCH {line}\n" in result.stdout
    assert (
        f"each job runs: TUNER_STORAGE={SERVER} TUNER_FILES={tmp_path}/tuner-files tuner worker start" in result.stderr
    )
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_on_kubernetes_prints_manifests_and_nothing_else(run: Run, tmp_path: Path) -> None:
    words = ("--study", "a", "--node-selector", "gpu=h100", "--toleration", "spot", "--namespace", "team")
    result = run("launch", "kubernetes", *POD, *words, "--storage", SERVER, "--storage-secret", "db", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    config, job = yaml.safe_load_all(result.stdout)
    assert config["data"]["TUNER_STORAGE"] == SERVER
    assert job["metadata"] | {"labels": 0} == {"name": "tuner-a", "namespace": "team", "labels": 0}
    assert job["spec"]["template"]["spec"]["nodeSelector"] == {"gpu": "h100"}
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_on_ray_prints_a_plan_without_ray(run: Run, tmp_path: Path) -> None:
    result = run("launch", "ray", "--study", "a", "--workers", "3", "--storage", SERVER, "--dry-run")
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["actors"] == 3
    assert plan["environment"]["TUNER_STORAGE"] == SERVER
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("slurm",), ("kubernetes", *POD), ("ray",)])
@pytest.mark.parametrize(
    ("storage", "text"),
    [
        ("postgresql://tuner:s3cr3tPW@db/tuner", "the database URL holds a password"),
        ("sqlite:///tuner.db", "SQLite cannot be shared by several machines"),
        ("postgrsql://db/tuner", 'did you mean "postgresql"?'),
    ],
)
def test_a_database_that_cannot_be_passed_on_is_refused(
    run: Run, words: tuple[str, ...], storage: str, text: str
) -> None:
    result = run("launch", *words, "--storage", storage, "--dry-run")
    assert result.exit_code in {2, 78}
    assert text in result.stderr
    assert "s3cr3tPW" not in result.output
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("slurm", "--sbatch", "account"), '--sbatch: KEY=VALUE expected, got "account"'),
        (("slurm", "--time", "4h"), "--time: minutes, 4:00:00 or 1-12:00:00 expected"),
        (("kubernetes", *POD, "--node-selector", "=x"), '--node-selector: KEY=VALUE expected, got "=x"'),
        (("kubernetes", *POD, "--name", "A"), "is no name for a Job"),
        (("ray", "--address", "ray://head:10001"), "client protocol is not offered"),
    ],
)
def test_a_wrong_option_is_one_line(run: Run, words: tuple[str, ...], text: str) -> None:
    result = run("launch", *words, "--storage", SERVER, "--dry-run")
    assert result.exit_code == 2
    assert text in result.stderr


def test_a_job_that_is_there_already_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "kubectl"
    tool.write_text("#!/bin/sh\ncat > /dev/null\necho job.batch/tuner-a ${SAYS}\n", encoding="utf-8")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    words = ("launch", "kubernetes", *POD, "--study", "a", "--storage", SERVER)
    monkeypatch.setenv("SAYS", "created")
    assert "next: kubectl get pods --selector app.kubernetes.io/instance=tuner-a\n" in run(*words).stderr
    monkeypatch.setenv("SAYS", "unchanged")
    said = run(*words).stderr
    assert "the Job was there already and nothing was started" in said
    assert "next: kubectl delete job tuner-a\n" in said


def test_an_unknown_study_is_found_before_the_queue(run: Run, finished: str) -> None:
    result = run("launch", "slurm", "--study", "plaid", "--gpus-per-worker", "0", "--local", "--storage", finished)
    assert result.exit_code == 4
    assert 'did you mean "played"?' in result.stderr


@pytest.mark.slow
def test_two_jobs_here_finish_a_study_and_show_nobody_the_password(
    study_file: Path, tmp_path: Path, postgres_url: str
) -> None:
    study_file.write_text(STUDY.replace("trials: 2", "trials: 4"), encoding="utf-8")
    secret = tmp_path / "secret" / "password"
    secret.parent.mkdir()
    secret.write_text(PASSWORD, encoding="utf-8")
    url = sqlalchemy.make_url(postgres_url)._replace(password=None).render_as_string(hide_password=False)
    env = {"TUNER_STORAGE": url, "TUNER_STORAGE_PASSWORD_FILE": str(secret), "PGPASSWORD": PASSWORD}
    assert tuner("study", "create", "little.yaml", cwd=tmp_path, env=env).returncode == 0
    words = ("--study", "little", "--workers", "2", "--gpus-per-worker", "0", "--local")
    done = tuner("launch", "slurm", *words, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(": the studies are done\n") == 2
    assert "next: tuner study show little" in done.stderr
    snapshot = load_study("little", storage=postgres_url)
    assert snapshot.study.state is StudyState.FINISHED
    assert len(snapshot.trials) == 4
    assert all(trial.outcome.is_finished for trial in snapshot.trials)
    assert_no_canary(PASSWORD, tmp_path, but=(secret,))
    assert PASSWORD not in done.stdout + done.stderr
    assert showing(PASSWORD, [psutil.Process()]) == []
