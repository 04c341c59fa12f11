"""The verdict in words, honest about what is not known yet."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tuner.report.comparison import Savings
from tuner.report.facts import NO_MOVE, Facts, describe_params, name_trial
from tuner.report.folds import count_folds, describe_folds, describe_rounds
from tuner.report.formats import format_score, format_seconds
from tuner.report.rivals import against_baseline, against_runner_up, ahead_when_they_left
from tuner.report.troubles import list_troubles
from tuner.report.verdict import Basis, FinalistScore, Winner, common_seeds, comparable
from tuner.store.records import StudyRecord, StudySnapshot, StudyState
from tuner.study.names import count_noun

_FEW_SEEDS = 5


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
        return f"{_who(winner)} leads; the confirmation has not ended"
    if winner.basis is Basis.INCOMPLETE:
        return f"{_who(winner)} leads, not settled: {count_retrainings(winner)}"
    if study.state is StudyState.SEARCHING:
        score = f"{facts.metric} {format_score(_told(facts, winner))} {_on_rows(facts)}"
        return f"{_who(winner)} leads so far, the search goes on: {score}"
    return _settled_headline(facts, winner)


def _who(winner: Winner) -> str:
    name = winner.trial.strategy
    return f"The default recipe of {name}" if winner.score is not None and winner.score.is_baseline else name


def _settled_headline(facts: Facts, winner: Winner) -> str:
    name = winner.trial.strategy
    assert winner.score is not None
    score = f"{facts.metric} {format_score(_told(facts, winner))} {_on_rows(facts)}"
    if len(winner.score.seeds) == 1:
        over = ""
        if facts.baseline is not None and winner.baseline is not None:
            recipe = f"the default recipe of {winner.baseline.strategy}"
            over = f", {facts.ahead_of(facts.standing.expected_lead(facts.baseline), recipe)}"
        return f"{_who(winner)} scores best with one seed, which cannot tell: {score}{over}"
    if winner.score.is_baseline:
        clearly = " clearly" if winner.is_tie else ""
        left = " by any that finished the race" if ahead_when_they_left(facts) else ""
        return f"The default recipe of {name} was not{clearly} beaten{left}: {score}"
    if facts.baseline is None or winner.baseline is None:
        return f"{name} wins: {score}"
    recipe = f"the default recipe of {winner.baseline.strategy}"
    lead = facts.standing.expected_lead(facts.baseline)
    if facts.baseline.is_clear:
        return f"{name} wins: {score}, {facts.ahead_of(lead, recipe, word='over')}"
    if facts.baseline.probability is None:
        return f"{name} scores best, how surely cannot be told: {score}, {facts.ahead_of(lead, recipe)}"
    if facts.baseline.is_worse:
        return f"{name} wins on validation, but {recipe} is better on test: {score}, {facts.ahead(lead)}"
    if lead < 0:
        return f"{name} leads on validation, and cannot be told from {recipe} on test: {score}, {facts.ahead(lead)}"
    return f"{name} wins, but not clearly: {score}, {facts.ahead_of(lead, recipe)}"


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
        sentences += against_baseline(facts, winner)
        sentences += against_runner_up(facts, winner)
        sentences += _optimism(facts)
    sentences += _pruning(facts.savings)
    return tuple(sentences)


def count_retrainings(winner: Winner) -> str:
    """How much of the confirmation was done: ``2 of 6 re-trainings gave a score``."""
    return f"{winner.scored} of {count_noun(winner.planned, 're-training')} gave a score"


def _no_result(snapshot: StudySnapshot) -> tuple[str, ...]:
    counts = snapshot.study.counts
    present = [f"{number:,} {name}" for name, number in counts.items() if number]
    if not present:
        return (f"Start a worker: tuner worker start --study {snapshot.study.name}",)
    sentences = [f"Trials so far: {', '.join(present)}."]
    sentences += [f"{trouble.what}: {trouble.why}." for trouble in list_troubles(snapshot) if trouble.unit == "trial"]
    if snapshot.study.state is StudyState.PAUSED:
        sentences.append(f"The study is paused: {snapshot.study.state_reason}.")
    if counts.get("pruned") and not counts.get("running"):
        sentences.append("Trials were pruned before any was complete: the pruner compares too early.")
    return tuple(sentences)


def _what_won(facts: Facts, winner: Winner) -> str:
    values = describe_params(facts.params) or "no searched values"
    what = f"{name_trial(winner.trial)[0].upper()}{name_trial(winner.trial)[1:]} with {values}"
    if winner.score is None:
        complete = facts.snapshot.study.counts.get("complete", 0)
        return f"{what} has the best value of {count_noun(complete, 'complete trial')}."
    if winner.basis is Basis.CONFIRMED:
        return _what_was_confirmed(facts, winner, what=what)
    finalists = count_noun(len(facts.finalists), "finalist")
    if sum(score.mean is not None for score in facts.finalists) == 1:
        return f"{what} is the only one of {finalists} that has a score with a fresh seed."
    compared = comparable(facts.finalists)
    among = f"among the {len(compared)} of {finalists} that can be compared"
    seeds = sorted(common_seeds(compared))
    rows = "score on the held back rows" if winner.score.held_back else "validation score"
    if len(compared) == 1 and winner.score.is_baseline:
        return f"{what} leads while no other of {finalists} has enough fresh seeds in common with it."
    if not seeds:
        return f"{what} has the best mean {rows} {among}, but they have no fresh seed in common."
    common = f"over the {count_noun(len(seeds), 'fresh seed')} in common"
    if winner.is_tie:
        return f"{what} is not clearly beaten by any other {among}, {common}."
    return f"{what} has {_how_best(facts, winner.score, compared)} mean {rows} {among}, {common}."


def _what_was_confirmed(facts: Facts, winner: Winner, *, what: str) -> str:
    assert winner.score is not None
    seeds = describe_rounds(winner.score)
    among = count_noun(len(facts.finalists), "finalist")
    left = sum(not score.why_out for score in facts.finalists)
    if left < len(facts.finalists):
        among = f"{left} of {among}, which finished the race"
    if winner.is_tie:
        return f"{what} was not clearly beaten over {seeds} by any other of {among}."
    rows = "score on the held back rows" if winner.score.held_back else "validation score"
    racing = [score for score in facts.finalists if not score.why_out and score.mean is not None]
    return f"{what} has {_how_best(facts, winner.score, racing)} mean {rows} over {seeds} among {among}."


def _how_best(facts: Facts, score: FinalistScore, others: Sequence[FinalistScore]) -> str:
    """Best of all by the seeds that all have, or of those alone that may take the default recipe's place."""
    sign, seeds = 1.0 if facts.snapshot.study.maximize else -1.0, sorted(common_seeds(others))
    means = [sign * statistics.fmean(other.in_blocks(other.judged, seeds=seeds)) for other in (score, *others)]
    return "the best" if means[0] >= max(means) else "of those that beat the default recipe the best"


