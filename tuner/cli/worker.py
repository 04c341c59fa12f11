"""``tuner worker``: who trains."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.options import Checkpoints, Files, Json, Storage, UntilDone
from tuner.cli.output import emit, line, message, next_steps, terminal_width

if TYPE_CHECKING:
    from tuner.worker.supervisor import WorkerSummary

Lease = Annotated[
    float, typer.Option("--lease", metavar="SECONDS", help="a trial of a dead worker is taken over after this")
]
HeartbeatInterval = Annotated[
    float, typer.Option("--heartbeat", metavar="SECONDS", help="between two signs of life; a third of --lease at most")
]
HangAfter = Annotated[
    float,
    typer.Option(
        "--hang-after", metavar="SECONDS", help="a silent run is never ended before this; its stacks are kept"
    ),
]
OutageBudget = Annotated[
    float,
    typer.Option("--outage", metavar="SECONDS", help="a database that is gone is waited for so long; training goes on"),
]
AllowSkew = Annotated[
    bool,
    typer.Option(
        "--allow-skew", help="serve studies that other code made, or whose rows or weights are others by now, too"
    ),
]

app = typer.Typer(
    help="""Train trials here, and see who trains.

\b
Examples:
  tuner worker start --study my-study --until-done
  tuner worker start --devices cuda:0,1 --per-device 2
  tuner worker list
  tuner worker drain --host gpu-box
""",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def start(
    *,
    study: Annotated[
        list[str] | None,
        typer.Option("--study", metavar="NAME", show_default=False, help="serve this study (again for more); else all"),
    ] = None,
    devices: Annotated[
        str, typer.Option("--devices", metavar="LIST", help="auto (all GPUs, else the CPU), cpu, or cuda:0,1")
    ] = "auto",
    per_device: Annotated[int, typer.Option("--per-device", metavar="N", help="trials at once on each device")] = 1,
    until_done: UntilDone = False,
    max_trials: Annotated[
        int | None, typer.Option("--max-trials", metavar="N", show_default=False, help="return after this many runs")
    ] = None,
    lease: Lease = 90.0,
    heartbeat: HeartbeatInterval = 15.0,
    hang_after: HangAfter = 300.0,
    outage: OutageBudget = 900.0,
    allow_skew: AllowSkew = False,
    files: Files = None,
    checkpoints: Checkpoints = None,
    storage: Storage = None,
) -> None:
    """Take trials from the database and train them, until stopped or done.

    Start as many workers as you have boxes: they share the work through the database. Ctrl-C or SIGTERM checkpoints
    the running trials and gives them back; any worker goes on from there. With --until-done the status is 3 if a served
    study finished with no complete trial.

    \b
    Examples:
      tuner worker start --study my-study --until-done
      tuner worker start --devices cuda:0,1 --per-device 2
      TUNER_STORAGE=postgresql://tuner@db/tuner tuner worker start
    """
    from tuner.store import location
    from tuner.worker import supervisor
    from tuner.worker.display import choose_display
    from tuner.worker.options import WorkerOptions

    url = location.storage_url(storage)
    options = WorkerOptions(
        storage=url,
        files=location.files_dir(files, url),
        checkpoints=location.checkpoint_place(checkpoints),
        studies=tuple(dict.fromkeys(study or ())),
        devices=devices,
        per_device=per_device,
        until_done=until_done,
        max_trials=max_trials,
        lease=lease,
        heartbeat=heartbeat,
        hang_after=hang_after,
        outage=outage,
        allow_skew=allow_skew,
    )
    summary = supervisor.run_worker(options, display=choose_display(sys.stderr))
    status = conclude(summary, storage=storage)
    raise typer.Exit(130 if summary.interrupted else status)


def conclude(summary: WorkerSummary, *, storage: str | None) -> int:
    """Say what came of a worker's studies and what to do next; return the exit status."""
    from tuner import api
    from tuner.store.records import StudyState

    status = 0
    steps: list[str] = []
    message(f"this worker ended {summary.trials} run{'s' if summary.trials != 1 else ''}")
    for name, state in summary.studies.items():
        study = api.load_study(name, storage=storage).study
        complete = study.counts["complete"]
        if state is StudyState.FINISHED and not complete:
            message(f"study {name} finished with no complete trial")
            steps.append(f"tuner study trials {name}")
            status = 3
        elif state is StudyState.PAUSED:
            message(f"study {name} is paused: {study.state_reason}")
            steps += [f"tuner study trials {name}", f"tuner study resume {name}"]
            status = 1
        elif state is StudyState.STOPPED:
            message(f"study {name} is stopped: {study.state_reason}")
            steps += [f"tuner study best {name}", f"tuner study resume {name}"]
        elif state is StudyState.FINISHED:
            message(f"study {name} is finished ({study.state_reason})")
            steps += [f"tuner study best {name}", f"tuner study report {name}"]
        elif state.is_open:
            steps += [f"tuner worker start --study {name} --until-done", f"tuner study show {name}"]
    next_steps(*steps[:4], storage=storage)
    return status


@app.command("list")
def list_(*, storage: Storage = None, as_json: Json = False) -> None:
    """List the workers of the database: where they run, what on, and when they were last seen.

    \b
    Examples:
      tuner worker list
      tuner worker list --json
    """
    from tuner.cli.documents import worker_document
    from tuner.cli.views import workers_lines
    from tuner.store import location, queries
    from tuner.store.clock import read_clock
    from tuner.store.database import Database

    with Database.open(location.storage_url(storage)) as database:
        workers, now = queries.list_workers(database), read_clock(database)
    if as_json:
        emit({"workers": [worker_document(worker) for worker in workers]})
        return
    if not workers:
        message("no worker is alive")
        next_steps("tuner worker start", storage=storage)
        return
    for text in workers_lines(workers, now=now, width=terminal_width()):
        line(text)


@app.command()
def drain(
    *,
    worker: Annotated[
        str | None, typer.Argument(metavar="[ID]", show_default=False, help="the worker's id, or its beginning")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="H", show_default=False, help="all workers of this host")
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="all workers")] = False,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Ask workers to give their trials back and to end.

    They see it at their next sign of life (see --heartbeat), release what they run with its checkpoint, and exit with status 0. Any other
    worker goes on from there.

    \b
    Examples:
      tuner worker drain 3f2a90c1
      tuner worker drain --host gpu-box
      tuner worker drain --all
    """
    from tuner import live
    from tuner.cli.documents import worker_document

    asked = live.drain_workers(worker=worker, host=host, everyone=everyone, storage=storage)
    if as_json:
        emit({"workers": [worker_document(one) for one in asked]})
        return
    for one in asked:
        message(f"worker {one.worker} on {one.host} drains at its next sign of life")
    if not asked:
        message("no worker is alive")
    next_steps("tuner worker list", storage=storage)
