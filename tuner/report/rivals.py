"""The winner against the others, in words: the default recipe, the runner-up, and those that it is tied with."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tuner.contest import TRUST
from tuner.report.evidence import Comparison
from tuner.report.facts import NO_MOVE, Facts, name_trial
from tuner.report.formats import format_count, format_probability
from tuner.report.troubles import why_no_recipe
from tuner.report.verdict import Basis, FinalistScore, Winner, common_seeds
from tuner.store.records import TrialRecord
from tuner.study.names import count_noun


def against_baseline(facts: Facts, winner: Winner) -> list[str]:
    """How the winner stands to the default recipe, a sentence a fact."""
    is_settled = winner.basis is Basis.CONFIRMED
    comparison = facts.baseline
    if winner.score is not None and winner.score.is_baseline:
        if not is_settled:
            return ["It is the default recipe itself: whether the search has improved on it is not known yet."]
        if len(winner.score.seeds) == 1:
            return [
                "It is the default recipe itself: no other finalist did better with the one seed, which cannot tell."
            ]
        return [_what_the_recipe_withstood(facts, winner), *_left_ahead(facts)]
    if winner.baseline is None:
        if not is_settled and any(score.is_baseline for score in facts.finalists):
            return ["It cannot be compared with the default recipe, which has no score with a fresh seed."]
        return [f"It was not compared with a default recipe: {why_no_recipe(facts.snapshot)}."]
    recipe = f"the default recipe, {name_trial(winner.baseline)}"
    if comparison is None:
        return [f"It cannot be compared with {recipe}: they have no fresh seed in common."]
    common = "" if is_settled else f" with {count_noun(comparison.seed_pairs, 'fresh seed')} in common"
    lead = facts.standing.expected_lead(comparison)
    what = f"that is {facts.ahead(comparison.difference)}"
    if abs(lead - comparison.difference) > NO_MOVE:
        what = f"expect {facts.ahead(lead)}; the means differ by {facts.own(comparison.difference)}"
    sentence = f"Against {recipe}, {what}{common}{_interval(facts, comparison)}."
    if comparison.seed_pairs < 2:
        return [sentence, _ONE_SEED]
    if comparison.probability is None:
        return [sentence, "The seeds do not differ in score, so nothing can be said about how sure that is."]
    if comparison.is_worse and comparison.split != "test":
        return [sentence, "By the seeds that both have the recipe is clearly better."]
    if comparison.is_worse:
        prefer = ": prefer the default recipe" if is_settled else ""
        return [sentence, f"Validation chose it, the test rows disagree{prefer}."]
    if comparison.is_clear:
        return [sentence]
    among = f"Among {comparison.claims} comparisons the" if comparison.claims > 1 else "The"
    return [sentence, f"{among} difference is not larger than what chance may give: the recipe is not ruled out."]


_ONE_SEED = "One seed cannot tell how much of that is the luck of the seed: nothing can be said about how sure that is."


def _what_the_recipe_withstood(facts: Facts, winner: Winner) -> str:
    itself = "It is the default recipe itself"
    if winner.is_tie and winner.is_row_luck_unknown:
        return (
            f"{itself}: another has a better mean with fresh seeds, but what other held back rows would do to {facts.metric} is not known, "
            "since its parts by row were not kept; seeds alone, which all see the same rows, do not beat the recipe."
        )
    if winner.is_tie:
        return (
            f"{itself}: another has a better mean with fresh seeds, but it is better with less than {100 * TRUST:g} % probability, "
            "and a tie goes to the recipe."
        )
    finished = " that finished the race" if any(score.why_out for score in facts.finalists) else ""
    return f"{itself}: no other finalist{finished} did better with fresh seeds."


def ahead_when_they_left(facts: Facts) -> list[tuple[FinalistScore, float]]:
    """Who left the race with a better mean than the winner has with the same seeds, and by how much; signed so that more is better.

    They were sent away for others that were better still, and those fell behind in the end.
    """
    mine = None if facts.winner is None else facts.winner.score
    sign = 1.0 if facts.snapshot.study.maximize else -1.0
    found = []
    for score in facts.finalists:
        seeds = sorted(common_seeds([score, mine])) if mine is not None and score.why_out and score.seeds else []
        if mine is None or not seeds:
            continue
        its, own = (statistics.fmean(each.in_blocks(each.judged, seeds=seeds)) for each in (score, mine))
        if sign * (its - own) > NO_MOVE:
            found.append((score, sign * (its - own)))
    return found


def _left_ahead(facts: Facts) -> list[str]:
    return [
        f"T{name_trial(score.trial)[1:]} left the race for others; by the {count_noun(len(score.seeds), 'seed')} that it has it is "
        f"{facts.ahead_of(lead, 'the recipe')}."
        for score, lead in ahead_when_they_left(facts)
    ]


def _interval(facts: Facts, comparison: Comparison) -> str:
    """The interval in brackets, over what it is taken, and the probability; empty where nothing can be said."""
    if comparison.low is None or comparison.high is None:
        return ""
    rows = comparison.split.replace("-", " ")
    where = "over folds" if comparison.split == "folds" else f"over seeds, on these same {rows} rows"
    if comparison.rows:
        where = f"over {rows} rows {'and seeds' if comparison.seed_pairs > 1 else 'only'}"
    if comparison.claims > 1:
        where += f", corrected for {comparison.claims} comparisons"
    text = f" (95 % interval {facts.ends(comparison.low, comparison.high)} {where})"
    if comparison.probability is None:
        return text
    alone = "taken alone, " if comparison.claims > 1 else ""
    return f"{text}; {alone}the probability that it is better is {format_probability(comparison.probability)}"


def against_runner_up(facts: Facts, winner: Winner) -> list[str]:
    """How it stands to the runner-up, and whom it cannot be told from."""
    comparison = facts.runner_up
    sentences = []
    if comparison is not None and winner.runner_up is not None:
        sentences += _compare_runner_up(facts, comparison, runner_up=winner.runner_up)
    sentences += _tied(facts, winner)
    return sentences


def _tied(facts: Facts, winner: Winner) -> list[str]:
    """Which finalists cannot be told from the winner, and which of them costs least."""
    standing = facts.standing
    others = [score for score in standing.tied if score.trial.number != winner.trial.number]
    if not standing.tied or not standing.comparisons:
        return []
    if not others:
        return [f"Of {count_noun(len(facts.finalists), 'finalist')}, none is tied with it."]
    better = {each.other for each in standing.comparisons if each.is_worse}
    how = (
        "clearly better"
        if standing.is_row_luck_counted or not winner.is_row_luck_unknown
        else "better, rows not counted"
    )
    names = ", ".join(_name_tied(each, how=how if each.trial.number in better else "") for each in others)
    corrected = (
        f" (Holm's correction for {len(standing.comparisons)} comparisons)" if len(standing.comparisons) > 1 else ""
    )
    tied = "Tied with it or better at 95 %" if better else "Statistically tied with it at 95 %"
    sentence = f"{tied}: {names}{corrected}."
    if facts.cheaper is None:
        return [sentence]
    cheap = name_trial(facts.cheaper.trial)
    return [
        sentence,
        (
            f"The cheapest of these{_who_finished(standing.tied)} is {cheap}: it trains {format_count(facts.cheaper.trial.trainable_params)} parameters "
            f"instead of {format_count(winner.trial.trainable_params)}."
        ),
    ]


def _name_tied(score: FinalistScore, *, how: str) -> str:
    """With what makes it less than an equal: few seeds cannot tell a finalist apart, however far behind it is."""
    name = f"{name_trial(score.trial)}{', the default recipe' * score.is_baseline}"
    seeds = f"by the {count_noun(len(score.seeds), 'seed')} that it has" if score.why_out else ""
    more = " ".join(part for part in (how, seeds) if part)
    return f"{name} ({more})" if more else name


def _who_finished(tied: Sequence[FinalistScore]) -> str:
    return " that finished the race" if any(score.why_out for score in tied) else ""


def _compare_runner_up(facts: Facts, comparison: Comparison, *, runner_up: TrialRecord) -> list[str]:
    name, winner = name_trial(runner_up), facts.winner
    assert winner is not None
    if winner.baseline is not None and winner.baseline.number == runner_up.number:
        return []  # said of the default recipe already
    if comparison.seed_pairs < 2:
        difference = f"{facts.ahead(comparison.difference)} with one seed in common"
        return [
            f"Against the runner-up, {name}, it is {difference}{_interval(facts, comparison)}: one seed cannot tell."
        ]
    if comparison.probability is None:
        return []
    probability = format_probability(comparison.probability)
    tail = ": the two cannot be told apart"
    if comparison.is_clear or comparison.is_worse:
        tail = (
            ": validation chose it, the test rows disagree"
            if comparison.split == "test"
            else " by the seeds that both have"
        )
        tail = "" if comparison.is_clear else tail
    if comparison.difference < 0.0:
        return [_behind_runner_up(comparison, name=name, tail=tail)]
    pairs = count_noun(comparison.seed_pairs, "common fold" if comparison.split == "folds" else "common seed")
    if winner.basis is not Basis.CONFIRMED:
        lead = f"ahead with {comparison.seed_wins} of {pairs}"
        return [f"It is better than the runner-up so far, {name}, with probability {probability} ({lead}){tail}."]
    wins = f"it won with {comparison.seed_wins} of {pairs}"
    verb = "beats" if comparison.is_clear else "is ahead of"
    return [f"It {verb} the runner-up, {name}, with probability {probability} ({wins}){tail}."]


def _behind_runner_up(comparison: Comparison, *, name: str, tail: str) -> str:
    """The other one has the better mean: on rows that did not choose, or because a tie goes to the default recipe."""
    assert comparison.probability is not None
    return f"The runner-up, {name}, is ahead of it with probability {format_probability(1.0 - comparison.probability)}{tail}."
