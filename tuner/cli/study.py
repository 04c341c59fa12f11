"""``tuner study``: what is asked, what happened, and the answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli import control
from tuner.cli.options import Json, Storage, StudyFile, StudyName, UntilDone
from tuner.cli.output import emit, is_terminal, line, message, next_steps, terminal_width
from tuner.errors import NotFoundError, StudyFileError, UsageError

app = typer.Typer(
    help="""Ask a question, see what happened, get the answer.

\b
Examples:
  tuner study check my-study.yaml
  tuner study create my-study.yaml
  tuner study watch my-study --until-done
  tuner study best my-study --json
  tuner study report my-study report.html
  tuner study set my-study --trials 60
""",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _refuse_data(file: Path) -> None:
    if file.suffix.lower() in {".csv", ".tsv", ".jsonl", ".parquet"}:
        raise UsageError(f"{file} is a data file, not a study file; see: tuner study schema, README.md")


@app.command()
def check(
    *,
    file: StudyFile,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, help="slots that will serve it, for the hours by the clock")
    ] = 1,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong with a study file, what it will do, and what that will cost; stores nothing.

    Every strategy is tried on the shapes of the model. The cost is told where the database has trials of the same model.

    \b
    Examples:
      tuner study check my-study.yaml
      tuner study check my-study.yaml --workers 8
      tuner study check my-study.yaml --json
    """
    from tuner import api
    from tuner.cli import check as pages
    from tuner.cli.learnt import lesson_words
    from tuner.prospect import expect_cost

    _refuse_data(file)
    try:
        spec, found = api.check_study(file, storage=storage)
    except StudyFileError as error:
        if not as_json:
            raise
        emit(pages.broken_document(error.problems))
        raise typer.Exit(error.exit_code) from error
    cost = expect_cost(found, workers=workers, storage=storage)
    if as_json:
        emit(pages.check_document(spec, found, cost))
        raise typer.Exit(StudyFileError.exit_code if found.problems else 0)
    for warning in found.warnings:
        message(f"{file}{f':{warning.line}:{warning.column}' if warning.line else ''}: warning: {warning.message}")
    if found.problems:
        raise StudyFileError(found.problems, source=str(file))
    learns = lesson_words(found, storage=storage)
    for text in pages.check_lines(spec, found, cost=cost, learns=learns, width=terminal_width()):
        line(text)
    next_steps(f"tuner study create {file}")


@app.command()
def create(*, file: StudyFile, storage: Storage = None, as_json: Json = False) -> None:
    """Check a study file and store its question, ready for workers. Safe to run again.

    \b
    Examples:
      tuner study create my-study.yaml
      tuner study create my-study.yaml --storage postgresql://tuner@db/tuner
    """
    from tuner import api
    from tuner.cli.documents import study_row
    from tuner.cli.learnt import learnt_documents, learnt_words
    from tuner.study.names import count_noun

    _refuse_data(file)
    study, is_new = api.store_study(file, storage=storage)
    if as_json:
        emit({"created": is_new, "study": study_row(study), "learnt": learnt_documents(study.space)})
        return
    trials = sum(study.counts.values())
    there = f"already there, {count_noun(trials, 'trial')}"
    line(f"study {study.name} is {'ready' if is_new else there} ({study.state.value})")
    if words := learnt_words(study):
        line(words)
    if study.state.is_open:
        steps = (f"tuner worker start --study {study.name} --until-done", f"tuner study watch {study.name}")
    else:
        steps = (f"tuner study show {study.name}", f"tuner study report {study.name}")
    next_steps(*steps, storage=storage)


@app.command("list")
def list_(*, storage: Storage = None, as_json: Json = False) -> None:
    """List the studies of the database.

    \b
    Examples:
      tuner study list
      tuner study list --json
    """
    from tuner.cli.documents import study_row
    from tuner.cli.views import studies_lines
    from tuner.store import location
    from tuner.store.clock import read_clock
    from tuner.store.database import Database
    from tuner.store.studies import list_studies, list_unreadable

    with Database.open(location.storage_url(storage)) as database:
        studies, unreadable, now = list_studies(database), list_unreadable(database), read_clock(database)
    for problem in unreadable:
        message(str(problem))
    if as_json:
        emit({"studies": [study_row(study) for study in studies]})
        return
    if not studies:
        message("no studies yet" if not unreadable else "no other studies")
        next_steps("tuner study create FILE", storage=storage)
        return
    for text in studies_lines(studies, now=now, width=terminal_width()):
        line(text)


