"""How far can the winner of a study be trusted? The product's own confirmation, replayed on tables of several seeds.

    python benchmarks/honesty.py --runs 200
    python benchmarks/honesty.py --runs 200 --ablate

Each run is a study: 100 random configurations and the default recipe, one seed each, then the finalists again with fresh seeds. What chooses
the finalists, drops them from the race, picks the winner and states number, interval and tied set is the product's own code; only the
trainings are looked up. It is held against the top of the search as every other tool reports it ("naive").

Three ways to have fresh seeds. *Many*: tables of twenty seeds; the search has one, the finalists as many others as the product asks for,
and the truth is the mean of the fourteen that nobody has seen. *Drawn*: tables of five or three seeds, of which every seed is drawn
anew, with replacement, so the truth is their mean and known exactly; the same seed may be drawn twice, which real seeds never are, and makes
intervals look too narrow. *Held out*: the tables of five seeds; the search has one, the finalists have three, which is less than the product
asks for, and the truth is the last one: free of any model, and noisy, so an interval must hold that seed's own noise, too (it is
widened by it).

A study ends worse than the default recipe where the truth of its pick is lower, by however little. Where the truth is one seed, its luck
alone makes that happen; how often is told under *drawn*, where the same picks are judged once by the truth and once by one more drawn seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, the repository is not on the path

import numpy as np
from numpy.typing import NDArray

from tuner import contest
from tuner.report.standing import Standing, find_standing
from tuner.report.verdict import Winner, choose_winner, score_finalists
from tuner.search.confirm import choose_finalists, find_fallen, fresh_seeds
from tuner.store.records import (
    OUT_OF_THE_RACE,
    BudgetUse,
    ConfirmationRecord,
    FinalistRecord,
    Outcome,
    StudyRecord,
    StudySnapshot,
    StudyState,
    TrialRecord,
)
from tuner.study.space import SearchSpace, StrategySpace
from tuner.study.spec import StudySpec

DATA = Path(__file__).parent / "data" / "seeds"
SOURCES = {"many": DATA / "many.npz", "drawn": DATA / "seeds.npz", "held out": DATA / "seeds.npz"}
"""Where the tables of each way to have fresh seeds lie."""

TITLES = {"many": "many seeds", "drawn": "drawn seeds", "held out": "held out, 3 seeds"}
GOALS = {
    "optimism": "at most +0.10",
    "coverage": "90 to 97",
    "gain": "at least +0.25",
    "extra": "at most 20",
    "worse": "at most 1",
}
"""Points of accuracy, or percent."""

LEAST = 5
"""Seeds of a table of which some are held out: one for the search, three for the finalists, one for the truth."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One way to confirm.

    Attributes:
        finalists: How many, beside the default recipe; None for the product's default.
        seeds: Fresh seeds of each; None for the product's default.
        races: Whether losers are dropped from the second seed on.
        trust: Probability with which the default recipe must be beaten to lose its place; None for the product's.
        crossed: Whether no score chooses what it reports.
        final: How many go on beside the default recipe after two seeds; None for the product's.
        shrunken: Whether a trial's value is drawn towards its strategy's mean before finalists are chosen (James-Stein).
    """

    finalists: int | None = None
    seeds: int | None = None
    races: bool = True
    trust: float | None = None
    crossed: bool = True
    final: int | None = None
    shrunken: bool = False


OURS = Method()
ABLATIONS: dict[str, Method] = {
    "without the race": Method(races=False),
    "the best mean wins": Method(trust=0.0),
    "reports the scores that chose": Method(crossed=False),
    "finalists shrunken (James-Stein)": Method(shrunken=True),
    "all go on": Method(final=20),
    "one goes on": Method(final=1),
    "given up at 90 %": Method(trust=0.9),
    "given up at 95 %": Method(trust=0.95),
    "2 finalists": Method(finalists=2),
    "3 finalists": Method(finalists=3),
    "5 finalists": Method(finalists=5),
    "8 finalists": Method(finalists=8),
    "2 seeds": Method(seeds=2),
    "3 seeds": Method(seeds=3),
    "4 seeds": Method(seeds=4),
}


@dataclass(kw_only=True, slots=True)
class Tally:
    """What happened in every run, one number a run; differences in points of accuracy."""

    naive_optimism: list[float] = field(default_factory=list)
    optimism: list[float] = field(default_factory=list)
    gain: list[float] = field(default_factory=list)
    covered: list[bool] = field(default_factory=list)
    half_width: list[float] = field(default_factory=list)
    extra: list[float] = field(default_factory=list)
    worse: list[bool] = field(default_factory=list)
    worse_by_one: list[bool] = field(default_factory=list)
    naive_worse: list[bool] = field(default_factory=list)
    best_in_tied: list[bool] = field(default_factory=list)
    tied: list[int] = field(default_factory=list)
    false_claim: list[bool] = field(default_factory=list)
    stated: list[float] = field(default_factory=list)
    came_true: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """One study's configurations.

    Attributes:
        searched: What the search saw of each, percent; the default recipe is the first.
        fresh: What fresh seeds gave, shape (configurations, seeds).
        truth: What each is worth, as well as it is known.
        one: What one more seed gave of each; None where the truth is no better than that.
        groups: Strategy of each, for the shrinkage.
        widen: Factor by which an interval for the mean must be wider to hold ``truth``, whose own noise it knows nothing of.
    """

    searched: Floats
    fresh: Floats
    truth: Floats
    one: Floats | None
    groups: NDArray[np.uint8]
    widen: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="studies for each table (default 200)")
    parser.add_argument("--trials", type=int, default=100, help="configurations of a study (default 100)")
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first study: others than before (default 0)"
    )
    parser.add_argument("--ablate", action="store_true", help="the same without each mechanism")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args(arguments)
    methods = {"ours": OURS, **(ABLATIONS if options.ablate else {})}
    figures = {
        source: {
            name: summarise(replay(source, method, runs=options.runs, trials=options.trials, first=options.first))
            for name, method in methods.items()
        }
        for source in SOURCES
    }
    print(render(figures, trials=options.trials, runs=options.runs))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def replay(source: str, method: Method, *, runs: int, trials: int, first: int = 0) -> Tally:
    """Many studies on every table that has seeds enough.

    Args:
        source: One of :data:`SOURCES`.
        method: How to confirm.
        runs: Studies for each table; the same ones for every method.
        trials: Configurations of a study.
        first: Number of the first study: with another one they are others.
    """
    tally = Tally()
    asked = make_study(method, trials=trials).spec.confirm.seeds
    with np.load(SOURCES[source]) as tables:
        names = [name.removesuffix("_scores") for name in tables.files if name.endswith("_scores")]
        for place, name in enumerate(names):
            scores, groups = tables[f"{name}_scores"].astype(np.float64), tables[f"{name}_group"]
            recorded = scores.shape[1]
            if source != "drawn" and recorded < LEAST:
                continue
            seeds = asked if source == "drawn" else min(asked, recorded - 2)
            study = make_study(replace(method, seeds=seeds), trials=trials)
            for run in range(first, first + runs):
                rng = np.random.default_rng((run, place))
                world = draw_world(scores, groups, source=source, trials=trials, seeds=seeds, rng=rng)
                judge(tally, world, method=method, study=study, exact=source != "held out")
    return tally


def draw_world(
    scores: Floats, groups: NDArray[np.uint8], *, source: str, trials: int, seeds: int, rng: np.random.Generator
) -> World:
    """The default recipe and random configurations, with seeds for the search, for the finalists and for the truth."""
    rows = np.concatenate([[0], 1 + rng.choice(len(scores) - 1, size=trials - 1, replace=False)])
    table, recorded = scores[rows], scores.shape[1]
    one: Floats | None = None
    if source == "drawn":
        order = rng.integers(0, recorded, size=seeds + 2)
        truth, widen, one = table.mean(axis=1), 1.0, table[:, order[seeds + 1]]
    else:
        order = rng.permutation(recorded)
        truth = table[:, order[seeds + 1 :]].mean(axis=1)
        widen = float(np.sqrt(1.0 + seeds / (recorded - seeds - 1)))
        one = table[:, order[seeds + 1]] if source == "many" else None
    fresh = table[:, order[1 : seeds + 1]]
    return World(searched=table[:, order[0]], fresh=fresh, truth=truth, one=one, groups=groups[rows], widen=widen)


def judge(tally: Tally, world: World, *, method: Method, study: StudyRecord, exact: bool) -> None:
    """One study from its search to its verdict, held against the truth."""
    with (
        mock.patch.object(contest, "TRUST", contest.TRUST if method.trust is None else method.trust),
        mock.patch.object(contest, "FINAL", contest.FINAL if method.final is None else method.final),
    ):
        snapshot, trained = confirm(world, method=method, study=study)
        winner = choose_winner(snapshot)
        assert winner is not None
        assert winner.score is not None
        finalists = score_finalists(snapshot)
        standing = find_standing(snapshot, winner, finalists=finalists)
    truth, naive = world.truth, int(np.argmax(world.searched))
    number = winner.trial.number
    tally.naive_optimism.append(world.searched[naive] - truth[naive])
    tally.naive_worse.append(bool(truth[naive] < truth[0] - 1e-9))
    tally.gain.append(truth[number] - truth[naive])
    tally.worse.append(bool(truth[number] < truth[0] - 1e-9))
    if world.one is not None:
        tally.worse_by_one.append(bool(world.one[number] < world.one[0] - 1e-9))
    tally.extra.append(trained / len(world.searched))
    _judge_number(tally, world, winner=winner, standing=standing, crossed=method.crossed)
    if exact:
        _judge_claims(tally, truth, winner=winner, standing=standing, numbers=[it.trial.number for it in finalists])


def _judge_number(tally: Tally, world: World, *, winner: Winner, standing: Standing, crossed: bool) -> None:
    """The number that is reported, and its interval; where that cannot be told it is counted neither way."""
    estimate, score = standing.estimate, winner.score
    assert estimate is not None
    assert score is not None
    value, low, high = estimate.value, estimate.low, estimate.high
    if not crossed:
        plain = contest.expect(0, choosing={0: score.judged}, reported={0: score.judged})
        value, low, high = plain.value, plain.low, plain.high
    truth = world.truth[winner.trial.number]
    tally.optimism.append(value - truth)
    if low is not None and high is not None:
        reach = (high - low) / 2.0
        tally.half_width.append(reach)
        tally.covered.append(bool(abs(value - truth) <= reach * world.widen + 1e-9))


def _judge_claims(tally: Tally, truth: Floats, *, winner: Winner, standing: Standing, numbers: Sequence[int]) -> None:
    """What is said of the finalists' order."""
    best = max(truth[number] for number in numbers)
    if standing.tied:  # empty where the drawn seeds are all the same one: nothing is said then
        tally.tied.append(len(standing.tied))
        tally.best_in_tied.append(any(truth[score.trial.number] >= best - 1e-9 for score in standing.tied))
    mine = truth[winner.trial.number]
    tally.false_claim.append(any(each.is_clear and truth[each.other] > mine + 1e-9 for each in standing.comparisons))
    second = standing.against(None if winner.runner_up is None else winner.runner_up.number)
    if second is not None and second.probability is not None:
        tally.stated.append(second.probability)
        difference = mine - truth[second.other]
        tally.came_true.append(0.5 if abs(difference) < 1e-9 else float(difference > 0))


