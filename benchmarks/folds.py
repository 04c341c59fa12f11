"""Do the folds of the confirmation tell the truth? The product's own statistics, on rows whose truth is known.

    python benchmarks/folds.py --runs 200

Each run is a study of 400 rows drawn from a noisy problem of three classes, in five folds. Twelve configurations of a small network (learning
rate, width, decay) are trained and judged by fold 1; the best three and the default are trained again, with a fresh seed on each other fold. What
divides the rows, drops finalists, picks the winner and states number and interval is the product's code. The truth is the score of the winner on
20,000 new rows, as the mean over the same folds with two seeds that nobody has seen.

Beside it the same study whose folds choose the epoch that they judge, and the best value of the search as other tools report it ("naive").
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, the repository is not on the path

import numpy as np
from numpy.typing import NDArray

from tuner import contest
from tuner.training.data import fold_places

ROWS, NEW_ROWS, FOLDS, EPOCHS, BATCH = 400, 20_000, 5, 9, 16
INPUTS, CLASSES, NOISE = 12, 3, 0.15
FINALISTS, TRUTH_SEEDS = 3, 2

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A configuration: what is searched."""

    rate: float
    width: int
    decay: float


DEFAULT = Config(rate=0.1, width=16, decay=1e-3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Rows of one problem: those of the study, and new ones.

    Attributes:
        inputs: Of the study's rows, (rows, inputs).
        classes: Their classes, some of them wrong.
        folds: The 1-based fold of each.
        new_inputs: Of the new rows.
        new_classes: Their classes, as often wrong.
    """

    inputs: Floats
    classes: Ints
    folds: Ints
    new_inputs: Floats
    new_classes: Ints


@dataclass(kw_only=True, slots=True)
class Tally:
    """What happened in every run; scores in points of accuracy."""

    naive: list[float] = field(default_factory=list)
    optimism: list[float] = field(default_factory=list)
    covered: list[bool] = field(default_factory=list)
    half_width: list[float] = field(default_factory=list)
    gain: list[float] = field(default_factory=list)
    false_claim: list[bool] = field(default_factory=list)
    worse: list[bool] = field(default_factory=list)
    trainings: list[int] = field(default_factory=list)


def draw_problem(seed: int) -> Problem:
    """A problem of its own: a random network of one layer says the class, and some rows are labelled at random."""
    draw = np.random.default_rng([seed, 0])
    first, second = draw.normal(size=(INPUTS, 8)), draw.normal(size=(8, CLASSES))

    def rows(count: int) -> tuple[Floats, Ints]:
        inputs = draw.normal(size=(count, INPUTS))
        classes = np.argmax(np.tanh(inputs @ first) @ second, axis=1)
        wrong = draw.random(count) < NOISE
        classes[wrong] = draw.integers(0, CLASSES, size=int(wrong.sum()))
        return inputs, classes

    inputs, classes = rows(ROWS)
    new_inputs, new_classes = rows(NEW_ROWS)
    folds = fold_places(classes, folds=FOLDS, seed=seed)
    return Problem(inputs=inputs, classes=classes, folds=folds, new_inputs=new_inputs, new_classes=new_classes)


def draw_configs(seed: int, *, count: int = 11) -> list[Config]:
    """The default and random ones."""
    draw = np.random.default_rng([seed, 1])
    return [
        DEFAULT,
        *(
            Config(
                rate=10 ** draw.uniform(-2.5, 0.0),
                width=int(draw.choice([4, 8, 16, 32])),
                decay=10 ** draw.uniform(-5, -1.5),
            )
            for _ in range(count)
        ),
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A training.

    Attributes:
        curve: Accuracy in percent on the fold that judges, after each epoch.
        weights: Both layers after each epoch.
    """

    curve: list[float]
    weights: list[tuple[Floats, Floats]]

    @property
    def best_epoch(self) -> int:
        """0-based; the earliest of equals."""
        return int(np.argmax(self.curve))

    def on_new_rows(self, problem: Problem, *, epoch: int) -> float:
        """Accuracy in percent on rows that nobody has seen."""
        return accuracy(self.weights[epoch], problem.new_inputs, problem.new_classes)


def accuracy(weights: tuple[Floats, Floats], inputs: Floats, classes: Ints) -> float:
    """Of a network on some rows, in percent."""
    first, second = weights
    return 100.0 * float(np.mean(np.argmax(np.tanh(inputs @ first) @ second, axis=1) == classes))


def train(problem: Problem, config: Config, *, fold: int, seed: Sequence[int]) -> Trained:
    """Train on all folds but one, which judges every epoch; the learning rate falls to zero.

    Args:
        problem: The rows.
        config: The network.
        fold: The fold that judges.
        seed: Of the study and of the training: no two studies share one, for a lucky start is lucky on many problems.
    """
    draw = np.random.default_rng(seed)
    learnt, judged = np.flatnonzero(problem.folds != fold), problem.folds == fold
    first = draw.normal(size=(INPUTS, config.width)) / math.sqrt(INPUTS)
    second = draw.normal(size=(config.width, CLASSES)) / math.sqrt(config.width)
    batches = math.ceil(len(learnt) / BATCH)
    found = Trained(curve=[], weights=[])
    for epoch in range(EPOCHS):
        for index, rows in enumerate(np.array_split(draw.permutation(learnt), batches)):
            rate = config.rate * (1.0 - (epoch * batches + index) / (EPOCHS * batches))
            hidden = np.tanh(problem.inputs[rows] @ first)
            logits = hidden @ second
            error = np.exp(logits - logits.max(axis=1, keepdims=True))
            error /= error.sum(axis=1, keepdims=True)
            error[np.arange(len(rows)), problem.classes[rows]] -= 1.0
            error /= len(rows)
            back = (error @ second.T) * (1.0 - hidden**2)
            second = second - rate * (hidden.T @ error + config.decay * second)
            first = first - rate * (problem.inputs[rows].T @ back + config.decay * first)
        found.weights.append((first, second))
        found.curve.append(accuracy((first, second), problem.inputs[judged], problem.classes[judged]))
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A search that has ended.

    Attributes:
        seed: Of its rows.
        problem: Its rows.
        configs: Its configurations; the first is the default.
        naive: The configuration with the best value on fold 1.
        claimed: That value.
        epochs: For each finalist the 0-based epoch that counted.
    """

    seed: int
    problem: Problem
    configs: Sequence[Config]
    naive: int
    claimed: float
    epochs: Mapping[int, int]

    def pick_epoch(self, number: int, trained: Trained, *, by_fold: bool) -> int:
        """The epoch that counts in a re-training."""
        return trained.best_epoch if by_fold else self.epochs[number]

    def race(self, *, by_fold: bool) -> tuple[dict[int, list[float]], int]:
        """What each of the other folds says of those that finish the race, and how many trainings that took."""
        scores: dict[int, list[float]] = {number: [] for number in self.epochs}
        trainings = 0
        for fold in range(2, FOLDS + 1):
            for number, row in scores.items():
                trained = train(self.problem, self.configs[number], fold=fold, seed=[self.seed, 3, fold])
                row.append(trained.curve[self.pick_epoch(number, trained, by_fold=by_fold)])
                trainings += 1
            for number in contest.fallen(scores, spared=[0]):
                del scores[number]
        return scores, trainings

    def truth(self, number: int, *, by_fold: bool) -> float:
        """Accuracy on new rows, over the same folds with seeds that nobody has seen."""
        found = []
        for fold in range(2, FOLDS + 1):
            for again in range(TRUTH_SEEDS):
                trained = train(self.problem, self.configs[number], fold=fold, seed=[self.seed, 4, fold, again])
                epoch = self.pick_epoch(number, trained, by_fold=by_fold)
                found.append(trained.on_new_rows(self.problem, epoch=epoch))
        return statistics.fmean(found)


def search(seed: int) -> Study:
    """Train all configurations, judged by fold 1; the best of them and the default are finalists."""
    problem, configs = draw_problem(seed), draw_configs(seed)
    trained = [train(problem, config, fold=1, seed=[seed, 2, number]) for number, config in enumerate(configs)]
    ranked = sorted(range(len(configs)), key=lambda number: -max(trained[number].curve))
    finalists = dict.fromkeys([*ranked[:FINALISTS], 0])
    return Study(
        seed=seed,
        problem=problem,
        configs=configs,
        naive=ranked[0],
        claimed=max(trained[ranked[0]].curve),
        epochs={number: trained[number].best_epoch for number in finalists},
    )


def note(tally: Tally, study: Study, *, by_fold: bool) -> None:
    """Confirm a search, and hold what is stated against the truth."""
    scores, trainings = study.race(by_fold=by_fold)
    winner = contest.order(scores, favourite=0)[0]
    told = contest.expect(winner, choosing=scores, reported=scores, favourite=0)
    truth = {number: study.truth(number, by_fold=by_fold) for number in {winner, study.naive, 0}}
    ahead = contest.lead(scores[winner], scores[0], field=list(scores.values()))
    tally.naive.append(study.claimed - truth[study.naive])
    tally.optimism.append(told.value - truth[winner])
    if told.low is not None and told.high is not None:
        tally.covered.append(told.low <= truth[winner] <= told.high)
        tally.half_width.append((told.high - told.low) / 2.0)
    tally.gain.append(truth[winner] - truth[study.naive])
    tally.worse.append(truth[winner] < truth[0])
    tally.false_claim.append(
        winner != 0 and ahead.is_measured and ahead.p_value <= contest.LEVEL and truth[winner] < truth[0]
    )
    tally.trainings.append(trainings)


def mean_of(values: Sequence[float]) -> str:
    """A mean with the 95 % of it."""
    error = 1.96 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):+.2f} ± {error:.2f}"


def share_of(values: Sequence[bool]) -> str:
    """How many of a hundred."""
    return f"{100.0 * sum(values) / len(values):.1f} %"


def table(tallies: Mapping[str, Tally]) -> list[str]:
    """The figures, one line a way."""
    lines = [
        "| way | stated less truth | in the interval | half of it | gain over naive | worse than default | wrong claim | trainings |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, tally in tallies.items():
        cells = (
            name,
            mean_of(tally.optimism),
            share_of(tally.covered),
            f"{statistics.fmean(tally.half_width):.1f}",
            mean_of(tally.gain),
            share_of(tally.worse),
            share_of(tally.false_claim),
            f"{statistics.fmean(tally.trainings):.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    naive = next(iter(tallies.values())).naive
    return [*lines, f"naive, best value of the search: stated less truth {mean_of(naive)}"]


WAYS = {"as many epochs as in the search": False, "each fold chooses its epoch": True}


def measure(runs: int) -> dict[str, Tally]:
    """All ways on the same searches."""
    tallies = {name: Tally() for name in WAYS}
    for seed in range(runs):
        study = search(seed)
        for name, by_fold in WAYS.items():
            note(tallies[name], study, by_fold=by_fold)
    return tallies


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="studies")
    parser.add_argument("--json", type=Path, help="write the figures of each run here")
    options = parser.parse_args()
    tallies = measure(options.runs)
    print("\n".join(table(tallies)))
    if options.json is not None:
        options.json.write_text(
            json.dumps(
                {name: {what: getattr(tally, what) for what in Tally.__slots__} for name, tally in tallies.items()}
            )
        )


if __name__ == "__main__":
    main()
