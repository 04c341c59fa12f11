"""Studies made up for the report's tests: they look like a search of four strategies on eight classes of news."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from tuner.report.comparison import OUTCOMES
from tuner.store.records import (
    AttemptRecord,
    BudgetUse,
    ConfirmationRecord,
    EpochRecord,
    FinalistRecord,
    Outcome,
    StudyRecord,
    StudySnapshot,
    StudyState,
    TrialRecord,
)
from tuner.study.domains import Choice, Fixed, Range, Value
from tuner.study.hyperparameters import RELATIVE_LEARNING_RATE
from tuner.study.plan import Confusion, TestScore
from tuner.study.space import SearchSpace, StrategySpace
from tuner.study.spec import StudySpec

LABELS = ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade")
SHARES = (0.29, 0.055, 0.51, 0.01, 0.035, 0.04, 0.02, 0.04)
START = 1_790_000_000.0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a strategy behaves: the score it tends to, how fast, what an epoch costs and what it trains."""

    prior: float
    ceiling: float
    speed: float
    seconds: float
    params: int
    own: dict[str, Range | Choice] = field(default_factory=dict)


KINDS = {
    "head": Kind(prior=2e-3, ceiling=0.79, speed=0.35, seconds=0.4, params=1_032),
    "bitfit": Kind(prior=1e-3, ceiling=0.922, speed=0.6, seconds=3.1, params=4_104),
    "lora": Kind(
        prior=8e-4,
        ceiling=0.934,
        speed=0.7,
        seconds=3.6,
        params=12_296,
        own={"lora.r": Choice(options=(4, 8, 16, 32)), "lora.dropout": Range(low=0.0, high=0.2)},
    ),
    "full": Kind(prior=1e-4, ceiling=0.931, speed=1.0, seconds=4.4, params=4_386_952),
}


def make_space(strategies: tuple[str, ...] = tuple(KINDS)) -> SearchSpace:
    """The space of the sample study."""
    return SearchSpace(
        strategies=tuple(
            StrategySpace(
                strategy=name,
                prior=KINDS[name].prior,
                domains={
                    RELATIVE_LEARNING_RATE: Range(low=-1.5, high=1.5),
                    "batch_size": Choice(options=(8, 16, 32)),
                    "weight_decay": Range(low=1e-4, high=0.3, log=True),
                    "schedule": Fixed(value="linear"),
                    "warmup_ratio": Fixed(value=0.06),
                    **KINDS[name].own,
                },
                recipe={RELATIVE_LEARNING_RATE: 0.0, "batch_size": 16, "weight_decay": 0.01},
            )
            for name in strategies
        )
    )


def make_spec(*, name: str = "reuters-r8", test: bool = True, epochs: int = 9, trials: int = 30) -> StudySpec:
    """The study file of the sample study."""
    return StudySpec.model_validate(
        {
            "name": name,
            "task": "text-classification",
            "model": "prajjwal1/bert-tiny",
            "data": {"train": "data/r8-train.csv", "test": "data/r8-test.csv" if test else None},
            "objective": {"metric": "macro_f1", "goal": "maximize"},
            "strategies": list(KINDS),
            "training": {"epochs": epochs},
            "budget": {"trials": trials},
        }
    )


def make_study(
    *,
    spec: StudySpec,
    trials: tuple[TrialRecord, ...] = (),
    state: StudyState = StudyState.FINISHED,
    reason: str = "budget of 30 trials is used",
    maximize: bool = True,
    space: SearchSpace | None = None,
) -> StudyRecord:
    """The record that goes with these trials."""
    counts = Counter(trial.outcome.value for trial in trials)
    seconds = sum(trial.seconds for trial in trials)
    return StudyRecord(
        study_id=1,
        uid="3f9a1c5e7b2d4f60",
        name=spec.name,
        spec=spec,
        space=space or make_space(),
        metric=spec.lead.metric,
        maximize=maximize,
        state=state,
        state_reason=reason,
        created_at=START,
        finished_at=START + 900.0 if state is StudyState.FINISHED else None,
        counts={outcome.value: counts[outcome.value] for outcome in OUTCOMES},
        used=BudgetUse(
            trials=len(trials),
            epochs=sum(len(trial.epochs) for trial in trials),
            gpu_seconds=seconds * 1.2,
            confirm_seconds=seconds * 0.2,
        ),
    )


