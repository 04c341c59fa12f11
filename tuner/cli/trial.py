"""``tuner trial``: one trial of a study."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.options import Files, Json, Reason, Storage
from tuner.cli.output import emit, line, message, next_steps, terminal_width
from tuner.errors import UsageError

if TYPE_CHECKING:
    from tuner.store.records import TrialStory


class Recipe(Enum):
    """What a recipe is printed as."""

    YAML = "yaml"
    PYTHON = "python"


TrialNumber = Annotated[int, typer.Argument(metavar="N", min=0, show_default=False, help="the trial's number")]
StudyOf = Annotated[str, typer.Argument(metavar="STUDY", show_default=False, help="the study")]

app = typer.Typer(
    help="""Look at one trial, end it, or run it again.

\b
Examples:
  tuner trial show my-study 7
  tuner trial logs my-study 7
  tuner trial stop my-study 7 --reason "diverging"
  tuner trial retry my-study 3 5
  tuner trial retry my-study 7 --exact
""",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def show(
    *,
    study: StudyOf,
    number: TrialNumber,
    recipe: Annotated[
        Recipe | None,
        typer.Option("--recipe", show_default=False, help="print what makes it again: a study file, or a script"),
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Show one trial: its state and why, its values, each attempt at it, its epochs, and what happened to it.

    A recipe is the trial alone: a study file with every value fixed, for tuner study create, or a Python script that trains it without a
    database and compares the curve with the recorded one.

    \b
    Examples:
      tuner trial show my-study 7
      tuner trial show my-study 7 --json | jq '.trial.attempts[] | {state, reason, host}'
      tuner trial show my-study 7 --recipe yaml > again.yaml
      tuner trial show my-study 7 --recipe python > again.py
    """
    if recipe is not None:
        from tuner import reproduction

        if as_json:
            raise UsageError("--recipe and --json exclude each other", fix="leave one out")
        typer.echo(reproduction.trial_recipe(study, number=number, form=recipe.value, storage=storage), nl=False)
        return
    from tuner.cli.documents import story_document
    from tuner.cli.trial_views import story_lines

    story = _load(study, number=number, storage=storage)
    if as_json:
        emit(story_document(story))
        return
    for text in story_lines(story, width=terminal_width()):
        line(text)


@app.command()
def logs(
    *,
    study: StudyOf,
    number: TrialNumber,
    attempt: Annotated[
        int | None, typer.Option("--attempt", metavar="K", min=1, show_default=False, help="else the newest with a log")
    ] = None,
    files: Files = None,
    storage: Storage = None,
) -> None:
    """Print the last lines that an attempt at a trial wrote.

    The database keeps them of attempts that ended badly. Of one that runs on this box, the log of its slot is read.

    \b
    Examples:
      tuner trial logs my-study 7
      tuner trial logs my-study 7 --attempt 1
    """
    from tuner.cli import trial_logs
    from tuner.store import location

    story = _load(study, number=number, storage=storage)
    found = trial_logs.find(story, attempt=attempt, files=location.files_dir(files, location.storage_url(storage)))
    message(found.about)
    for text in found.lines:
        line(text)


def _load(study: str, *, number: int, storage: str | None) -> TrialStory:
    from tuner.store import location, queries
    from tuner.store.database import Database

    with Database.open(location.storage_url(storage)) as database:
        return queries.load_trial(database, study, number)


@app.command()
def stop(*, study: StudyOf, number: TrialNumber, reason: Reason = "", storage: Storage = None) -> None:
    """End one trial as pruned: what it has reported so far counts.

    Its worker sees it at its next sign of life (see --heartbeat) and stops within a training step.

    \b
    Examples:
      tuner trial stop my-study 7
      tuner trial stop my-study 7 --reason "learns nothing"
    """
    from tuner import live
    from tuner.store.records import Outcome

    outcome = live.stop_trial(study, number=number, reason=reason, storage=storage)
    if outcome is Outcome.RUNNING:
        message(f"trial {number} of study {study} ends at its worker's next sign of life")
    else:
        message(f"trial {number} of study {study} is {outcome.value}")
    next_steps(f"tuner study trials {study}", storage=storage)


@app.command()
def retry(
    *,
    study: StudyOf,
    numbers: Annotated[list[int], typer.Argument(metavar="N...", min=0, show_default=False, help="the trials")],
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="train what has a result once more, here, and say whether it is the same bit for bit"
        ),
    ] = False,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Run trials again that ended badly: each under its number, with its values, from its beginning.

    Only errored, infeasible and diverged ones, and those that the budget cut. Of a trial that has a result, such re-trainings run
    again. A study that is finished goes on.

    With --exact trials that are complete, pruned or diverged are trained once more on this box, with the same seed, values, threads and
    parts of batches, and compared with what was recorded. Nothing of the study changes. The status is 1 if one of them is not the same.

    \b
    Examples:
      tuner trial retry my-study 3
      tuner trial retry my-study 3 5 8
      tuner trial retry my-study 7 --exact
      tuner trial retry my-study 7 --exact --json | jq .trials[0].difference
    """
    if exact:
        _retry_exactly(study, numbers, storage=storage, as_json=as_json)
        return
    if as_json:
        raise UsageError("--json needs --exact", fix="see: tuner trial show STUDY N --json")
    from tuner import live

    state = live.retry_trials(study, numbers=numbers, storage=storage)
    which = f"trial{'s' if len(numbers) > 1 else ''} {', '.join(str(number) for number in numbers)}"
    message(f"{which} of study {study} wait{'' if len(numbers) > 1 else 's'} for a worker (study {state.value})")
    step = f"tuner worker start --study {study} --until-done" if state.is_open else f"tuner study resume {study}"
    next_steps(step, storage=storage)


def _retry_exactly(study: str, numbers: list[int], *, storage: str | None, as_json: bool) -> None:
    """``tuner trial retry --exact``."""
    from tuner import reproduction
    from tuner.cli.documents import repetition_document
    from tuner.report.repetition import repetition_lines

    found = []
    for number in dict.fromkeys(numbers):

        def show(epoch: int, is_equal: bool, number: int = number) -> None:
            message(f"trial {number}: epoch {epoch} {'is the same' if is_equal else 'differs'}")

        found.append(reproduction.repeat_trial(study, number=number, storage=storage, show=show))
        if not as_json:
            for text in repetition_lines(found[-1]):
                line(text)
    if as_json:
        emit({"name": study, "trials": [repetition_document(one) for one in found]})
    if not all(one.is_equal for one in found):
        raise typer.Exit(1)
