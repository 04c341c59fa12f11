"""The verdict in words, honest about what is not known yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.report.comparison import Savings
from tuner.report.evidence import Comparison
from tuner.report.formats import (
    count_noun,
    format_count,
    format_difference,
    format_probability,
    format_score,
    format_seconds,
    format_value,
)
from tuner.report.verdict import Basis, FinalistScore, Winner
from tuner.store.records import Outcome, StudySnapshot, StudyState, TrialRecord
from tuner.study.domains import Value


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the words are made from; the fields mean what they mean in :class:`tuner.report.summary.Summary`."""

    snapshot: StudySnapshot
    winner: Winner | None
    params: Mapping[str, Value]
    finalists: Sequence[FinalistScore]
    test_rows: int
    baseline: Comparison | None
    runner_up: Comparison | None
    optimism: float | None
    cheaper: FinalistScore | None
    savings: Savings

    @property
    def metric(self) -> str:
        """The objective's metric."""
        return self.snapshot.study.metric


def write_headline(facts: Facts) -> str:
    """The verdict in one line."""
    winner = facts.winner
    study = facts.snapshot.study
    if winner is None:
        start = "No result" if study.state is StudyState.FINISHED else "No result yet"
        if not facts.snapshot.trials:
            return f"{start}: no trial has been claimed"
        return f"{start}: none of {count_noun(len(facts.snapshot.trials), 'trial')} is complete"
    name = winner.trial.strategy
    if winner.basis is Basis.SEARCH:
        lead = f"{name} leads with {facts.metric} {format_score(winner.claimed)} on validation"
        return f"{lead}, not confirmed" if study.state is StudyState.FINISHED else f"{lead} so far, not confirmed"
    if winner.basis is Basis.CONFIRMING:
        return f"{name} leads; the confirmation has not ended"
    assert winner.score is not None
    if winner.score.test_mean is not None:
        score = f"{facts.metric} {format_score(winner.score.test_mean)} on {count_noun(facts.test_rows, 'test row')}"
    else:
        score = f"{facts.metric} {format_score(winner.score.mean)} on validation, fresh seeds"
    if winner.score.is_baseline:
        return f"The default recipe of {name} was not beaten: {score}"
    if facts.baseline is None or winner.baseline is None:
        return f"{name} wins: {score}"
    recipe = f"the default recipe of {winner.baseline.strategy}"
    difference = format_difference(facts.baseline.difference)
    if facts.baseline.is_clear:
        return f"{name} wins: {score}, {difference} over {recipe}"
    if facts.baseline.probability is None:
        return f"{name} scores best, how surely cannot be told: {score}, {difference} against {recipe}"
    if facts.baseline.is_worse:
        return f"{name} wins on validation, but {recipe} is better on test: {score}, {difference}"
    return f"{name} wins, but not clearly: {score}, {difference} against {recipe}"


def write_sentences(facts: Facts) -> tuple[str, ...]:
    """The verdict in full, one fact a sentence."""
    winner = facts.winner
    if winner is None:
        return _no_result(facts.snapshot)
    sentences = [_what_won(facts, winner)]
    if winner.basis is Basis.SEARCH:
        sentences += _unconfirmed(facts, winner)
    else:
        sentences += _how_good(facts, winner)
        sentences += _against_baseline(facts, winner)
        sentences += _against_runner_up(facts, winner)
        sentences += _optimism(facts)
    sentences += _pruning(facts.savings)
    return tuple(sentences)


def describe_params(params: Mapping[str, Value]) -> str:
    """Values in one line: ``learning_rate 2.1e-3, batch_size 16``."""
    return ", ".join(f"{name} {format_value(value)}" for name, value in params.items())


def name_trial(trial: TrialRecord) -> str:
    """A trial in a few words: ``trial 7 (lora)``."""
    return f"trial {trial.number} ({trial.strategy})"


def _no_result(snapshot: StudySnapshot) -> tuple[str, ...]:
    counts = snapshot.study.counts
    present = [f"{number:,} {name}" for name, number in counts.items() if number]
    if not present:
        return (f"Start a worker: tuner worker start --study {snapshot.study.name}",)
    sentences = [f"Trials so far: {', '.join(present)}."]
    bad = [trial for trial in snapshot.trials if trial.outcome in (Outcome.FAILED, Outcome.INFEASIBLE)]
    if bad:
        last = bad[-1]
        sentences.append(f"The last that ended badly is {name_trial(last)}: {last.reason or last.outcome.value}.")
    if counts.get("pruned") and not counts.get("running"):
        sentences.append("Trials were pruned before any was complete: the pruner compares too early.")
    return tuple(sentences)


def _what_won(facts: Facts, winner: Winner) -> str:
    values = describe_params(facts.params) or "no searched values"
    what = f"{name_trial(winner.trial)[0].upper()}{name_trial(winner.trial)[1:]} with {values}"
    if winner.score is None:
        complete = facts.snapshot.study.counts.get("complete", 0)
        return f"{what} has the best value of {count_noun(complete, 'complete trial')}."
    done = sum(score.mean is not None for score in facts.finalists)
    seeds = count_noun(len(winner.score.seeds), "fresh seed")
    return f"{what} has the best mean validation score over {seeds} among {count_noun(done, 'finalist')}."