def confirm(world: World, *, method: Method, study: StudyRecord) -> tuple[StudySnapshot, int]:
    """The confirmation of one study; the study as the store would tell it, and how many trainings it took."""
    trials = [_trial(number, value) for number, value in enumerate(world.searched)]
    ranked = [replace(trial, value=value) for trial, value in zip(trials, shrink(world), strict=True)]
    chosen = choose_finalists(ranked if method.shrunken else trials, study=study)
    seeds = fresh_seeds(study)
    finalists = [
        FinalistRecord(
            number=finalist.number,
            rank=finalist.rank,
            is_baseline=finalist.is_baseline,
            runs=tuple(_run(seed) for seed in seeds),
        )
        for finalist in chosen
    ]
    trained = 0
    for place in range(len(seeds)):
        for index, finalist in enumerate(finalists):
            if finalist.runs[place].outcome is Outcome.WAITING:
                trained += 1
                finalists[index] = _scored(finalist, place, world.fresh[finalist.number, place])
        fallen = find_fallen(finalists, study=study) if method.races else {}
        finalists = [_cancelled(each, fallen[each.number]) if each.number in fallen else each for each in finalists]
    return StudySnapshot(study=study, trials=tuple(trials), finalists=tuple(finalists)), trained


def shrink(world: World) -> Floats:
    """Each value drawn towards its strategy's mean, by the noise of one seed; the noise is known here, which flatters it."""
    shrunken = world.searched.copy()
    best = np.argsort(-world.truth)[: max(len(world.truth) // 5, 2)]
    noise = float(world.fresh[best].var(axis=1, ddof=1).mean())
    for group in np.unique(world.groups):
        ours = world.groups == group
        if (count := int(ours.sum())) > 3:
            values = world.searched[ours]
            keep = max(0.0, 1.0 - noise * (count - 3) / max(float(((values - values.mean()) ** 2).sum()), 1e-12))
            shrunken[ours] = values.mean() + keep * (values - values.mean())
    return shrunken


def make_study(method: Method, *, trials: int) -> StudyRecord:
    """A study as the product would make it, with its default confirmation where the method says nothing else."""
    confirm = {name: value for name in ("finalists", "seeds") if (value := getattr(method, name)) is not None}
    spec = StudySpec.model_validate(
        {
            "name": "replayed",
            "task": "text-classification",
            "model": "none",
            "data": {"train": "none.csv"},
            "objective": {"metric": "accuracy"},
            "strategies": ["full"],
            "budget": {"trials": trials},
            "confirm": confirm,
        }
    )
    return StudyRecord(
        study_id=1,
        uid="replayed",
        name=spec.name,
        spec=spec,
        space=SearchSpace(strategies=(StrategySpace(strategy="full", prior=1e-3, domains={}, recipe={}),)),
        metric="accuracy",
        maximize=True,
        state=StudyState.FINISHED,
        state_reason="",
        created_at=0.0,
        finished_at=0.0,
        counts={},
        used=BudgetUse(trials=trials, epochs=trials, gpu_seconds=0.0, confirm_seconds=0.0),
    )


def _trial(number: int, value: float) -> TrialRecord:
    return TrialRecord(
        number=number,
        outcome=Outcome.COMPLETE,
        reason="",
        strategy="full",
        params={"number": number},
        is_recipe=number == 0,
        value=float(value),
        best_epoch=1,
        epochs=(),
        attempts=(),
        seconds=1.0,
        trainable_params=None,
        peak_memory=None,
        confusion=None,
        checkpoint="",
        notes=(),
        started_at=0.0,
        ended_at=0.0,
    )


def _run(seed: int) -> ConfirmationRecord:
    return ConfirmationRecord(
        seed=seed, outcome=Outcome.WAITING, reason="", metrics={}, test=None, checkpoint="", seconds=1.0
    )


def _scored(finalist: FinalistRecord, place: int, score: float) -> FinalistRecord:
    done = replace(finalist.runs[place], outcome=Outcome.COMPLETE, metrics={"accuracy": float(score)})
    return replace(finalist, runs=(*finalist.runs[:place], done, *finalist.runs[place + 1 :]))


def _cancelled(finalist: FinalistRecord, why: str) -> FinalistRecord:
    """Its waiting re-trainings ended, as the store does it."""
    runs = [
        replace(run, outcome=Outcome.PRUNED, reason=f"{OUT_OF_THE_RACE}: {why}")
        if run.outcome is Outcome.WAITING
        else run
        for run in finalist.runs
    ]
    return replace(finalist, runs=tuple(runs))


def summarise(tally: Tally) -> dict[str, float]:
    """Means over all runs; shares in percent. An error is the standard error of the figure before it."""

    def mean(values: Iterable[float], factor: float = 1.0) -> float:
        found = np.asarray(list(values), dtype=np.float64)
        return float(found.mean()) * factor if len(found) else float("nan")

    def error(values: Sequence[float]) -> float:
        return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")

    return {
        "runs": float(len(tally.gain)),
        "naive_optimism": mean(tally.naive_optimism),
        "optimism": mean(tally.optimism),
        "optimism_error": error(tally.optimism),
        "coverage": mean(tally.covered, 100.0),
        "told": 100.0 * len(tally.covered) / max(len(tally.gain), 1),
        "half_width": mean(tally.half_width),
        "gain": mean(tally.gain),
        "gain_error": error(tally.gain),
        "extra": mean(tally.extra, 100.0),
        "naive_worse": mean(tally.naive_worse, 100.0),
        "worse": mean(tally.worse, 100.0),
        "worse_error": 100.0 * error([float(value) for value in tally.worse]),
        "worse_by_one": mean(tally.worse_by_one, 100.0),
        "tied": mean(tally.tied),
        "best_in_tied": mean(tally.best_in_tied, 100.0),
        "false_claim": mean(tally.false_claim, 100.0),
        "stated": mean(tally.stated, 100.0),
        "came_true": mean(tally.came_true, 100.0),
    }


Line = tuple[str, Callable[[Mapping[str, float]], str], str]
_LINES: list[Line] = [
    ("reported number - truth, points", lambda it: f"{it['optimism']:+.2f} ± {it['optimism_error']:.2f}", "optimism"),
    ("95 % interval holds the truth, %", lambda it: f"{it['coverage']:.1f}", "coverage"),
    ("  it can be told in, %", lambda it: f"{it['told']:.1f}", ""),
    ("  half its width, points", lambda it: f"{it['half_width']:.2f}", ""),
    ("truth of the pick - of naive's, points", lambda it: f"{it['gain']:+.2f} ± {it['gain_error']:.2f}", "gain"),
    ("extra trainings, %", lambda it: f"{it['extra']:.1f}", "extra"),
    ("ends worse than the default, %", lambda it: f"{it['worse']:.1f} ± {it['worse_error']:.1f}", "worse"),
    ("  by one unseen seed, %", lambda it: _exact(it["worse_by_one"]), ""),
    ("best finalist is in the tied set, %", lambda it: _exact(it["best_in_tied"]), ""),
    ("  finalists in that set", lambda it: _exact(it["tied"]), ""),
    ('a false "clearly better", %', lambda it: _exact(it["false_claim"]), ""),
    ("P(winner > runner-up) as stated, %", lambda it: _exact(it["stated"]), ""),
    ("  as it came true, %", lambda it: _exact(it["came_true"]), ""),
]


def _exact(value: float) -> str:
    """A figure that needs a truth that is known well."""
    return "–" if np.isnan(value) else f"{value:.1f}"


def render(figures: Mapping[str, Mapping[str, Mapping[str, Any]]], *, trials: int, runs: int) -> str:
    """Ours beside naive top-1, then each ablation in one line."""
    lines = [f"{trials} configurations and one seed each; {runs} studies on each table"]
    width = max(len(label) for label, _, _ in _LINES) + 2
    for source, methods in figures.items():
        ours = methods["ours"]
        lines += [
            "",
            f"{TITLES[source]}, {ours['runs']:.0f} studies".ljust(width) + f"{'naive top-1':>14}{'ours':>16}  goal",
        ]
        naive = {
            "optimism": f"{ours['naive_optimism']:+.2f}",
            "gain": "0",
            "extra": "0",
            "worse": f"{ours['naive_worse']:.1f}",
        }
        for label, show, goal in _LINES:
            lines.append(f"{label:<{width}}{naive.get(goal, '–'):>14}{show(ours):>16}  {GOALS.get(goal, '')}".rstrip())
        if len(methods) > 1:
            lines += [
                "",
                f"{source}: what each part buys".ljust(width) + "  optimism  coverage     gain  extra %  worse %",
            ]
            lines += [
                f"{name:<{width}}{it['optimism']:>+10.2f}{it['coverage']:>10.1f}{it['gain']:>+9.2f}"
                f"{it['extra']:>9.1f}{it['worse']:>9.1f}"
                for name, it in methods.items()
            ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
