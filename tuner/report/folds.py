"""What a report says of the folds of the training rows: which of them judged a finalist, and what each said."""

from __future__ import annotations

from tuner.report.formats import format_score
from tuner.report.verdict import FinalistScore
from tuner.study.names import count_noun


def count_folds(score: FinalistScore) -> str:
    """The folds that judged its re-trainings: ``4 folds``."""
    return count_noun(len(set(score.folds)), "fold")


def describe_rounds(score: FinalistScore) -> str:
    """How often it was trained again: ``3 fresh seeds``, or ``4 folds that judged no trial, with a fresh seed each,``."""
    seeds = count_noun(len(score.seeds), "fresh seed")
    if not score.folds:
        return seeds
    each = "a fresh seed each" if len(set(score.folds)) == len(score.seeds) else seeds
    return f"{count_folds(score)} that judged no trial, with {each},"


def describe_folds(score: FinalistScore, *, of: int) -> list[str]:
    """What each fold said of it, in a sentence; nothing where the rows are not divided.

    Args:
        score: A finalist's.
        of: Into how many folds the training rows are divided.
    """
    if not score.folds:
        return []
    told = [f"{format_score(value)} on fold {fold}" for fold, value in zip(score.folds, score.validation, strict=True)]
    listed = f"{', '.join(told[:-1])} and {told[-1]}" if len(told) > 1 else told[0]
    return [f"Of the {of} folds of the training rows the first judged the search. On the others it scores {listed}."]