def make_trial(
    number: int,
    *,
    strategy: str = "lora",
    outcome: Outcome = Outcome.COMPLETE,
    values: tuple[float, ...] = (0.5, 0.7, 0.8),
    seconds: float = 3.0,
    params: dict[str, Value] | None = None,
    reason: str = "",
    is_recipe: bool = False,
    resumed_at: int = 0,
    confusion: Confusion | None = None,
) -> TrialRecord:
    """A trial whose epochs reported ``values``; ``resumed_at`` is the epoch with which its second attempt began."""
    epochs = tuple(
        EpochRecord(
            epoch=index,
            metrics={
                "macro_f1": value,
                "accuracy": min(1.0, value + 0.04),
                "loss": 2.1 * (1.0 - value),
                "train_loss": 2.0 * (1.0 - value),
                "learning_rate": 1e-3,
            },
            seconds=seconds * index,
            attempt=2 if resumed_at and index >= resumed_at else 1,
        )
        for index, value in enumerate(values, start=1)
    )
    spent = seconds * max(len(values), 1)
    started = START + 10.0 * number
    value = None
    best = 1 + values.index(max(values)) if values else None
    if outcome is Outcome.COMPLETE:
        value = max(values)
    elif outcome is Outcome.PRUNED:
        value = values[-1]
    attempts = [_attempt(1, outcome=outcome, reason=reason, started=started, seconds=spent)]
    if resumed_at:
        lost = _attempt(1, outcome=Outcome.LOST, reason="its worker stopped answering", started=started, seconds=spent)
        attempts = [lost, replace(attempts[0], attempt=2)]
    return TrialRecord(
        number=number,
        outcome=outcome,
        reason=reason,
        strategy=strategy,
        params=params
        or {"learning_rate": 8e-4, "batch_size": 16, "weight_decay": 0.01, "schedule": "linear", "warmup_ratio": 0.06},
        is_recipe=is_recipe,
        value=value,
        best_epoch=best,
        epochs=epochs,
        attempts=tuple(attempts),
        seconds=spent,
        trainable_params=KINDS[strategy].params if strategy in KINDS else None,
        peak_memory=512 * 2**20 if values else None,
        confusion=confusion,
        checkpoint="",
        notes=("2 % of the texts were cut at 128 tokens",) if number == 0 else (),
        started_at=started,
        ended_at=None if outcome is Outcome.RUNNING else started + spent,
    )


def make_snapshot(*, trials: int = 30, seed: int = 7, test: bool = True, finalists: int = 3) -> StudySnapshot:
    """A finished study: recipes first, then random values; losers pruned, a few bad ends, finalists confirmed."""
    rng = random.Random(seed)
    spec = make_spec(test=test, trials=trials)
    records: list[TrialRecord] = []
    for number in range(trials):
        records.append(_search_trial(number, rng=rng, epochs=spec.training.epochs, earlier=records))
    ranked = sorted(
        (trial for trial in records if trial.outcome is Outcome.COMPLETE), key=lambda trial: -(trial.value or 0.0)
    )
    chosen = ranked[:finalists]
    baseline = max((trial for trial in ranked if trial.is_recipe), key=lambda trial: trial.value or 0.0, default=None)
    if chosen and baseline is not None and baseline not in chosen:
        chosen.append(baseline)
    truth, hardness = _test_rows(rows=2189, seed=seed)
    confirmed = tuple(
        FinalistRecord(
            number=trial.number,
            rank=rank,
            is_baseline=trial is baseline,
            runs=tuple(
                _confirm(trial, seed=1000 + index, truth=truth, hardness=hardness, test=test) for index in range(3)
            ),
        )
        for rank, trial in enumerate(chosen, start=1)
    )
    reason = f"budget of {trials} trials is used"
    study = make_study(spec=spec, trials=tuple(records), reason=reason)
    return StudySnapshot(study=study, trials=tuple(records), finalists=confirmed, read_at=START + 1000.0)