@app.command()
def show(*, name: StudyName, storage: Storage = None, as_json: Json = False) -> None:
    """Show the state of a study: trials by outcome, the best so far, the finalists.

    \b
    Examples:
      tuner study show my-study
      tuner study show my-study --json | jq .best
    """
    from tuner import api
    from tuner.cli.documents import study_document
    from tuner.cli.views import has_worker, is_interrupted, running_lines, study_lines, worker_command
    from tuner.store.records import StudyState

    snapshot = api.load_study(name, storage=storage)
    if as_json:
        emit(study_document(snapshot))
        return
    for text in [*study_lines(snapshot), *(running_lines(snapshot) if is_interrupted(snapshot) else ())]:
        line(text)
    if snapshot.study.state.is_open and not has_worker(snapshot):
        next_steps(worker_command(snapshot), storage=storage)
    elif snapshot.study.state.is_open:
        next_steps(f"tuner study watch {name}", storage=storage)
    else:
        back = () if snapshot.study.state is StudyState.FINISHED else (f"tuner study resume {name}",)
        next_steps(*back, f"tuner study trials {name}", f"tuner study report {name}", storage=storage)


@app.command()
def watch(
    *,
    name: StudyName,
    until_done: UntilDone = False,
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="seconds between two looks")] = 2.0,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Follow a study as it goes; off a terminal, one line for each change.

    It returns when the study is finished. With --until-done it returns also when the study is paused or stopped, and with status 3
    if no trial is complete.

    \b
    Examples:
      tuner study watch my-study
      tuner study watch my-study | tee progress.log
      tuner study watch my-study --json            one JSON document a line
    """
    from tuner.cli import watch as follow

    study = follow.follow(name, until_done=until_done, interval=interval, storage=storage, as_json=as_json)
    if until_done and not study.counts["complete"]:
        message(f"study {name} is {study.state.value} with no complete trial")
        next_steps(f"tuner study trials {name}", storage=storage)
        raise typer.Exit(3)


@app.command()
def best(*, name: StudyName, storage: Storage = None, as_json: Json = False) -> None:
    """Print the verdict, then the winner: its strategy and hyperparameters, and what that choice stands on.

    Of several objectives the winner is the best by the first one, and the front follows: no trial is better than one of it in everything.

    Status 3 if the study is finished and no trial is complete, 4 if none is complete yet.

    \b
    Examples:
      tuner study best my-study
      tuner study best my-study --json | jq .best.params
    """
    from tuner import api
    from tuner.cli.documents import best_document
    from tuner.cli.fronts import front_document, front_lines
    from tuner.cli.verdict import verdict_document, verdict_lines
    from tuner.cli.views import number, winner_words
    from tuner.report.summary import early_end, summarise
    from tuner.report.verdict import choose_winner
    from tuner.store.fronts import find_front

    snapshot = api.load_study(name, storage=storage)
    winner, front = choose_winner(snapshot), find_front(snapshot.trials, spec=snapshot.study.spec)
    if winner is None:
        error = NotFoundError(f'study "{name}" has no complete trial', fix=f"look closer: tuner study trials {name}")
        if snapshot.study.state.is_open:
            raise error
        message(f"error: {error}")
        raise typer.Exit(3)
    if as_json:
        emit(
            {
                "name": name,
                "best": best_document(winner, snapshot.study.metric),
                "verdict": verdict_document(summarise(snapshot)),
                "front": front_document(front),
            }
        )
        return
    summary = summarise(snapshot)
    line(summary.headline)
    for text in (*winner_words(winner, snapshot.study.metric), *verdict_lines(summary), *early_end(summary.study)):
        line(text)
    for key, value in sorted(winner.trial.params.items()):
        line(f"  {key:<18} {number(value)}")
    if winner.weights:
        line(f"  {'weights':<18} {winner.weights}")
        if winner.weights_seed is not None:
            line(
                f"  {'':<18} re-trained with seed {winner.weights_seed}, the best of its fresh seeds by the rows that chose it"
            )
    if front is not None:
        line("")
        for text in front_lines(front, width=terminal_width()):
            line(text)
    next_steps(f"tuner study report {name}", storage=storage)


@app.command()
def trials(
    *,
    name: StudyName,
    state: Annotated[
        str | None, typer.Option("--state", metavar="STATE", help="only complete, pruned, diverged, errored, ...")
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """List the trials of a study: each with its state and why it is in it.

    \b
    Examples:
      tuner study trials my-study
      tuner study trials my-study --state errored
      tuner study trials my-study --json | jq '.trials[] | select(.state == "complete")'
    """
    from tuner import api
    from tuner.cli.documents import OUTCOMES, trial_document
    from tuner.cli.views import trials_lines
    from tuner.study.names import did_you_mean

    if state is not None and state not in OUTCOMES:
        hint = did_you_mean(state, OUTCOMES) or f"; use one of {', '.join(OUTCOMES)}"
        raise UsageError(f'--state: no state "{state}"{hint}')
    snapshot = api.load_study(name, storage=storage)
    chosen = [trial for trial in snapshot.trials if state is None or trial.outcome.value == state]
    if as_json:
        emit({"name": name, "trials": [trial_document(trial, snapshot.study.metric) for trial in chosen]})
        return
    if not chosen:
        message(f"study {name} has no {f'{state} ' if state else ''}trials")
        return
    for text in trials_lines(chosen, snapshot.study, width=terminal_width()):
        line(text)


@app.command()
def report(
    *,
    name: StudyName,
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", show_default=False, help="file to write; else NAME.html")
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Write the answer as one HTML page that needs no network; print where it is, and the verdict on stderr.

    \b
    Examples:
      tuner study report my-study
      tuner study report my-study /tmp/report.html
      tuner study report my-study --json | jq -r .headline
    """
    from tuner import api
    from tuner.report import summarise, write_report

    snapshot = api.load_study(name, storage=storage)
    written = write_report(snapshot, path or Path(f"{name}.html"))
    headline = summarise(snapshot).headline
    if as_json:
        emit({"name": name, "path": str(written), "headline": headline})
        return
    line(str(written))
    message(headline)


