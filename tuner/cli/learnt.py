"""What a study learnt from past ones when it was created, for people and for programs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tuner.report.formats import count_noun
from tuner.store.records import StudyRecord, TrialRecord
from tuner.study.space import SearchSpace


def learnt_words(study: StudyRecord) -> str:
    """What ``tuner study create`` says of it; empty if nothing was asked for, or if there is nothing yet to learn from."""
    if study.space.learnt:
        counts = Counter(one.source.partition("/")[0] for one in study.space.learnt)
        sources = ", ".join(f"{name} ({number})" for name, number in counts.items())
        return f"learnt {count_noun(len(study.space.learnt), 'recipe')} from past studies, tried first: {sources}"
    if isinstance(study.spec.search.learn_from, str):
        return ""
    return (
        f"learnt nothing from {', '.join(study.spec.search.learn_from)}: no trial there suits this study and its budget"
    )


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
