"""Workers as SLURM jobs: the script, and submitit's jobs for real on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import submitit

from tests.faults.boxes import PATIENCE, assert_whole
from tests.launch.canary import assert_no_canary
from tests.launch.toys import PATH, ToyBox, in_the_middle
from tuner.errors import UnavailableError, UsageError
from tuner.launch import slurm
from tuner.launch.command import WorkerCommand, command_for
from tuner.launch.slurm import SlurmOptions, parse_minutes
from tuner.store.records import Outcome


@pytest.fixture
def command() -> WorkerCommand:
    return command_for("postgresql://tuner@db/tuner", files="/shared/tuner", studies=("a",), gpus=1)


def options(folder: Path, **changes: Any) -> SlurmOptions:
    wanted: dict[str, Any] = {"minutes": 240, "log_folder": folder}
    return SlurmOptions(**(wanted | changes))


def parameters(script: str) -> dict[str, str]:
    """The ``#SBATCH`` lines of a script."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("4:00:00", 240), ("30:00", 30), ("0:30", 1), ("2-12", 3600), ("1-06:30", 1830), ("1-0:0:1", 1441)],
)
def test_time_limits_are_read_as_slurm_reads_them(text: str, minutes: int) -> None:
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "4h", "1:2:3:4", "-5", "infinite"])
def test_other_time_limits_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--time: minutes, 4:00:00 or 1-12:00:00 expected"):
        parse_minutes(text)


