"""``tuner demo``: a real study from the question to the report, in a folder of its own."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.output import line, message, next_steps
from tuner.errors import UnavailableError
from tuner.study.names import count_noun

if TYPE_CHECKING:
    from tuner.store.records import StudyRecord

STUDY_FILE = "quickstart.yaml"


def run(
    *,
    folder: Annotated[Path, typer.Option("--folder", metavar="DIR", help="where the demo keeps everything")] = Path(
        "tuner-demo"
    ),
    devices: Annotated[str, typer.Option("--devices", metavar="LIST", help="auto, cpu, or cuda:0,1")] = "auto",
    per_device: Annotated[
        int | None,
        typer.Option(
            "--per-device",
            metavar="N",
            show_default=False,
            help="trials at once on each device; else 1 on a GPU, one for each of up to 4 cores",
        ),
    ] = None,
) -> None:
    """Run a small real study from its question to its report: a few minutes on two cores.

    A tiny BERT learns to sort Reuters news with four strategies. Stop it or kill it at any time; the same command goes
    on where it was.

    \b
    Examples:
      tuner demo
      tuner demo --folder /tmp/demo --devices cpu
    """
    from tuner import api
    from tuner.worker import supervisor
    from tuner.worker.display import choose_display
    from tuner.worker.options import WorkerOptions

    file = _prepare(folder)
    storage = f"sqlite:///{folder / 'tuner.db'}"
    study = api.create_study(file, storage=storage)
    _greet(study, file=file, storage=storage)
    if study.state.is_open:
        options = WorkerOptions(
            storage=storage,
            files=(folder / "tuner-files").absolute(),
            studies=(study.name,),
            devices=devices,
            per_device=per_device or _trials_at_once(devices),
            until_done=True,
        )
        summary = supervisor.run_worker(options, display=choose_display(sys.stderr))
        if summary.studies[study.name].is_open:
            message("the demo is not finished; run it again and it goes on where it is")
            next_steps(_again(folder))
            raise typer.Exit(130)
    _finish(study.name, folder=folder, storage=storage)


def _trials_at_once(devices: str) -> int:
    """One on a GPU. On a CPU one for each core: a model as small as this cannot keep two busy."""
    from tuner.worker.devices import find_slots

    place = find_slots(devices, per_device=1)[0]
    return min(place.threads, 4) if place.is_cpu else 1


def _prepare(folder: Path) -> Path:
    """The folder with its study file; a file that is there already is kept, so that an edited one counts."""
    file = folder / STUDY_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            shutil.copyfile(shipped_study(STUDY_FILE), file)
    except OSError as error:
        raise UnavailableError(f"cannot use the folder {folder}", why=error.strerror or str(error)) from error
    return file


def shipped_study(name: str) -> Path:
    """A study file that came with tuner: inside the installed package, or in the source tree.

    Raises:
        UnavailableError: If this installation has none.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "studies", package.parent / "studies"):
        if (folder / name).is_file():
            return folder / name
    raise UnavailableError(f"this installation has no {name}", fix="install tuner again from its wheel or a clone")


def _greet(study: StudyRecord, *, file: Path, storage: str) -> None:
    done = sum(study.counts.values())
    if not study.state.is_open:
        message(f"the demo in {file.parent} is done already")
    elif done:
        message(f"study {study.name}: going on after {count_noun(done, 'trial')}")
    else:
        message(f"study {study.name}: which of {', '.join(study.space.names)} gives the best {study.metric}?")
        message(f"  model     {study.spec.model}")
        message(f"  file      {file}")
        message(f"  database  {storage}")


def _finish(name: str, *, folder: Path, storage: str) -> None:
    from tuner import api
    from tuner.report import summarise

    snapshot = api.load_study(name, storage=storage)
    report = api.write_report(name, path=folder / "report.html", storage=storage)
    summary = summarise(snapshot)
    line(summary.headline)
    for sentence in summary.sentences:
        for text in textwrap.wrap(sentence, width=78, initial_indent="  ", subsequent_indent="  "):
            line(text)
    line(f"report: {report}")
    next_steps(
        f"tuner study trials {name} --storage {storage}",
        f"tuner study best {name} --storage {storage}",
        f"tuner dashboard --storage {storage}",
    )
    message(f"to start over: rm -r {folder} && {_again(folder)}")
    if summary.winner is None:
        raise typer.Exit(3)


def _again(folder: Path) -> str:
    return "tuner demo" if folder == Path("tuner-demo") else f"tuner demo --folder {folder}"
