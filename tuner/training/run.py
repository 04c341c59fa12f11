"""One trial from end to end: from a plan to a result."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tuner.errors import TrialError, TrialInfeasible, TrialOutOfMemory, first_line
from tuner.strategies.state import count_parameters, load_trainable_state, trainable_state
from tuner.study.constraints import read_constraints
from tuner.study.plan import TestScore, TrialPlan, TrialResult, Verdict
from tuner.tasks import TASKS
from tuner.training.adapt import Adapted, adapt
from tuner.training.averaging import Average
from tuner.training.batches import Examples, TokenExamples
from tuner.training.cache import WarmCache, model_key
from tuner.training.checkpoint import FINAL, Checkpoint, Checkpoints, open_checkpoint
from tuner.training.data import StudyData, load_data, load_labels
from tuner.training.device import (
    Compute,
    choose_compute,
    circumstances,
    peak_memory,
    start_measuring_memory,
)
from tuner.training.distill import Lessons, load_lessons
from tuner.training.evaluate import evaluate
from tuner.training.features import frozen_position, load_features, replayed
from tuner.training.history import History
from tuner.training.interrupt import Interrupted, Released, stop_if_told
from tuner.training.loop import Fitted, Progress, Report, Run, train
from tuner.training.memory import is_out_of_memory
from tuner.training.model import load_base, load_tokenizer
from tuner.training.objective import Objective
from tuner.training.optimizer import build_optimizer, load_optimizer_state
from tuner.training.remote import checkpoints_of
from tuner.training.settings import Settings, run_identity

Started = Callable[[Mapping[str, Any]], None]
"""Told once, when the model stands, what it is and where it runs."""

Recall = Callable[[int, Mapping[str, float]], None]
"""Told what an earlier attempt has measured."""


def _ignore(*_: object) -> None:
    """Nobody listens."""


def run_trial(
    plan: TrialPlan,
    *,
    report: Report,
    progress: Progress = _ignore,
    started: Started = _ignore,
    recall: Recall = _ignore,
    released: Released = _ignore,
    fitted: Fitted = _ignore,
    cache: WarmCache | None = None,
) -> TrialResult:
    """Train one run of one trial, or go on with it from its newest checkpoint.

    Args:
        plan: What is trained.
        report: Told ``(epoch, metrics, device seconds of this attempt)`` after every epoch, when its checkpoint is on
            disk; says how to go on. A resumed run reports its last epoch once more, first.
        progress: Told ``(epoch, share of it)`` a few times a second.
        started: Told once, when the model stands, its parameters, the device and the versions.
        recall: Told ``(epoch, metrics)`` of all epochs before the last when a run goes on: the checkpoint knows them, and a
            database that was gone may never have heard of them.
        released: Asked before every step, between the stages of the preparation and between their batches; a verdict
            ends the attempt at once, the last epoch's checkpoint is there.
        fitted: Told how many rows fit into the memory at once, each time they turn out to be fewer than the plan says.
        cache: What the runner keeps warm between trials; None starts cold.

    Returns:
        How the run ended; with no epoch if a verdict came before the model stood and its checkpoint was looked for. In
        the folder of this attempt a pruned run leaves nothing, a complete one the weights of the epoch that counts;
        after any other verdict everything is left for the next attempt. Folders of earlier attempts are only read, but for
        damaged checkpoints, which are set aside.

    Raises:
        TrialOutOfMemory: If the memory does not allow it, with one row at a time or outside of the steps; the last epoch's
            checkpoint is left for another attempt, which may find more memory in another process.
        TrialInfeasible: If the method does not allow it; nothing is left in the folder of this attempt.
        TrialDiverged: If a loss, gradient or prediction is not finite; nothing is left either.
        PlaceError: If a checkpoint finds no room, or no answer from its object store; the one before is as it was.
        DataError: If the rows cannot be used.
        ConfigurationError: If the model cannot be used.
    """
    attempt = _Attempt(
        begin=time.perf_counter(),
        plan=plan,
        compute=choose_compute(plan.spec.training.precision),
        checkpoints=checkpoints_of(plan, moves=released),
        cache=WarmCache() if cache is None else cache,
    )
    start_measuring_memory(attempt.compute.device)
    with attempt.ended_well(micro_batch=Settings.of(plan).micro_batch, fitted=fitted) as remember:
        try:
            trial = _prepare(attempt, released=released, fitted=remember)
            started(trial.facts)
            _refuse_what_breaks(plan, facts=trial.facts)
            return _run(trial, report=report, progress=progress, recall=recall, released=released)
        except Interrupted as interrupt:
            return _nothing_done(interrupt.verdict, attempt)


def _refuse_what_breaks(plan: TrialPlan, *, facts: Mapping[str, Any]) -> None:
    """End a run that breaks a constraint before its first step, by what is known once the model stands.

    Raises:
        TrialInfeasible: If it does.
    """
    for constraint in read_constraints(plan.spec.constraints):
        value = facts.get(constraint.name)
        if value is not None and constraint.excess(value) > 0:
            raise TrialInfeasible(constraint.why(value), why="nothing was trained")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Attempt:
    """What an attempt has before anything is read."""

    plan: TrialPlan
    compute: Compute
    checkpoints: Checkpoints
    cache: WarmCache
    begin: float

    @contextlib.contextmanager
    def ended_well(self, *, micro_batch: int, fitted: Fitted) -> Iterator[Fitted]:
        """See that bad ends leave what they should, and that memory that ran out anywhere is told as such.

        Args:
            micro_batch: Rows that should fit into the memory at once.
            fitted: Told if they do not.

        Yields:
            What to tell instead of ``fitted``.
        """
        fits = micro_batch

        def remember(fewer: int) -> None:
            nonlocal fits
            fits = fewer
            fitted(fewer)

        try:
            yield remember
        except TrialOutOfMemory:
            raise
        except TrialError:
            self.checkpoints.clear()  # tried again it would end the same way
            raise
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrialOutOfMemory(
                f"out of memory on {self.compute.name} with batch size {self.plan.params.get('batch_size')} and up to "
                f"{self.plan.spec.training.max_length} tokens",
                why=first_line(error),
                fix="lower training.max_length, or take a smaller model",
                micro_batch=max(fits // 2, 1),
            ) from error
        finally:
            self.checkpoints.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    """A trial that is ready to run: model, data and the place of its checkpoints."""

    plan: TrialPlan
    settings: Settings
    compute: Compute
    cache: WarmCache
    data: StudyData
    adapted: Adapted
    starts: Mapping[str, Tensor]
    lessons: Lessons | None
    pad: int
    identity: str
    checkpoints: Checkpoints
    facts: Mapping[str, Any]
    fitted: Fitted
    begin: float


def _prepare(attempt: _Attempt, *, released: Released, fitted: Fitted) -> _Trial:
    """Data, then the model, adapted and on its device."""
    plan, compute, cache = attempt.plan, attempt.compute, attempt.cache
    spec, settings = plan.spec, Settings.of(plan)
    stop_if_told(released)
    tokenizer = load_tokenizer(spec, cache=cache)
    pad = int(tokenizer.pad_token_id)
    stop_if_told(released)
    labels = load_labels(spec, cache=cache)
    stop_if_told(released)
    base = load_base(spec, task=TASKS[spec.task], labels=labels, pad=pad, cache=cache)
    stop_if_told(released)
    data = load_data(
        spec,
        tokenizer=tokenizer,
        labels=labels,
        balance=settings.balance,
        with_test=plan.score_test,
        cache=cache,
        fold=plan.fold,
        released=released,
    )
    stop_if_told(released)
    lessons = load_lessons(plan, rows=data.train, labels=labels, compute=compute, cache=cache, released=released)
    stop_if_told(released)
    adapted = adapt(base, strategy=plan.strategy, params=plan.params, dropout=settings.dropout, seed=plan.seed)
    model = adapted.model.to(compute.device)
    trainable, total = count_parameters(model)
    facts: dict[str, Any] = {
        "trainable_params": trainable,
        "total_params": total,
        "device": compute.name,
        "precision": str(compute.dtype).removeprefix("torch."),
        "micro_batch": settings.micro_batch,
        "data": data.fingerprint(),
        "rows": [len(data.train), len(data.validation)],
        "weights": base.fingerprint,
        "teacher": "" if lessons is None else lessons.fingerprint,
        **circumstances(),
    }
    return _Trial(
        plan=plan,
        settings=settings,
        compute=compute,
        cache=cache,
        data=data,
        adapted=adapted,
        starts=adapted.starts() if settings.l2_sp else {},
        lessons=lessons,
        pad=pad,
        identity=run_identity(plan, model=facts["weights"], data=facts["data"], teacher=facts["teacher"]),
        checkpoints=attempt.checkpoints,
        facts=facts,
        fitted=fitted,
        begin=attempt.begin,
    )


def _run(trial: _Trial, *, report: Report, progress: Progress, recall: Recall, released: Released) -> TrialResult:
    """Train on token ids, or on the vectors of a frozen backbone where they are as good."""
    rows = {
        name: TokenExamples.on(trial.compute.device, rows=part, pad=trial.pad)
        for name in ("train", "validation", "test", "held_back")
        if (part := getattr(trial.data, name)) is not None
    }
    stop_if_told(released)
    position = frozen_position(trial.adapted.model, examples=rows["validation"], compute=trial.compute)
    if position is None:
        return _train(trial, rows, report=report, progress=progress, recall=recall, released=released)
    spec = trial.plan.spec
    features = {
        name: load_features(
            trial.adapted.model,
            position=position,
            examples=examples,
            base_key=model_key(spec.model, spec.revision),
            compute=trial.compute,
            cache=trial.cache,
            released=released,
        )
        for name, examples in rows.items()
    }
    with replayed(trial.adapted.model):
        return _train(trial, features, report=report, progress=progress, recall=recall, released=released)


def _train(
    trial: _Trial,
    rows: Mapping[str, Examples],
    *,
    report: Report,
    progress: Progress,
    recall: Recall,
    released: Released,
) -> TrialResult:
    """Find the checkpoint to go on from, train, and draw up the result."""
    plan, settings = trial.plan, trial.settings
    run = _assemble(trial, rows)
    checkpoint, skipped = run.checkpoints.adopt_newest(plan.resume_from, identity=run.identity)
    history = History(rules=settings.rules)
    verdict = Verdict.GO_ON
    if checkpoint is not None:
        history = _resume(run, checkpoint)
        for epoch, metrics in enumerate(history.epochs[:-1], start=1):
            recall(epoch, metrics)
        verdict = report(len(history.epochs), history.epochs[-1], time.perf_counter() - trial.begin)
    ended_by = verdict.value
    if verdict is Verdict.GO_ON:
        ended_by = train(run, history=history, report=report, progress=progress, released=released)
    return _result(
        trial,
        run,
        history=history,
        ended_by=ended_by,
        unseen={name: rows[name] for name in ("test", "held_back") if name in rows},
        notes=(*trial.data.notes, *skipped),
        released=released,
    )


def _assemble(trial: _Trial, rows: Mapping[str, Examples]) -> Run:
    """All that the loop needs, before anything was trained."""
    plan, settings, weights = trial.plan, trial.settings, trial.data.class_weights
    objective = Objective(
        model=trial.adapted.model,
        strategy=trial.adapted.strategy,
        params=plan.params,
        task=TASKS[plan.spec.task],
        train=rows["train"],
        class_weights=None if weights is None else weights.to(trial.compute.device),
        starts=trial.starts,
        teacher=None if trial.lessons is None else trial.lessons.logits,
        scaler=trial.compute.scaler(),
        compute=trial.compute,
        settings=settings,
    )
    return Run(
        objective=objective,
        trained=trial.adapted.trained,
        validation=rows["validation"],
        labels=trial.data.labels,
        optimizer=build_optimizer(
            trial.adapted.model,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            kind=settings.optimizer,
            factors=trial.adapted.strategy.learning_rates(trial.adapted.model, plan.params),
        ),
        average=Average(trial.adapted.model, names=trial.adapted.trained, decay=settings.ema),
        identity=trial.identity,
        checkpoints=trial.checkpoints,
        started=trial.begin,
        fitted=trial.fitted,
    )


def _resume(run: Run, checkpoint: Checkpoint) -> History:
    """Put everything back as it was after the checkpoint's epoch."""
    objective = run.objective
    load_trainable_state(objective.model, checkpoint.weights(), names=run.trained)
    moments = run.average.resume(checkpoint.optimizer())
    load_optimizer_state(run.optimizer, objective.model, moments)
    objective.scaler.load_state_dict(dict(checkpoint.state["scaler"]))
    return History.from_json(checkpoint.state["history"], rules=objective.settings.rules)


