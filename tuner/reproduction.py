"""The functions of ``import tuner`` that make a trial again; the command line calls the same ones.

A repetition runs on this box, in a process of its own, and leaves nothing behind but an event of its trial: the study's results are what
they were.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.report.repetition import Repetition
    from tuner.store.records import TrialStory
    from tuner.study.domains import Value
    from tuner.study.plan import TeacherPlan, TrialPlan, Verdict
    from tuner.study.spec import StudySpec
    from tuner.worker.once import Once

    Train = Callable[[TrialPlan, Mapping[str, Any], Callable[[int, Mapping[str, float]], Verdict]], Once]

Shown = Callable[[int, bool], None]
"""Told of each epoch whether it is what it was."""


def repeat_trial(name: str, *, number: int, storage: str | None = None, show: Shown | None = None) -> Repetition:
    """Train a trial once more, here, with its seed, values, epochs, threads and parts of batches, and compare the curves bit for bit.

    On a CPU the curves are equal, whatever the trial went through: it may have been resumed, and its batches split on the way. What was
    pruned is trained as far as it had come. The study's results, its budget and its checkpoints are not touched.

    Args:
        name: The study.
        number: A trial that is complete, pruned or diverged.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.
        show: Told of each epoch, and whether all of its metrics are what they were.

    Returns:
        Whether it is reproduced; if not, where the curves part, and what was other in the trial's surroundings.

    Raises:
        NotFoundError: If there is no such study or trial.
        ConflictError: If the trial has no curve: it is not over, or ended in another way.
        ConfigurationError: If the trial that teaches the study is gone.
        UnavailableError: If the database cannot be reached, or no process can be started.

    Example:
        >>> import tuner
        >>> tuner.repeat_trial("example", number=0, storage="sqlite:///tuner.db").is_equal
        True
    """
    return _repeat(name, number=number, storage=storage, show=show, train=_in_a_process)


def _in_a_process(
    plan: TrialPlan, facts: Mapping[str, Any], report: Callable[[int, Mapping[str, float]], Verdict]
) -> Once:
    from tuner.worker.once import place_like, train_once

    return train_once(plan, place=place_like(facts), report=report)


def _repeat(name: str, *, number: int, storage: str | None, show: Shown | None, train: Train) -> Repetition:
    from tuner.report.repetition import Repetition, attempts_that_count, changes_since, first_difference, what_happened
    from tuner.search.teacher import plan_teacher
    from tuner.source import this_code
    from tuner.store import control, location, queries, trial_control
    from tuner.store.database import Database
    from tuner.study.plan import TrialPlan, Verdict

    with Database.open(location.storage_url(storage)) as database:
        story = queries.load_trial(database, name, number)
        _require_curve(story)
        teacher = plan_teacher(database, spec=story.study.spec)
    trial, metric = story.trial, story.study.metric
    then = [dict(record.metrics) for record in trial.epochs]
    known = [one.facts for one in attempts_that_count(trial)]
    plan = TrialPlan(
        spec=story.study.spec,
        number=number,
        strategy=trial.strategy,
        params=trial.params,
        seed=trial.seed,
        checkpoint_dir="",
        teacher=teacher,
        micro_batches=_parts(story),
    )
    now: list[dict[str, float]] = []

    def _report(epoch: int, metrics: Mapping[str, float]) -> Verdict:
        now.append(dict(metrics))
        if show is not None:
            show(epoch, first_difference(then[epoch - 1 : epoch], now[epoch - 1 :], metric=metric) is None)
        return Verdict.PRUNE if _is_cut(story) and epoch == len(then) else Verdict.GO_ON

    once = train(plan, known[-1] if known else {}, _report)
    found = Repetition(
        study=name,
        number=number,
        outcome=trial.outcome,
        ended_as=once.outcome,
        reason=once.reason,
        epochs=min(len(then), len(now)),
        difference=first_difference(then, now, metric=metric),
        changes=changes_since(trial, {**once.facts, "code": this_code()}),
        is_recorded=bool(known),
        seconds=once.seconds,
    )
    with Database.open(location.storage_url(storage)) as database:
        trial_control.note_repeated(database, story, what_happened(found), who=control.this_person())
    return found


def _is_cut(story: TrialStory) -> bool:
    """Whether a trial was stopped on its way: its repetition stops there, too."""
    from tuner.store.records import Outcome

    return story.trial.outcome is Outcome.PRUNED


def _parts(story: TrialStory) -> tuple[tuple[int, int], ...]:
    """How the batches of a trial were split; from its beginning on, where no more is known."""
    trial = story.trial
    if trial.micro_batches:
        return trial.micro_batches
    sizes = [int(attempt.facts["micro_batch"]) for attempt in trial.attempts if "micro_batch" in attempt.facts]
    return ((0, sizes[-1]),) if sizes else ()


def _require_curve(story: TrialStory) -> None:
    """See that there is something to compare with.

    Raises:
        ConflictError: If there is not.
    """
    from tuner.errors import ConflictError
    from tuner.store.records import Outcome

    trial, study = story.trial, story.study.name
    has_curve = trial.outcome in (Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED)
    if has_curve and (trial.epochs or trial.outcome is Outcome.DIVERGED):
        return
    again = trial.outcome in (Outcome.ERRORED, Outcome.INFEASIBLE)
    raise ConflictError(
        f"trial {trial.number} of study {study} is {trial.outcome.value}",
        why="only what is complete, pruned or diverged can be compared"
        if not has_curve
        else "it has reported no epoch",
        fix=f"run it again: tuner trial retry {study} {trial.number}"
        if again
        else f"see: tuner trial show {study} {trial.number}",
    )


def trial_recipe(name: str, *, number: int, form: str = "yaml", storage: str | None = None) -> str:
    """A trial as a text that makes it again: a study file with every value fixed, or a Python script that compares the curves, too.

    Args:
        name: The study.
        number: The trial.
        form: ``yaml`` (for :func:`create_study`) or ``python``.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Raises:
        NotFoundError: If there is no such study or trial.
        ConflictError: If the trial has no values yet.
        UsageError: If there is no such form.
        UnavailableError: If the database cannot be reached.

    Example:
        >>> import tuner
        >>> text = tuner.trial_recipe("example", number=0, storage="sqlite:///tuner.db")
        >>> "confirm:" in text, "name: example-trial-0" in text
        (True, True)
    """
    from tuner.errors import ConflictError, UsageError
    from tuner.report.repetition import attempts_that_count
    from tuner.store import location, queries
    from tuner.store.database import Database
    from tuner.store.records import Outcome
    from tuner.study import reprint

    if form not in ("yaml", "python"):
        raise UsageError(f'a recipe is yaml or python, not "{form}"')
    with Database.open(location.storage_url(storage)) as database:
        story = queries.load_trial(database, name, number)
        # The same rows judge all of them; what ended early may have counted none itself.
        others = () if story.trial.confusion is not None else queries.load_snapshot(database, name).trials
    trial = story.trial
    counted = (one.confusion.counts for one in (trial, *others) if one.confusion is not None)
    judged = next((sum(map(sum, counts)) for counts in counted), None)
    if not trial.strategy:
        raise ConflictError(f"trial {number} of study {name} has no values yet", why=f"it is {trial.outcome.value}")
    known = [one.facts for one in attempts_that_count(trial)]
    again = reprint.Reprint(
        spec=story.study.spec,
        number=number,
        strategy=trial.strategy,
        params=trial.params,
        seed=trial.seed,
        micro_batches=_parts(story),
        facts=known[-1] if known else {},
        curve=[dict(record.metrics) for record in trial.epochs],
        is_cut=trial.outcome is not Outcome.COMPLETE,
        judged_rows=judged,
        why_infeasible=trial.reason if trial.outcome is Outcome.INFEASIBLE else "",
    )
    return reprint.as_yaml(again) if form == "yaml" else reprint.as_script(again)


def train_trial(
    study: str | os.PathLike[str] | Mapping[str, Any],
    *,
    strategy: str,
    values: Mapping[str, Value],
    seed: int | None = None,
    threads: int | None = None,
    micro_batches: Sequence[Sequence[int]] = (),
    stop_after: int | None = None,
    storage: str | None = None,
) -> list[dict[str, float]]:
    """Train one configuration of a study in this process, without storing anything.

    Args:
        study: A study file, or its content as a mapping.
        strategy: The strategy, combination or sequence.
        values: Absolute values by name, such as ``{"learning_rate": 3e-4, "lora.r": 8}``; what is left out has its default.
        seed: Of the weights, the order of the rows and the dropout; None: ``training.seed``, which also splits the rows.
        threads: CPU threads; sums over more of them differ in their last digits. None: as many as torch takes.
        micro_batches: ``(step, rows)``: from which step on how many rows are on the device at once; none: whole batches.
        stop_after: Epochs after which it is over; None: all.
        storage: Database URL, in which a trial that is to teach is looked up.

    Returns:
        The metrics of each epoch.

    Raises:
        TunerError: If the study has mistakes, its rows cannot be used, or the training diverges or cannot run.

    Example:
        >>> import tuner
        >>> epochs = tuner.train_trial("study.yaml", strategy="head", values={"learning_rate": 1e-3})
        >>> len(epochs), "accuracy" in epochs[0]
        (1, True)
    """
    from tuner.study.plan import TrialPlan, Verdict, parts_from_json
    from tuner.training.device import use_threads
    from tuner.training.run import run_trial

    spec = _read(study)
    if threads is not None:
        use_threads(threads)
    curve: list[dict[str, float]] = []

    def _report(epoch: int, metrics: Mapping[str, float], _seconds: float) -> Verdict:
        curve.append(dict(metrics))
        return Verdict.STOP if epoch == stop_after else Verdict.GO_ON

    plan = TrialPlan(
        spec=spec,
        number=0,
        strategy=strategy,
        params=values,
        seed=spec.training.seed if seed is None else seed,
        checkpoint_dir="",
        teacher=_teacher(spec, storage),
        micro_batches=parts_from_json(micro_batches),
    )
    run_trial(plan, report=_report)
    return curve


def _read(study: str | os.PathLike[str] | Mapping[str, Any]) -> StudySpec:
    from tuner.api import catalogue
    from tuner.study import file

    if isinstance(study, Mapping):
        return file.validate_study(study, catalogue=catalogue())
    return file.load_study_file(os.fspath(study), catalogue=catalogue())


def _teacher(spec: StudySpec, storage: str | None) -> TeacherPlan | None:
    """What teaches a study; a database is opened only where it is a trial."""
    from tuner.study.plan import TeacherPlan
    from tuner.study.teacher import named_trial

    if spec.distill is None:
        return None
    if named_trial(spec.distill.teacher) is None:
        return TeacherPlan(model=spec.distill.teacher, revision=spec.distill.revision)
    from tuner.search.teacher import plan_teacher
    from tuner.store import location
    from tuner.store.database import Database

    with Database.open(location.storage_url(storage)) as database:
        return plan_teacher(database, spec=spec)