def _unconfirmed(facts: Facts, winner: Winner) -> list[str]:
    study = facts.snapshot.study
    sentences = []
    if winner.baseline is not None and winner.baseline.number == winner.trial.number:
        sentences.append("It is the strategy's default recipe: the search has not improved on it.")
    elif winner.baseline is not None and winner.baseline.value is not None and winner.claimed is not None:
        sign = 1.0 if study.maximize else -1.0
        gain = format_difference(sign * (winner.claimed - winner.baseline.value))
        sentences.append(f"That is {gain} against the best default recipe, {name_trial(winner.baseline)}.")
    if study.state is StudyState.SEARCHING:
        open_trials = study.counts.get("running", 0) + study.counts.get("waiting", 0)
        under_way = f": {count_noun(open_trials, 'trial')} under way" if open_trials else ""
        sentences.append(f"The search is still running{under_way}.")
    elif study.state in (StudyState.PAUSED, StudyState.STOPPED):
        sentences.append(f"The study is {study.state.value}: {study.state_reason or 'no reason was given'}.")
    elif study.state is StudyState.CONFIRMING:
        sentences.append("The finalists are being trained again with fresh seeds; none has ended.")
    sentences.append(
        "The value comes from one seed on the rows that the search chose by, and it is the best of many: expect a "
        f"{'lower' if study.maximize else 'higher'} one on new data. Only fresh seeds can tell by how much."
    )
    return sentences


def _how_good(facts: Facts, winner: Winner) -> list[str]:
    score = winner.score
    assert score is not None
    sentences = []
    if winner.basis is Basis.CONFIRMING:
        planned = sum(finalist.planned for finalist in facts.finalists)
        ended = planned - sum(finalist.open for finalist in facts.finalists)
        sentences.append(f"Provisional: {ended} of {count_noun(planned, 're-training')} have ended.")
    missing = score.planned - score.open - len(score.seeds)
    if missing:
        sentences.append(f"{count_noun(missing, 're-training')} of it gave no score; the mean is over the others.")
    if score.test_mean is not None:
        spread = f", standard deviation {format_score(score.test_sd)}" if score.test_sd is not None else ""
        seeds = count_noun(len(score.seeds), "seed")
        sentences.append(
            f"On {count_noun(facts.test_rows, 'test row')}, which the search never saw, it scores "
            f"{facts.metric} {format_score(score.test_mean)} (mean of {seeds}{spread})."
        )
        return sentences
    has_test = facts.snapshot.study.spec.data.test is not None
    why = "No test score was stored" if has_test else "The study has no test rows"
    sentences.append(
        f"{why}: {facts.metric} {format_score(score.mean)} is the mean over fresh seeds on the validation rows, "
        "which also chose the winner, so it is a little too good."
    )
    return sentences


def _against_baseline(facts: Facts, winner: Winner) -> list[str]:
    if winner.score is not None and winner.score.is_baseline:
        return ["It is the default recipe itself: no other finalist did better with fresh seeds."]
    comparison = facts.baseline
    if comparison is None or winner.baseline is None:
        return ["It was not compared with a default recipe: none was trained again with fresh seeds."]
    where = "over test rows and seeds" if comparison.rows else f"over seeds on the {comparison.split} rows"
    interval = ""
    if comparison.low is not None and comparison.high is not None and comparison.probability is not None:
        interval = (
            f" (95 % interval {format_difference(comparison.low)} to {format_difference(comparison.high)} {where}); "
            f"the probability that it is better is {format_probability(comparison.probability)}"
        )
    sentence = (
        f"Against the default recipe, {name_trial(winner.baseline)}, that is "
        f"{format_difference(comparison.difference)}{interval}."
    )
    if comparison.probability is None and comparison.seed_pairs > 1:
        return [sentence, "The seeds do not differ in score, so nothing can be said about how sure that is."]
    if comparison.probability is None:
        return [sentence, "With fewer than two seeds on each side nothing can be said about how sure that is."]
    if comparison.is_clear:
        return [sentence]
    if comparison.is_worse:
        return [sentence, "Validation chose it, the test rows disagree: prefer the default recipe."]
    return [sentence, "The difference is not larger than what chance may give."]


def _against_runner_up(facts: Facts, winner: Winner) -> list[str]:
    comparison = facts.runner_up
    sentences = []
    if comparison is not None and winner.runner_up is not None and comparison.probability is not None:
        probability = format_probability(comparison.probability)
        wins = f"it won with {comparison.seed_wins} of {count_noun(comparison.seed_pairs, 'common seed')}"
        tail = "" if comparison.is_clear else ": the two cannot be told apart"
        sentences.append(
            f"It beats the runner-up, {name_trial(winner.runner_up)}, with probability {probability} ({wins}){tail}."
            if comparison.seed_pairs
            else f"It beats the runner-up, {name_trial(winner.runner_up)}, with probability {probability}{tail}."
        )
    if facts.cheaper is not None:
        sentences.append(
            f"{name_trial(facts.cheaper.trial)[0].upper()}{name_trial(facts.cheaper.trial)[1:]} is not clearly worse "
            f"and trains {format_count(facts.cheaper.trial.trainable_params)} parameters instead of "
            f"{format_count(winner.trial.trainable_params)}."
        )
    return sentences


def _optimism(facts: Facts) -> list[str]:
    winner = facts.winner
    if facts.optimism is None or winner is None or winner.score is None:
        return []
    size = format_score(abs(facts.optimism))
    judgement = f"{size} too good" if facts.optimism > 0 else f"{size} too modest"
    sentence = (
        f"The search claimed {format_score(winner.claimed)} on validation; fresh seeds average "
        f"{format_score(winner.score.mean)}: the claim was {judgement}."
    )
    return [sentence]


def _pruning(savings: Savings) -> list[str]:
    if not savings.pruned:
        return []
    sentence = (
        f"Pruning stopped {count_noun(savings.pruned, 'trial')} early and saved up to "
        f"{count_noun(savings.epochs_saved, 'epoch')}, about {format_seconds(savings.seconds_saved)} of device time "
        f"({format_seconds(savings.seconds_spent)} were spent on the search)."
    )
    return [sentence]