@app.command()
def delete(
    *,
    name: StudyName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be deleted; change nothing")] = False,
    storage: Storage = None,
) -> None:
    """Delete a study and its trials from the database; checkpoints on disk stay.

    \b
    Examples:
      tuner study delete old-study --dry-run
      tuner study delete old-study --yes
    """
    from tuner.store import location, studies
    from tuner.store.database import Database
    from tuner.study.names import count_noun

    with Database.open(location.storage_url(storage)) as database:
        counts = studies.count_trials(database, name)
        what = f"study {name} with {count_noun(sum(counts.values()), 'trial')} from {database.safe_url}"
        if dry_run:
            line(f"would delete {what}")
            return
        if counts["running"]:
            message(f"{count_noun(counts['running'], 'trial')} in training will be dropped by their workers")
        if not yes:
            if not is_terminal(sys.stdin):
                raise UsageError("delete needs --yes when not on a terminal", fix=f"tuner study delete {name} --yes")
            if not typer.confirm(f"delete {what}?", err=True):
                message("nothing was deleted")
                raise typer.Exit(1)
        studies.delete_study(database, name)
    line(f"deleted {what}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of study files, for completion in an editor.

    \b
    Examples:
      tuner study schema > study.schema.json
      echo '# yaml-language-server: $schema=study.schema.json' | cat - my-study.yaml
    """
    import json

    from tuner import api
    from tuner.study.schema import study_schema

    line(json.dumps(study_schema(api.catalogue()), indent=2))


app.command()(control.pause)
app.command()(control.resume)
app.command()(control.stop)
app.command("set")(control.change)
app.command()(control.enqueue)