def quality(strategy: str, params: dict[str, Value]) -> float:
    """What a configuration can reach: less the further its learning rate is from the optimum."""
    kind = KINDS[strategy]
    offset = math.log10(float(params["learning_rate"]) / kind.prior) - 0.35
    rank = 0.006 * math.log2(float(params.get("lora.r", 8)) / 8)
    return kind.ceiling - 0.055 * offset**2 + rank - 0.004 * abs(math.log2(float(params["batch_size"]) / 16))


def make_test_score(
    truth: tuple[int, ...], predictions: tuple[int, ...], *, labels: tuple[str, ...] = LABELS
) -> TestScore:
    """A test score with its metrics as scikit-learn computes them."""
    counts = confusion_matrix(truth, predictions, labels=range(len(labels)))
    return TestScore(
        metrics={
            "macro_f1": float(f1_score(truth, predictions, average="macro", zero_division=0)),
            "accuracy": float(accuracy_score(truth, predictions)),
        },
        confusion=Confusion(labels=labels, counts=tuple(tuple(int(cell) for cell in row) for row in counts)),
        predictions=predictions,
        truth=truth,
    )


def make_finalist(
    number: int,
    *,
    rank: int,
    validation: tuple[float, ...],
    accuracy: tuple[float, ...] = (),
    rows: int = 200,
    is_baseline: bool = False,
) -> FinalistRecord:
    """A finalist with these fresh-seed scores; ``accuracy`` is the share of right test rows for each seed."""
    half = rows // 2
    truth = (0,) * half + (1,) * half
    runs = []
    for index, value in enumerate(validation):
        test = None
        if accuracy:
            right = round(accuracy[index] * half)
            # As many mistakes in either class, so that macro F1 is the accuracy.
            test = make_test_score(
                truth,
                ((0,) * right + (1,) * (half - right)) + ((1,) * right + (0,) * (half - right)),
                labels=("a", "b"),
            )
        runs.append(
            ConfirmationRecord(
                seed=1000 + index,
                outcome=Outcome.COMPLETE,
                reason="",
                metrics={"macro_f1": value},
                test=test,
                checkpoint="",
                seconds=1.0,
            )
        )
    return FinalistRecord(number=number, rank=rank, is_baseline=is_baseline, runs=tuple(runs))


def cut_short(
    finalist: FinalistRecord, *, kept: int, outcome: Outcome = Outcome.PRUNED, reason: str = "budget is used"
) -> FinalistRecord:
    """The finalist with only its first runs complete; the others ended like this, without a score."""
    cut = (
        replace(run, outcome=outcome, reason=reason, metrics={}, test=None) if place >= kept else run
        for place, run in enumerate(finalist.runs)
    )
    return replace(finalist, runs=tuple(cut))


def make_finalist_of_predictions(
    number: int, *, truth: tuple[int, ...], predictions: list[tuple[int, ...]]
) -> FinalistRecord:
    """A finalist with one run for each row of predictions."""
    finalist = make_finalist(number, rank=1, validation=(0.9,) * len(predictions))
    runs = tuple(
        replace(run, test=make_test_score(truth, found)) for run, found in zip(finalist.runs, predictions, strict=True)
    )
    return replace(finalist, runs=runs)


def _attempt(number: int, *, outcome: Outcome, reason: str, started: float, seconds: float) -> AttemptRecord:
    return AttemptRecord(
        attempt=number,
        worker="w-1",
        host="box-1",
        slot="cpu/0",
        outcome=outcome,
        reason=reason,
        started_at=started,
        ended_at=None if outcome is Outcome.RUNNING else started + seconds,
        seconds=seconds,
    )