def _unconfirmed(facts: Facts, winner: Winner) -> list[str]:
    study = facts.snapshot.study
    sentences = []
    if winner.baseline is not None and winner.baseline.number == winner.trial.number:
        sentences.append("It is the strategy's default recipe: the search has not improved on it.")
    elif winner.baseline is not None and winner.baseline.value is not None and winner.claimed is not None:
        sign = 1.0 if study.maximize else -1.0
        recipe = f"the best default recipe, {name_trial(winner.baseline)}"
        sentences.append(f"That is {facts.ahead_of(sign * (winner.claimed - winner.baseline.value), recipe)}.")
    if study.state is StudyState.SEARCHING:
        sentences.append(f"The search is still running{_under_way(study)}.")
    elif study.state in (StudyState.PAUSED, StudyState.STOPPED):
        sentences.append(f"The study is {study.state.value}: {study.state_reason or 'no reason was given'}.")
    elif study.state is StudyState.FINISHED and winner.planned:
        sentences.append(_incomplete(winner))
    elif study.state is StudyState.CONFIRMING:
        sentences.append("The finalists are being trained again with fresh seeds; none has ended.")
    sentences.append(
        "The value comes from one seed on the rows that the search chose by, and it is the best of many: expect a "
        f"{'lower' if study.maximize else 'higher'} one on new data. Only fresh seeds can tell by how much."
    )
    return sentences


def _under_way(study: StudyRecord) -> str:
    open_trials = study.counts.get("running", 0) + study.counts.get("waiting", 0)
    return f": {count_noun(open_trials, 'trial')} under way" if open_trials else ""


def _incomplete(winner: Winner) -> str:
    why = f" The others: {', '.join(winner.gaps)}." if winner.gaps else ""
    return f"The confirmation is incomplete, nothing is settled: {count_retrainings(winner)}.{why}"


def _how_good(facts: Facts, winner: Winner) -> list[str]:
    score = winner.score
    assert score is not None
    sentences = []
    if winner.basis is Basis.CONFIRMING:
        planned = sum(finalist.planned for finalist in facts.finalists)
        ended = planned - sum(finalist.open for finalist in facts.finalists)
        sentences.append(f"Provisional: {ended} of {count_noun(planned, 're-training')} have ended.")
    if winner.basis is Basis.INCOMPLETE:
        sentences.append(_incomplete(winner))
    if facts.snapshot.study.state is StudyState.SEARCHING:
        where = _under_way(facts.snapshot.study)
        sentences.append(
            f"Provisional: the search goes on after this confirmation{where}; what it finds is compared with these."
        )
    missing = score.planned - len(score.seeds) - (score.open if winner.basis is Basis.CONFIRMING else 0)
    if missing:
        sentences.append(f"{count_noun(missing, 're-training')} of it gave no score; the mean is over the others.")
    sentences.append(_fresh_scores(facts, score))
    sentences += describe_folds(score, of=facts.snapshot.study.spec.data.folds)
    sentences += _expected(facts, winner)
    if winner.basis is Basis.CONFIRMED:
        sentences += _fell_out(facts)
    return sentences


def _told(facts: Facts, winner: Winner) -> float | None:
    """The number that is told of the winner: what to expect of it, not what it was chosen for."""
    if facts.standing.estimate is not None:
        return facts.standing.estimate.value
    return winner.score.final_mean if winner.score is not None else winner.claimed


