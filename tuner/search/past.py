"""What a new study learns from past ones in the same database: which values to try first.

It is learnt once, when the study is created, and stored with it: all workers see the same recipes, and no later study changes a
running one. Only complete trials are learnt, by their validation scores; test scores are never looked at, and a study that was
trained on this one's test rows, or judged by them, teaches nothing unless it is named. Pruned trials and those that could not run are
told as bad, and are no recipes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.errors import Problem, TunerError
from tuner.search.portfolio import Floats, choose_cover, expected_regrets, regrets
from tuner.store.database import Database
from tuner.store.past import PastStudy, PastTrial, list_names, load_past
from tuner.store.records import Outcome
from tuner.study.messages import quoted
from tuner.study.names import did_you_mean
from tuner.study.ranges import Findings
from tuner.study.space import LearntRecipe, SearchSpace
from tuner.study.spec import StudySpec
from tuner.study.teacher import has_seen, is_same_file
from tuner.study.transfer import Transferred, transfer, unit_point

RECIPES = 8
"""Most recipes that are learnt: on LCBench the mean regret of the best of them falls by a third from four to eight."""

FEWEST_COMPLETE = 3
"""Complete trials without which a study that is not named teaches nothing: its best one has beaten nobody."""

FEWEST_STUDIES = 3
"""Past studies without which there is nothing to cover, and the winners are taken as they are.