def _propose(number: int, rng: random.Random) -> tuple[str, dict[str, Value]]:
    """The recipes in the order of the strategies, then random values, the better strategies more often."""
    names = list(KINDS)
    strategy = names[number] if number < len(names) else rng.choices(names, weights=(1, 3, 4, 4))[0]
    kind = KINDS[strategy]
    searched = number >= len(names)
    params: dict[str, Value] = {
        "learning_rate": kind.prior * 10 ** (rng.gauss(0.2, 0.6) if searched else 0.0),
        "batch_size": rng.choice((8, 16, 32)) if searched else 16,
        "weight_decay": 10 ** rng.uniform(-4, -0.5) if searched else 0.01,
        "schedule": "linear",
        "warmup_ratio": 0.06,
    }
    if strategy == "lora":
        params["lora.r"] = rng.choice((4, 8, 16, 32)) if searched else 8
        params["lora.dropout"] = rng.uniform(0.0, 0.2) if searched else 0.05
    return strategy, params


def _search_trial(number: int, *, rng: random.Random, epochs: int, earlier: list[TrialRecord]) -> TrialRecord:
    strategy, params = _propose(number, rng)
    kind = KINDS[strategy]
    reach = quality(strategy, params) + rng.gauss(0, 0.006)
    curve = [
        max(0.05, reach * (1 - math.exp(-kind.speed * (epoch + 0.4))) + rng.gauss(0, 0.006))
        for epoch in range(1, epochs + 1)
    ]
    seconds = kind.seconds * rng.uniform(0.9, 1.1)
    make = partial(make_trial, number, strategy=strategy, params=params, seconds=seconds, is_recipe=number < len(KINDS))
    if number == 9:
        return make(outcome=Outcome.ERRORED, values=tuple(curve[:2]), reason="loss became nan at epoch 3")
    if number == 17:
        return make(outcome=Outcome.INFEASIBLE, values=(), reason="out of memory at batch size 32")
    for rung in (1, 3):
        reached = [trial.epochs[rung - 1].metrics["macro_f1"] for trial in earlier if len(trial.epochs) >= rung]
        bound = float(np.quantile(reached, 0.45)) if len(reached) >= 4 else 0.0
        if curve[rung - 1] < bound and number >= len(KINDS):
            why = f"macro_f1 {curve[rung - 1]:.3f} at epoch {rung} is below the best half ({bound:.3f})"
            return make(outcome=Outcome.PRUNED, values=tuple(curve[:rung]), reason=why)
    truth, hardness = _test_rows(rows=823, seed=1)
    confusion = _score(truth, hardness, error=1.0 - reach, seed=number).confusion
    return make(values=tuple(curve), resumed_at=5 if number in {2, 10} else 0, confusion=confusion)


def _test_rows(*, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.choice(len(LABELS), p=np.array(SHARES) / sum(SHARES), size=rows), rng.uniform(size=rows)


def _score(truth: np.ndarray, hardness: np.ndarray, *, error: float, seed: int) -> TestScore:
    """Rows are missed where they are hard; a missed row goes to a neighbouring class."""
    rng = np.random.default_rng(seed)
    missed = hardness + rng.normal(0, 0.02, size=len(truth)) < error * 0.55
    predictions = np.where(missed, (truth + rng.choice((1, 2, 5), size=len(truth))) % len(LABELS), truth)
    return make_test_score(tuple(truth.tolist()), tuple(predictions.tolist()))


def _confirm(
    trial: TrialRecord, *, seed: int, truth: np.ndarray, hardness: np.ndarray, test: bool
) -> ConfirmationRecord:
    rng = random.Random(f"{trial.number}-{seed}")
    reach = quality(trial.strategy, dict(trial.params)) + rng.gauss(-0.004, 0.004)
    return ConfirmationRecord(
        seed=seed,
        outcome=Outcome.COMPLETE,
        reason="",
        metrics={"macro_f1": reach, "accuracy": min(1.0, reach + 0.04)},
        test=_score(truth, hardness, error=1.0 - reach, seed=seed + trial.number) if test else None,
        checkpoint="",
        seconds=trial.seconds,
    )