def test_no_time_is_refused() -> None:
    with pytest.raises(UsageError, match='--time "0:00:00" is no time at all'):
        parse_minutes("0:00:00")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"workers": 0}, "--workers must be at least 1"),
        ({"gpus": -1}, "--gpus-per-worker must be 0 or more"),
        ({"notice": 10}, "--notice 10 s is too short"),
        ({"minutes": 2}, "--time of 2 min is not longer than --notice 120 s"),
        ({"sbatch": {"time": "1:00"}}, "--sbatch time is not passed on; say it with --time"),
        ({"sbatch": {"gpus-per-node": "2"}}, "--sbatch gpus-per-node is not passed on; say it with --gpus-per-worker"),
    ],
)
def test_what_cannot_work_is_refused_here(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        options(tmp_path, **changes)


def test_the_script_asks_for_what_was_said(tmp_path: Path) -> None:
    script = slurm.script(
        options(
            tmp_path,
            workers=4,
            gpus=2,
            cpus=8,
            memory=16.5,
            partition="gpu",
            name="mine",
            setup=("module load cuda",),
            sbatch={"account": "vision"},
        )
    )
    asked = parameters(script)
    wanted = {
        "array": "0-3%4",
        "gpus-per-node": "2",
        "cpus-per-task": "8",
        "mem": "16896M",
        "partition": "gpu",
        "job-name": "mine",
        "account": "vision",
        "time": "240",
        "nodes": "1",
        "ntasks-per-node": "1",
        "signal": "USR2@120",
        "requeue": "",
        "open-mode": "append",
    }
    assert wanted.items() <= asked.items()
    assert script.index("module load cuda") < script.index("srun ")
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_one_worker_is_no_array(tmp_path: Path) -> None:
    asked = parameters(slurm.script(options(tmp_path, gpus=0)))
    assert "array" not in asked
    assert "gpus-per-node" not in asked


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    slurm.script(options(tmp_path / "logs"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with programs that are named like SLURM's and write down how they were called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, answer in {"sbatch": "echo Submitted batch job 4711", "srun": "true", "scontrol": "cat $0.says"}.items():
        tool = programs / name
        tool.write_text(f'#!/bin/sh\necho "$@" > $0.words\nenv > $0.environment\n{answer}\n', encoding="utf-8")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return programs


def test_jobs_are_submitted_as_the_dry_run_says(command: WorkerCommand, cluster: Path, tmp_path: Path) -> None:
    wanted = options(tmp_path / "logs", workers=3)
    jobs = slurm.submit(command, options=wanted)
    assert slurm.names(jobs) == "4711"
    assert [str(job.job_id) for job in jobs] == ["4711_0", "4711_1", "4711_2"]
    script = (tmp_path / "logs" / "4711_submission.sh").read_text(encoding="utf-8")
    assert script == slurm.script(wanted)


def test_no_password_reaches_slurm(
    command: WorkerCommand, cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "s3cr3tPW"
    monkeypatch.setenv("PGPASSWORD", canary)
    monkeypatch.setenv("TUNER_STORAGE", f"postgresql://tuner:{canary}@db/tuner")
    slurm.submit(command, options=options(tmp_path / "logs", workers=2))
    assert "SLURM" not in (cluster / "sbatch.words").read_text(encoding="utf-8")
    assert_no_canary(canary, tmp_path)


def test_a_refusal_of_sbatch_is_one_line(command: WorkerCommand, cluster: Path, tmp_path: Path) -> None:
    (cluster / "sbatch").write_text(
        "#!/bin/sh\necho 'sbatch: error: no such partition' >&2\nexit 1\n", encoding="utf-8"
    )
    with pytest.raises(UnavailableError, match="sbatch refused the jobs - sbatch: error: no such partition"):
        slurm.submit(command, options=options(tmp_path / "logs"))


def test_without_slurm_it_says_what_to_do(
    command: WorkerCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="sbatch is not installed here; run this on a login node"):
        slurm.submit(command, options=options(tmp_path))


@pytest.mark.parametrize(
    ("says", "is_preempted"),
    [
        ("JobId=7 JobState=RUNNING PreemptEligibleTime=x PreemptTime=2026-01-02T03:04:05 Other=1", True),
        ("JobId=7 JobState=CANCELLED PreemptEligibleTime=2026-01-02T03:04:05 PreemptTime=None Other=1", False),
        ("slurm_load_jobs error: Invalid job id specified", False),
    ],
)
def test_a_preemption_is_told_from_a_cancellation(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, says: str, is_preempted: bool
) -> None:
    (cluster / "scontrol.says").write_text(says, encoding="utf-8")
    assert slurm._is_preempted() is False  # no job of SLURM's
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert slurm._is_preempted() is is_preempted


# Jobs for real, through submitit's executor for this machine


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyBox:
    monkeypatch.setenv("PYTHONPATH", PATH)
    return ToyBox(tmp_path, f"sqlite:///{tmp_path}/tuner.db")


@pytest.fixture
def box_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], ToyBox]:
    """Gives a study with one trial of so many epochs, seven in a second."""
    monkeypatch.setenv("PYTHONPATH", PATH)
    return lambda epochs: ToyBox(tmp_path, f"sqlite:///{tmp_path}/tuner.db", trials=1, epochs=epochs)


@pytest.fixture
def jobs(box: ToyBox, tmp_path: Path) -> Iterator[list[submitit.Job[str]]]:
    """Two jobs that serve the box's study."""
    command = command_for(box.url, files=str(box.files), studies=(box.study,), gpus=0, alone=True)
    started = slurm.run_here(command, options=options(tmp_path / "logs", minutes=10, gpus=0, workers=2))
    yield started
    for job in started:
        for process in tree(job):
            process.kill()
        job._process.wait()  # type: ignore[attr-defined]


def tree(job: submitit.Job[str]) -> list[psutil.Process]:
    try:
        controller = psutil.Process(int(job.job_id))
        return [controller, *controller.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def task_of(job: submitit.Job[str]) -> psutil.Process:
    """The process that SLURM would signal."""
    (task,) = [one for one in tree(job) if "submitit.core._submit" in one.cmdline()]
    return task


def result_of(job: submitit.Job[str]) -> str:
    assert psutil.wait_procs([psutil.Process(int(job.job_id))], timeout=PATIENCE)[1] == []
    return job.result()


def log_of(job: submitit.Job[str]) -> str:
    return Path(job.paths.stdout).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_job_whose_time_is_over_gives_its_trial_back_and_comes_again(
    box: ToyBox, jobs: list[submitit.Job[str]]
) -> None:
    box.wait_for(in_the_middle)
    tasks = [task_of(job) for job in jobs]
    for task, sent in zip(tasks, (signal.SIGUSR2, signal.SIGUSR1), strict=True):
        task.send_signal(sent)
    assert psutil.wait_procs(tasks, timeout=30)[1] == []
    assert [result_of(job) for job in jobs] == ["the studies are done"] * 2
    snapshot = box.snapshot()
    assert_whole(snapshot, trials=4)
    assert box.check().wrong == {}
    again = [trial for trial in snapshot.trials if len(trial.attempts) > 1]
    assert again
    assert len({attempt.worker for trial in snapshot.trials for attempt in trial.attempts}) >= 2
    assert {attempt.outcome for trial in again for attempt in trial.attempts[:-1]} == {Outcome.PREEMPTED}
    for job in jobs:
        assert "draining" in log_of(job)
        assert "Requeued job" in log_of(job)


@pytest.mark.slow
def test_a_time_limit_comes_by_itself_until_the_work_is_done(box_of: Callable[[int], ToyBox], tmp_path: Path) -> None:
    box = box_of(90)
    command = command_for(box.url, files=str(box.files), studies=(box.study,), gpus=0, alone=True)
    wanted = options(tmp_path / "logs", minutes=1, notice=47, requeues=6, gpus=0)  # signalled after 13 s
    (job,) = slurm.run_here(command, options=wanted)
    assert job.result() == "the studies are done"
    assert 1 <= log_of(job).count("Requeued job") <= 6
    assert box.check().wrong == {}
    (trial,) = box.snapshot().trials
    assert {attempt.outcome for attempt in trial.attempts[:-1]} == {Outcome.PREEMPTED}


@pytest.mark.slow
def test_a_time_limit_does_not_come_for_ever(box_of: Callable[[int], ToyBox], tmp_path: Path) -> None:
    box = box_of(4000)
    command = command_for(box.url, files=str(box.files), studies=(box.study,), gpus=0, alone=True)
    wanted = options(tmp_path / "logs", minutes=1, notice=54, requeues=1, gpus=0)  # signalled after 6 s
    (job,) = slurm.run_here(command, options=wanted)
    assert isinstance(job.exception(), submitit.core.utils.FailedJobError)
    assert log_of(job).count("Requeued job") == 1
    assert "timed-out too many times" in log_of(job)
    snapshot = box.snapshot()
    assert snapshot.study.counts["running"] == 0
    assert snapshot.workers == ()


@pytest.mark.slow
def test_a_cancelled_job_stays_away_and_a_killed_one_takes_its_worker_along(
    box: ToyBox, jobs: list[submitit.Job[str]]
) -> None:
    box.wait_for(lambda snapshot: in_the_middle(snapshot) and len(snapshot.workers) == 2)
    cancelled, killed = jobs
    processes = [process for job in jobs for process in tree(job)]
    for process in tree(cancelled)[1:]:  # some clusters signal every process of a job
        process.terminate()
    task_of(killed).kill()
    assert result_of(cancelled) == "left on SIGTERM"
    assert psutil.wait_procs(processes, timeout=30)[1] == []
    snapshot = box.snapshot()
    assert snapshot.study.counts["running"] == 0  # the leash is a SIGTERM: trials were given back
    assert snapshot.study.counts["waiting"] >= 1
    attempts = [attempt for trial in snapshot.trials for attempt in trial.attempts]
    assert Outcome.LOST not in {attempt.outcome for attempt in attempts}
    assert not [attempt.reason for attempt in attempts if "killed" in attempt.reason]