def _result(
    trial: _Trial,
    run: Run,
    *,
    history: History,
    ended_by: str,
    unseen: Mapping[str, Examples],
    notes: tuple[str, ...],
    released: Released,
) -> TrialResult:
    """Keep what must be kept, score the rows that the search never sees if asked, and say how it went."""
    kept, scores, metric = "", dict[str, TestScore | None](), trial.plan.spec.lead.metric
    if ended_by in {"epochs", "patience"} and trial.plan.checkpoint_dir:
        kept = _keep_best(run, history)
        scores = {name: _score_unseen(run, rows, metric=metric, released=released) for name, rows in unseen.items()}
    elif ended_by == Verdict.PRUNE.value:
        run.checkpoints.clear()
    return TrialResult(
        ended_by=ended_by,
        epochs=len(history.epochs),
        best_epoch=history.best_epoch,
        metrics=dict(history.best),
        confusion=history.confusion,
        test=scores.get("test"),
        held_back=scores.get("held_back"),
        checkpoint=kept,
        trainable_params=trial.facts["trainable_params"],
        total_params=trial.facts["total_params"],
        peak_memory=peak_memory(trial.compute.device),
        seconds=time.perf_counter() - trial.begin,
        device=trial.compute.name,
        notes=notes,
        micro_batches=tuple(history.parts),
    )