Of other data, unless they are named, so few teach nothing: on LCBench recipes of one or two other tasks held a search back.
"""

_STUDIES, _TRIALS = 50, 20  # of the likest studies, so many of the best trials: more would cost seconds for nothing
_KEY = "search.learn_from"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lesson:
    """A past study that can teach.

    Attributes:
        study: The study.
        weight: How much it counts: 1 for the same data and model, half for each step away.
        trials: Those that carry over, with their values for the new study.
        worth: The regret of each in its study.
    """

    study: PastStudy
    weight: float
    trials: Sequence[tuple[PastTrial, Transferred]]
    worth: Floats


def find_unknown(url: str, *, spec: StudySpec) -> list[Problem]:
    """As :func:`name_problems`, where the database need not be there.

    Args:
        url: The database's.
        spec: The study.
    """
    try:
        with Database.open(url) as db:
            return name_problems(db, spec=spec)
    except TunerError as error:
        findings = Findings()
        findings.refuse(_KEY, error.message)
        return findings.problems


def name_problems(db: Database, *, spec: StudySpec) -> list[Problem]:
    """Why the studies that a study file names cannot teach; empty if it names none."""
    asked = spec.search.learn_from
    if isinstance(asked, str):
        return []
    others = ["all", "none", *(name for name in list_names(db) if name != spec.name)]
    there = {study.name: study for study in load_past(db, names=asked)}
    findings = Findings()
    for name in dict.fromkeys(asked):
        if name == spec.name:
            findings.refuse(_KEY, "a study cannot learn from itself")
        elif name not in there:
            findings.refuse(_KEY, f"no study {quoted(name)} in this database{did_you_mean(name, others)}")
        elif there[name].spec.task != spec.task:
            findings.refuse(_KEY, f'study "{name}" is of another task, {there[name].spec.task}')
        elif not _complete(there[name]):
            findings.refuse(_KEY, f'study "{name}" has no complete trial to learn from')
    return findings.problems


def learn(db: Database, *, spec: StudySpec, space: SearchSpace, holds_back: bool = True) -> SearchSpace:
    """The space of a new study, with what past ones teach.

    Args:
        db: Where the past studies are.
        spec: The new study; it says which ones may teach.
        space: Its space, with the kind of its model.
        holds_back: Whether validation rows are held back from its search; True where that is not known.
    """
    asked = spec.search.learn_from
    size = room_for_recipes(spec, own=sum(block.is_tried_first for block in space.strategies))
    if asked == "none" or not size:
        return space
    past = load_past(db, names=None if asked == "all" else asked)
    return replace(space, learnt=tuple(learn_from(past, spec=spec, space=space, size=size, holds_back=holds_back)))


def room_for_recipes(spec: StudySpec, *, own: int) -> int:
    """How many recipes may be learnt: the strategies' own and as many proposals of the search as recipes have room beside them.

    Args:
        spec: Its budget decides.
        own: Recipes that the study has of its own.
    """
    budget = spec.budget
    limits = [budget.trials] if budget.trials is not None else []
    limits += [budget.epochs // spec.training.epochs] if budget.epochs is not None else []
    return max(0, min([RECIPES, *((limit - own + 1) // 2 for limit in limits)]))


def learn_from(
    past: Sequence[PastStudy], *, spec: StudySpec, space: SearchSpace, size: int, holds_back: bool = True
) -> list[LearntRecipe]:
    """The recipes that past studies teach, the most promising first.

    Args:
        past: The newest first.
        spec: The new study.
        space: Its space, with the kind of its model.
        size: Most recipes.
        holds_back: As in :func:`learn`.
    """
    is_named = not isinstance(spec.search.learn_from, str)
    lessons = [
        lesson
        for study in past
        if study.spec.task == spec.task
        and study.name != spec.name
        and (is_named or _teaches(study, spec, holds_back=holds_back))
        and (lesson := _lesson(study, spec=spec, space=space)) is not None
    ]
    if not is_named and len(lessons) < FEWEST_STUDIES:
        lessons = [lesson for lesson in lessons if _is_of_same_data(lesson.study, spec)]
    lessons = sorted(lessons, key=lambda lesson: -lesson.weight)[:_STUDIES]
    chosen = _winners(lessons) if len(lessons) < FEWEST_STUDIES else _covering(lessons, space=space, size=size)
    found: dict[tuple[object, ...], LearntRecipe] = {}
    for lesson, index in chosen:
        trial, there = lesson.trials[index]
        recipe = LearntRecipe(
            strategy=trial.strategy,
            values=there.values,
            source=f"{lesson.study.name}/{trial.number}",
            clipped=there.clipped,
        )
        found.setdefault((trial.strategy, *there.values.items()), recipe)
    return list(found.values())[:size]


def _complete(study: PastStudy) -> list[PastTrial]:
    return [trial for trial in study.trials if trial.value is not None]


def _teaches(study: PastStudy, spec: StudySpec, *, holds_back: bool) -> bool:
    """Whether it may teach unnamed: its best has beaten somebody, and it knows nothing of the rows that give this one's verdict.

    Neither was it trained on the test rows, nor did they, or rows that are held back here, judge its trials.
    """
    is_judged_by_test = is_same_file(spec.data.test, study.spec.data.validation)
    is_judged_by_held_back = holds_back and _judges_otherwise(study.spec, spec)
    knows_test = is_judged_by_test or has_seen(study.spec, spec) == "test"
    return len(_complete(study)) >= FEWEST_COMPLETE and not knows_test and not is_judged_by_held_back


def _judges_otherwise(theirs: StudySpec, ours: StudySpec) -> bool:
    """Whether it judges its trials by other rows of the same file: those that are held back here may be among them.

    Which rows those are follows from the file, the split, the share that is held back and ``training.seed``.
    """
    if isinstance(ours.data.validation, str):
        same_file = is_same_file(ours.data.validation, theirs.data.validation)
    else:
        same_file = not isinstance(theirs.data.validation, str) and is_same_file(ours.data.train, theirs.data.train)

    def split(spec: StudySpec) -> tuple[object, ...]:
        held = 0.0 if spec.data.folds or not spec.confirm.finalists else spec.confirm.held_back
        split = "a file" if isinstance(spec.data.validation, str) else spec.data.validation
        return split, held, spec.training.seed

    same_question = same_file and ours.data.label == theirs.data.label
    return ours.confirm.finalists > 0 and same_question and split(theirs) != split(ours)


def _is_of_same_data(study: PastStudy, spec: StudySpec) -> bool:
    """Whether it learnt the same from the same rows: another label column of the file is another question."""
    theirs, ours = study.spec.data, spec.data
    return is_same_file(theirs.train, ours.train) and (theirs.text, theirs.label) == (ours.text, ours.label)


def _lesson(study: PastStudy, *, spec: StudySpec, space: SearchSpace) -> _Lesson | None:
    trials: list[tuple[PastTrial, Transferred]] = []
    scores: list[float] = []
    both = set(space.names) & set(study.space.names)
    for trial in study.trials:
        if trial.outcome is Outcome.ERRORED or trial.strategy not in both:
            continue
        block = space.block(trial.strategy)
        there = transfer(trial.params, source=study.space.block(trial.strategy), target=block)
        if there is not None:
            trials.append((trial, there))
            scores.append(_score(trial, maximize=study.maximize))
    if not np.isfinite(scores).any():
        return None
    # Of all its trials: where the best one's strategy does not compete here, the others are not the best.
    complete = _complete(study)
    confirmed = [trial for trial in complete if trial.confirmed is not None]
    best = max(_score(trial, maximize=study.maximize) for trial in confirmed or complete)
    return _Lesson(
        study=study,
        weight=_likeness(study, spec=spec, space=space),
        trials=trials,
        worth=regrets(np.array(scores), best=best),
    )


def _score(trial: PastTrial, *, maximize: bool) -> float:
    """Of fresh seeds if there are any; more is better; NaN for a trial that is not complete."""
    value = trial.confirmed if trial.confirmed is not None else trial.value
    if trial.value is None or value is None:
        return math.nan
    return value if maximize else -value


def _likeness(study: PastStudy, *, spec: StudySpec, space: SearchSpace) -> float:
    """1 for the same data and model, halved by other data, by another family, and for each factor of ten in size."""
    theirs, ours = study.space.model, space.model
    steps = float(not _is_of_same_data(study, spec))
    if theirs is None or ours is None or not theirs.parameters or not ours.parameters:
        return float(0.5 ** (steps + (study.spec.model != spec.model)))
    steps += theirs.family != ours.family
    return float(0.5 ** (steps + abs(math.log10(theirs.parameters / ours.parameters))))


def _candidates(lesson: _Lesson) -> list[int]:
    """Its complete trials: those confirmed with fresh seeds first, then by their worth."""
    complete = [index for index, (trial, _) in enumerate(lesson.trials) if trial.value is not None]
    return sorted(complete, key=lambda index: (_rank(lesson, index), lesson.trials[index][0].number))[:_TRIALS]


def _rank(lesson: _Lesson, index: int) -> tuple[float, bool, float, float]:
    """Its worth; of those that are worth the same a confirmed one, then the better score, then what the search saw."""
    trial, sign = lesson.trials[index][0], -1.0 if lesson.study.maximize else 1.0
    score = _score(trial, maximize=lesson.study.maximize)
    return float(lesson.worth[index]), trial.confirmed is None, -score, sign * float(trial.value or 0.0)


def _winners(lessons: Sequence[_Lesson]) -> list[tuple[_Lesson, int]]:
    """Of each study its winner, confirmed ones first; then its best trial of each other strategy, if that is any good."""
    firsts: list[tuple[_Lesson, int]] = []
    others: list[tuple[_Lesson, int]] = []
    for lesson in lessons:
        seen: set[str] = set()
        for index in _candidates(lesson):
            strategy = lesson.trials[index][0].strategy
            if strategy not in seen and (not seen or lesson.worth[index] <= 0.5):
                (others if seen else firsts).append((lesson, index))
            seen.add(strategy)
    firsts.sort(key=lambda choice: choice[0].trials[choice[1]][0].confirmed is None)
    others.sort(key=lambda choice: float(choice[0].worth[choice[1]]))
    return firsts + others


def _covering(lessons: Sequence[_Lesson], *, space: SearchSpace, size: int) -> list[tuple[_Lesson, int]]:
    """The greedy cover of the past studies, over the trials of them all."""
    pool = [(lesson, index) for lesson in lessons for index in _candidates(lesson)]
    pool.sort(key=lambda choice: choice[0].trials[choice[1]][0].confirmed is None)
    points = [_point(space, *lesson.trials[index]) for lesson, index in pool]
    worth = np.stack([_expected(lesson, points, space=space) for lesson in lessons])
    # Twice as many: what is the same in two studies is one recipe.
    chosen = choose_cover(worth, size=2 * size, weights=[lesson.weight for lesson in lessons])
    return [pool[column] for column in chosen]


_Point = tuple[str, list[float]]


def _point(space: SearchSpace, trial: PastTrial, there: Transferred) -> _Point:
    return trial.strategy, unit_point(space.block(trial.strategy), there.values)


def _expected(lesson: _Lesson, points: Sequence[_Point], *, space: SearchSpace) -> Floats:
    """The regret of each point in a study, from its own trials of the same strategy."""
    tried: dict[str, list[tuple[list[float], float]]] = {}
    for (trial, there), worth in zip(lesson.trials, lesson.worth, strict=True):
        strategy, unit = _point(space, trial, there)
        tried.setdefault(strategy, []).append((unit, float(worth)))
    expected = np.ones(len(points))
    for strategy, rows in tried.items():
        columns = [column for column, (of, _) in enumerate(points) if of == strategy]
        if columns:
            units = np.array([points[column][1] for column in columns])
            found = np.array([worth for _, worth in rows])
            expected[columns] = expected_regrets(units, tried=np.array([unit for unit, _ in rows]), found=found)
    return expected
