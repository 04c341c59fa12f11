"""Workers as SLURM jobs, through submitit: one job, one worker, requeued until the studies are done.

SLURM signals a job some time before it ends it, because its time is over or because somebody else needs the node. The worker
then saves, gives its trials back and leaves, and submitit puts the job into the queue again.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import ConfigurationError, UnavailableError, UsageError
from tuner.launch.child import noted, serve
from tuner.launch.command import WorkerCommand, no_secrets_in_environment

if TYPE_CHECKING:
    from submitit import Executor, Job
    from submitit.helpers import DelayedSubmission

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d\d?))?(?::(?P<third>\d\d?))?")
_OWN = {
    "time": "--time",
    "job_name": "--name",
    "gpus_per_node": "--gpus-per-worker",
    "cpus_per_task": "--cpus-per-worker",
    "mem": "--memory",
    "partition": "--partition",
    "signal": "--notice",
    "array": "--workers",
}
"""What ``--sbatch`` may not say, since an option of ours does."""

_BEFORE_THE_LIMIT = (signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmOptions:
    """What SLURM is asked for, for each worker.

    Attributes:
        workers: Jobs; more than one make an array.
        minutes: Time limit of a job; it goes on as another one.
        gpus: GPUs of a worker.
        cpus: CPU cores of a worker, None for the cluster's default.
        memory: Memory of a worker in GiB, None for the cluster's default.
        partition: Partition, None for the default one.
        name: The job's name.
        log_folder: Folder of scripts and logs; all nodes must see it.
        notice: Seconds between the signal and the time limit.
        requeues: How often a job whose time is over is put into the queue again.
        setup: Lines of shell before the worker starts, such as ``module load cuda``.
        sbatch: Other ``#SBATCH`` parameters by name.
    """

    workers: int = 1
    minutes: int
    gpus: int = 1
    cpus: int | None = None
    memory: float | None = None
    partition: str | None = None
    name: str = "tuner"
    log_folder: Path
    notice: int = 120
    requeues: int = 100
    setup: tuple[str, ...] = ()
    sbatch: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"--workers must be at least 1, got {self.workers}")
        if self.gpus < 0:
            raise UsageError(f"--gpus-per-worker must be 0 or more, got {self.gpus}")
        if self.notice < 30:
            raise UsageError(
                f"--notice {self.notice} s is too short", why="a worker needs up to 20 s to save and leave"
            )
        if self.minutes * 60 <= self.notice:
            raise UsageError(
                f"--time of {self.minutes} min is not longer than --notice {self.notice} s", fix="raise --time"
            )
        for name in self.sbatch:
            if own := _OWN.get(name.replace("-", "_")):
                raise UsageError(f"--sbatch {name} is not passed on", fix=f"say it with {own}")

    @property
    def parameters(self) -> dict[str, Any]:
        """The same as submitit's SLURM executor calls it."""
        named = {
            "job_name": self.name,
            "time": self.minutes,
            "nodes": 1,
            "ntasks_per_node": 1,
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
            "mem": None if self.memory is None else f"{round(self.memory * 1024)}M",
            "partition": self.partition,
            "signal_delay_s": self.notice,
            "array_parallelism": self.workers,
            "stderr_to_stdout": True,
            "setup": list(self.setup) or None,
            "additional_parameters": {"requeue": True, **self.sbatch},
        }
        return {name: value for name, value in named.items() if value is not None}


