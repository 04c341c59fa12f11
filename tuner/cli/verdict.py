"""How sure the answer is, for ``tuner study best``: as lines for people and as a document for programs."""

from __future__ import annotations

from typing import Any

from tuner.report.facts import name_trial
from tuner.report.formats import format_difference, format_probability
from tuner.report.summary import Summary
from tuner.store.records import StudyState
from tuner.study.names import count_noun


def verdict_lines(summary: Summary) -> list[str]:
    """What to expect of the winner, what it is tied with, and what was cancelled; empty before there are fresh seeds."""
    standing, winner = summary.standing, summary.winner
    if winner is None or standing.estimate is None:
        return []
    lines = []
    estimate = standing.estimate
    if summary.study.state is StudyState.SEARCHING:
        lines.append("the search goes on: what it finds is compared with this")
    if estimate.low is not None and estimate.high is not None:
        rows = " over the folds" if standing.split == "folds" else " on the validation rows"
        if standing.rows:
            rows = f" on {count_noun(standing.rows, standing.split.replace('-', ' ') + ' row')}"
        span = f"95 % interval {estimate.low:.4f} to {estimate.high:.4f}"
        if standing.rows and not standing.is_row_luck_counted:
            span += " over seeds, on these same rows"
        lines.append(f"expect {summary.study.metric} {estimate.value:.4f}{rows} ({span})")
    if standing.optimism is not None and winner.claimed is not None:
        lines.append(f"its value in the search less that: {format_difference(winner.claimed - estimate.value)}")
    if summary.runner_up is not None and winner.runner_up is not None and summary.runner_up.probability is not None:
        name, probability = name_trial(winner.runner_up), summary.runner_up.probability
        if summary.runner_up.difference < 0.0:
            lines.append(
                f"the runner-up, {name}, is ahead of it with probability {format_probability(1.0 - probability)}"
            )
        else:
            lines.append(f"better than the runner-up, {name}, with probability {format_probability(probability)}")
    others = [score for score in standing.tied if score.trial.number != winner.trial.number]
    if others:
        better = {each.other for each in standing.comparisons if each.is_worse}
        names = ", ".join(
            f"{name_trial(each.trial)}{' (the default recipe)' * each.is_baseline}"
            f"{' (better)' * (each.trial.number in better)}"
            for each in others
        )
        lines.append(f"{'tied with it or better' if better else 'statistically tied with it'}: {names}")
        if summary.cheaper is not None:
            left = " that finished the race" if any(each.why_out for each in standing.tied) else ""
            lines.append(f"the cheapest of these{left}: {name_trial(summary.cheaper.trial)}")
    elif standing.tied:
        lines.append("no other finalist is statistically tied with it")
    lines += [f"{name_trial(score.trial)} is {score.why_out}" for score in summary.finalists if score.why_out]
    return lines


def verdict_document(summary: Summary) -> dict[str, Any] | None:
    """The same for programs; None before there are fresh seeds."""
    standing, winner = summary.standing, summary.winner
    if winner is None or standing.estimate is None:
        return None
    estimate = standing.estimate
    baseline = next((score.trial.number for score in summary.finalists if score.is_baseline), None)
    return {
        "split": standing.split,
        "rows": standing.rows,
        "estimate": {"value": estimate.value, "low": estimate.low, "high": estimate.high},
        "claimed": winner.claimed,
        "optimism": standing.optimism,
        "runner_up": None if winner.runner_up is None else winner.runner_up.number,
        "probability": None if summary.runner_up is None else summary.runner_up.probability,
        "tied": [score.trial.number for score in standing.tied],
        "cheapest": None if standing.cheapest is None else standing.cheapest.trial.number,
        "default_recipe": baseline,
        "default_recipe_is_tied": standing.is_baseline_tied if standing.tied else None,
        "out_of_the_race": [score.trial.number for score in summary.finalists if score.why_out],
        "comparisons": [
            {
                "number": each.other,
                "difference": each.difference,
                "expected": standing.expected_lead(each),
                "low": each.low,
                "high": each.high,
                "probability": each.probability,
                "p_value": each.p_value,
                "is_told_apart": each.is_settled,
                "seeds": each.seed_pairs,
                "seeds_won": each.seed_wins,
            }
            for each in standing.comparisons
        ],
    }
