"""How much of the front does each sampler find, where quality is weighed against time?

    python benchmarks/objectives.py
    python benchmarks/objectives.py --samplers auto gp --seeds 2 --json figures.json

Every recorded configuration is a training whose final score and device seconds are known; a search asks for configurations one after the
other and is told both of the nearest recorded one. What counts is the hypervolume: the share of what the best front of the whole table
dominates (score, and seconds on a logarithmic scale, each from the table's worst to its best). Nothing is pruned. The samplers are those
of study files, asked as workers ask them; recipes come first where the table's strategies have some (``--no-recipes`` to do without).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, the repository is not on the path

from benchmarks.replay.methods import Setting
from benchmarks.replay.own import load_table
from benchmarks.replay.tables import Floats, Task
from tuner.search.judgement import Judgement
from tuner.study.spec import SearchSpec

TABLES = ("strategies", "lcbench")
SAMPLERS = ("auto", "tpe", "nsgaii", "random")
"""Those that are compared unless others are named; ``gp`` takes about a second for each proposal."""

BUDGETS = (20, 50)


def hypervolume(points: Floats) -> float:
    """What a front dominates of the unit square; both coordinates are better the larger they are.

    Args:
        points: Any points, (count, 2).
    """
    area, best = 0.0, 0.0
    for x, y in points[np.argsort(-points[:, 0])]:
        if y > best:
            area += float(x * (y - best))
            best = float(y)
    return area


def normalised(task: Task) -> Floats:
    """Score and quickness of each configuration, from 0 for the table's worst to 1 for its best; what diverged has nothing."""
    score, pace = task.scores[:, -1], -np.log(task.seconds[:, -1])
    columns = [(one - np.nanmin(one)) / (np.nanmax(one) - np.nanmin(one)) for one in (score, pace)]
    return np.where(np.isfinite(score)[:, None], np.stack(columns, axis=1), 0.0)


def search(task: Task, *, sampler: str, seed: int, recipes: bool) -> list[float]:
    """The share of the reachable hypervolume after each of the budgets.

    Args:
        task: What is searched.
        sampler: By the name that study files have for it.
        seed: Of the sampler.
        recipes: Whether what the strategies come with is tried first.
    """
    setting = Setting(task=task, others=[], seed=seed, trainings=max(BUDGETS), workers=1)
    question, points = setting.question(relative=True), normalised(task)
    study = optuna.create_study(study_name=f"fronts-{seed}", directions=["maximize", "maximize"])
    judged = Judgement(
        study,
        space=question.space,
        search=SearchSpec.model_validate({"sampler": sampler, "seed": seed}),
        epochs=task.epochs,
    )
    storage = study._storage  # noqa: SLF001 - rows are written past the study, as the store does
    first = [question.proposal(values) for values in setting.defaults()] if recipes else []
    seen: list[int] = []
    for number in range(max(BUDGETS)):
        trial = storage.create_new_trial(study._study_id)  # noqa: SLF001 - as above
        if number < len(first):
            storage.set_trial_system_attr(trial, "fixed_params", first[number])
        tried = judged.propose(trial, number=number)
        judged.keep(trial, tried)
        unit = task.unit(question.recorded(tried.strategy, tried.params))
        seen.append(int(((task.units - unit) ** 2).sum(axis=1).argmin()))
        found = [float(value) for value in points[seen[-1]]]
        judged.end(trial, number=number, state=optuna.trial.TrialState.COMPLETE, value=found)
        storage.set_trial_state_values(trial, optuna.trial.TrialState.COMPLETE, found)
    reachable = hypervolume(points)
    return [hypervolume(points[seen[:budget]]) / reachable for budget in BUDGETS]


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), help=f"default: {' '.join(SAMPLERS)}")
    parser.add_argument("--seeds", type=int, default=5, help="searches of each task")
    parser.add_argument("--no-recipes", action="store_true", help="do not try the strategies' recipes first")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    figures = []
    print(f"     table   sampler  searches  share of the front's hypervolume after {' and '.join(map(str, BUDGETS))}")
    for table in TABLES:
        tasks = load_table(Path(__file__).parent / "data" / table / "curves.npz")
        for sampler in options.samplers:
            shares = np.array(
                [
                    search(task, sampler=sampler, seed=seed, recipes=not options.no_recipes)
                    for task in tasks
                    for seed in range(options.seeds)
                ]
            )
            means = [float(mean) for mean in shares.mean(axis=0)]
            errors = [float(error) for error in shares.std(axis=0) / np.sqrt(len(shares))]
            words = "  ".join(f"{mean:.3f} ± {error:.3f}" for mean, error in zip(means, errors, strict=True))
            print(f"{table:>10}  {sampler:>8}  {len(shares):>8}  {words}", flush=True)
            figures.append(
                {"table": table, "sampler": sampler, "searches": len(shares), "means": means, "errors": errors}
            )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