def parse_minutes(text: str) -> int:
    """A time limit as SLURM writes it, in minutes: ``90``, ``30:00``, ``4:00:00``, ``2-12``, ``1-06:30``.

    Raises:
        UsageError: If it is none of these.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise UsageError(f'--time: minutes, 4:00:00 or 1-12:00:00 expected, got "{text}"')
    first, second, third = (int(match[name] or 0) for name in ("first", "second", "third"))
    if match["days"] is not None:
        seconds = int(match["days"]) * 86400 + first * 3600 + second * 60 + third
    elif match["third"] is not None:
        seconds = first * 3600 + second * 60 + third
    else:
        seconds = first * 60 + second
    if seconds == 0:
        raise UsageError(f'--time "{text}" is no time at all')
    return -(-seconds // 60)


class WorkerJob:
    """What a job does; submitit pickles it, so it holds names and paths and no password."""

    def __init__(self, command: WorkerCommand) -> None:
        """Prepare.

        Args:
            command: What the worker is told.
        """
        self.command = command

    def __call__(self) -> str:
        """Serve until the studies are done.

        Returns:
            How it ended. A job that is put into the queue again does not return.

        Raises:
            RuntimeError: If the worker fails in a way that another job does not mend.
        """
        from submitit import JobEnvironment

        usual = signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
        requeue = signal.getsignal(usual)
        with noted(*_BEFORE_THE_LIMIT, signal.SIGTERM, signal.SIGINT) as came:
            status = serve(self.command, is_asked_to_leave=lambda: bool(came))
        if set(came) & set(_BEFORE_THE_LIMIT) or (came and _is_preempted()):
            assert callable(requeue)
            requeue(usual, None)  # submitit's own: pickles what `checkpoint` says, requeues, and ends this process
        if came:
            return f"left on {came[0].name}"
        if status != 0:
            raise RuntimeError(f"the worker ended with status {status}; its last words are above")
        return "the studies are done"

    def checkpoint(self) -> DelayedSubmission:
        """What goes on after this job: the same again. Trials and checkpoints are not its business."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _is_preempted() -> bool:
    """Whether SLURM took the node away, rather than somebody cancelled the job: both send SIGTERM."""
    job, tool = os.environ.get("SLURM_JOB_ID"), shutil.which("scontrol")
    if job is None or tool is None:
        return False
    shown = subprocess.run(
        [tool, "--oneliner", "show", "job", job], capture_output=True, text=True, timeout=60, check=False
    )
    stamp = re.search(r"\bPreemptTime=(\S+)", shown.stdout)
    return stamp is not None and stamp[1] not in {"None", "Unknown", "N/A"}


def script(options: SlurmOptions) -> str:
    """The script that :func:`submit` gives to ``sbatch``; SLURM need not be installed. The command is in a file beside it.

    Raises:
        ConfigurationError: If submitit is not installed.
    """
    submitit = _submitit()

    class _Anywhere(submitit.SlurmExecutor):  # type: ignore[name-defined, misc]
        @classmethod
        def affinity(cls) -> int:
            return 2

    executor = _Anywhere(folder=options.log_folder, max_num_timeout=options.requeues)
    executor.update_parameters(**options.parameters)
    if options.workers > 1:
        executor.parameters["map_count"] = options.workers
    return str(executor._make_submission_file_text(executor._submitit_command_str, ""))  # noqa: SLF001 - has no public twin


def submit(command: WorkerCommand, *, options: SlurmOptions) -> list[Job[str]]:
    """Give the jobs to SLURM.

    Raises:
        ConfigurationError: If submitit is not installed.
        UnavailableError: If SLURM is not, or it refuses the jobs.
    """
    submitit = _submitit()
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UnavailableError(
            "sbatch is not installed here", fix="run this on a login node of the cluster, or add --dry-run or --local"
        )
    executor = submitit.SlurmExecutor(folder=options.log_folder, max_num_timeout=options.requeues)
    executor.update_parameters(**options.parameters)
    try:
        return _batch(executor, command, workers=options.workers)
    except submitit.core.utils.FailedJobError as error:
        raise UnavailableError(
            "sbatch refused the jobs", why=(str(error).strip().splitlines() or ["it said nothing"])[-1]
        ) from error


def run_here(command: WorkerCommand, *, options: SlurmOptions) -> list[Job[str]]:
    """Run the jobs as processes of this machine, with the same signals before the time limit: to try them out.

    Raises:
        ConfigurationError: If submitit is not installed.
    """
    executor = _submitit().LocalExecutor(folder=options.log_folder, max_num_timeout=options.requeues)
    executor.update_parameters(
        timeout_min=options.minutes,
        gpus_per_node=options.gpus,
        signal_delay_s=options.notice,
        stderr_to_stdout=True,
        setup=list(options.setup),
    )
    return _batch(executor, command, workers=options.workers)


def last_words(job: Job[str]) -> str:
    """The worker's own line about why it failed, else the last one of the job's log."""
    lines = [line.strip() for line in (job.stdout() or "").splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (said or lines or ["its log is empty"])[-1]


def _batch(executor: Executor, command: WorkerCommand, *, workers: int) -> list[Job[str]]:
    with no_secrets_in_environment():
        with executor.batch():
            jobs = [executor.submit(WorkerJob(command)) for _ in range(workers)]
        return list(jobs)


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ConfigurationError("SLURM needs submitit", fix="pip install 'submitit>=1.5.2'") from error
    return submitit


def names(jobs: Sequence[Job[str]]) -> str:
    """The jobs as ``squeue --job`` wants them: an array's by its own number."""
    return ",".join(dict.fromkeys(str(job.job_id).partition("_")[0] for job in jobs))