def _nothing_done(verdict: Verdict, attempt: _Attempt) -> TrialResult:
    """The result of an attempt that was told to end while it was prepared."""
    return TrialResult(
        ended_by=verdict.value,
        epochs=0,
        best_epoch=0,
        metrics={},
        trainable_params=0,
        total_params=0,
        peak_memory=peak_memory(attempt.compute.device),
        seconds=time.perf_counter() - attempt.begin,
        device=attempt.compute.name,
    )


def _keep_best(run: Run, history: History) -> str:
    """Put the weights of the epoch that counts into the model and into the final checkpoint; where that is."""
    final = run.checkpoints.folder / FINAL
    if final.exists():  # the run was complete when it was resumed, and these are the weights it was resumed with
        return run.checkpoints.place_of(final)
    model = run.objective.model
    if history.best_epoch < len(history.epochs) or run.average.is_kept:  # else the model has them
        best = open_checkpoint(run.checkpoints.epoch_path(history.best_epoch))
        load_trainable_state(model, best.weights(), names=run.trained)
    return run.checkpoints.finish(state=run.state(history), weights=trainable_state(model, names=run.trained))


def _score_unseen(run: Run, rows: Examples, *, metric: str, released: Released) -> TestScore | None:
    objective = run.objective
    scores = evaluate(
        objective.model,
        task=objective.task,
        examples=rows,
        labels=run.labels,
        compute=objective.compute,
        moves=released,
        by_row=metric,
    )
    if scores is None:
        return None
    return TestScore(
        metrics=scores.metrics,
        confusion=scores.confusion,
        predictions=scores.predictions,
        truth=tuple(rows.targets.tolist()),
        by_row=scores.by_row,
    )
