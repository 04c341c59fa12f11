"""What a study learnt from past ones when it was created, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tuner.store.records import StudyRecord, TrialRecord
from tuner.study.names import count_noun
from tuner.study.space import LearntRecipe, SearchSpace

if TYPE_CHECKING:
    from tuner.study.check import CheckReport


def learnt_words(study: StudyRecord) -> str:
    """What ``tuner study create`` says of it; empty if nothing was asked for, or if there is nothing yet to learn from."""
    if study.space.learnt:
        recipes = count_noun(len(study.space.learnt), "recipe")
        return f"learnt {recipes} from past studies, tried first: {_sources(study.space.learnt)}"
    if isinstance(study.spec.search.learn_from, str):
        return ""
    return (
        f"learnt nothing from {', '.join(study.spec.search.learn_from)}: no trial there suits this study and its budget"
    )


def lesson_words(found: CheckReport, *, storage: str | None) -> str:
    """What a study that was checked would learn now; empty if it asks for nothing, or the database is not there or cannot be read."""
    from tuner.errors import TunerError
    from tuner.search import past
    from tuner.store import location
    from tuner.store.database import Database

    asked = found.spec.search.learn_from
    path = location.sqlite_path(location.parse_url(location.storage_url(storage)))
    if asked == "none" or (path is not None and not path.exists()):
        return ""
    try:
        with Database.open(location.storage_url(storage), read_only=True) as database:
            learnt = past.learn(database, spec=found.spec, space=found.space, holds_back=found.holds_back).learnt
    except TunerError:
        return ""  # the costs say why
    if not learnt:
        return (
            "" if asked == "all" else f"nothing from {', '.join(asked)}: no trial there suits this study and its budget"
        )
    return f"{count_noun(len(learnt), 'recipe')} of past studies, tried first: {_sources(learnt)}"


def _sources(learnt: Sequence[LearntRecipe]) -> str:
    counts = Counter(one.source.partition("/")[0] for one in learnt)
    return ", ".join(f"{name} ({number})" for name, number in counts.items())


def recipe_words(study: StudyRecord) -> list[str]:
    """Each learnt recipe, and what of it was changed to fit this study's ranges."""
    words = []
    for one in study.space.learnt:
        clipped = f" ({', '.join(one.clipped)} clipped)" if one.clipped else ""
        words.append(f"{one.strategy} of {one.source}{clipped}")
    return words


def origin_words(trial: TrialRecord) -> str:
    """Where a trial's values come from, in brackets; empty if the search proposed them."""
    origins = ["its default recipe"] if trial.is_recipe else []
    origins += [f"learnt from {trial.learnt_from}"] if trial.learnt_from else []
    return f" ({', '.join(origins)})" if origins else ""


def learnt_documents(space: SearchSpace) -> list[dict[str, Any]]:
    """Each learnt recipe in absolute units, in the order in which they are tried."""
    return [
        {
            "strategy": one.strategy,
            "params": space.absolute(one.strategy, one.values),
            "from": one.source,
            "clipped": list(one.clipped),
        }
        for one in space.learnt
    ]