def _on_rows(facts: Facts) -> str:
    standing = facts.standing
    if standing.split == "test":
        return f"on {count_noun(facts.test_rows, 'test row')}"
    if standing.split == "held-back":
        return f"on {count_noun(standing.rows, 'held back row')}"
    if standing.split == "folds" and facts.winner is not None and facts.winner.score is not None:
        return f"over {count_folds(facts.winner.score)}"
    return "on validation, fresh seeds"


def _fresh_scores(facts: Facts, score: FinalistScore) -> str:
    """What the re-trainings gave, and on which rows."""
    values = score.in_blocks(score.on(facts.standing.split) or score.judged, seeds=score.seeds)
    spread = f", standard deviation {format_score(statistics.stdev(values))}" if len(values) > 1 else ""
    seeds = count_noun(len(score.seeds), "seed")
    if len(values) < len(score.seeds):  # those of a fold are one block, and its mean is what counts
        seeds = f"{count_noun(len(values), 'fold')}, {seeds}"
    mean = format_score(statistics.fmean(values))
    if facts.standing.split == "test":
        where = f"On {count_noun(facts.test_rows, 'test row')}, which the search never saw, it scores"
        return f"{where} {facts.metric} {mean} (mean of {seeds}{spread})."
    has_test = facts.snapshot.study.spec.data.test is not None
    why = "No test score was stored" if has_test else "The study has no test rows"
    if facts.standing.split == "held-back":
        where = f"on {count_noun(facts.standing.rows, 'validation row')} that were held back from the search it scores"
        return f"{why}; {where} {facts.metric} {mean} (mean of {seeds}{spread})."
    if facts.standing.split == "folds":
        where = f"on the rows of {count_folds(score)}, which judged no trial, it scores"
        return f"{why}; {where} {facts.metric} {mean} (mean of {seeds}{spread})."
    return (
        f"{why}: {facts.metric} {mean} is the mean over fresh seeds on the validation rows{spread}, "
        "which the search has seen too, so it is a little too good."
    )


def _expected(facts: Facts, winner: Winner) -> list[str]:
    """What to expect of it, with its interval; nothing where one seed is all there is."""
    estimate, score = facts.standing.estimate, winner.score
    if estimate is None or score is None or len(score.seeds) < 2:
        return []
    values = score.on(facts.standing.split)
    moved = bool(values) and abs(estimate.luck) > NO_MOVE
    number = f"Expect {format_score(estimate.value)}"
    if moved:
        one = "fold" if score.folds else "seed"
        number += (
            f", its mean less the luck that it was chosen for: each {one}'s score counts where the other {one}s chose"
        )
    if estimate.low is None or estimate.high is None:
        return [f"{number}."] if moved else []
    over = "folds" if facts.standing.split == "folds" else "seeds, on these same rows"
    if facts.standing.is_row_luck_counted:
        over = "test rows and seeds" if facts.standing.split == "test" else "rows and seeds"
    is_few = len(set(score.folds or score.seeds)) < _FEW_SEEDS
    few = f": few {'folds' if score.folds else 'seeds'} make it wide" if is_few else ""
    return [f"{number} (95 % interval {format_score(estimate.low)} to {format_score(estimate.high)} over {over}{few})."]


def _fell_out(facts: Facts) -> list[str]:
    out = [score for score in facts.finalists if score.why_out]
    if not out:
        return []
    saved = sum(score.cancelled for score in out)
    names = ", ".join(f"{name_trial(score.trial)} after {count_noun(len(score.seeds), 'seed')}" for score in out)
    return [
        (
            f"Out of the race before its end: {names}; {count_noun(saved, 're-training')} "
            f"{'was' if saved == 1 else 'were'} cancelled."
        )
    ]


def _optimism(facts: Facts) -> list[str]:
    winner, standing = facts.winner, facts.standing
    if standing.optimism is None or standing.estimate is None or winner is None or winner.score is None:
        return []
    size = format_score(abs(standing.optimism))
    judgement = f"{size} too good" if standing.optimism > 0 else f"{size} too modest"
    is_one = len(winner.score.seeds) == 1
    rows = {"test": "on the test rows ", "held-back": "on the held back rows ", "folds": "on the other folds "}
    where = rows.get(standing.split, "")
    fresh = f"{where}{'one fresh seed gives' if is_one else 'fresh seeds say'}"
    verdict = f"the claim may be {judgement}" if is_one else f"the claim was {judgement}"
    return [
        (
            f"The search claimed {format_score(winner.claimed)} on validation; {fresh} "
            f"{format_score(standing.estimate.value)}: {verdict}."
        )
    ]


def _pruning(savings: Savings) -> list[str]:
    if not savings.pruned:
        return []
    sentence = (
        f"Pruning stopped {count_noun(savings.pruned, 'trial')} early and saved up to "
        f"{count_noun(savings.epochs_saved, 'epoch')}, about {format_seconds(savings.seconds_saved)} of device time "
        f"({format_seconds(savings.seconds_spent)} were spent on the search)."
    )
    return [sentence]
