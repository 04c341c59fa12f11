"""What a training costs, as the runs so far tell."""

from __future__ import annotations

import pytest

from tuner.store.costs import (
    count_running,
    most_seconds_needed,
    seconds_expected,
    seconds_needed,
    seconds_reserved,
)
from tuner.store.records import Outcome, RunGroup


def group(
    strategy: str,
    outcome: Outcome = Outcome.COMPLETE,
    *,
    runs: int = 1,
    epochs: int = 4,
    seconds: float = 0.0,
    in_search: bool = True,
) -> RunGroup:
    return RunGroup(
        in_search=in_search,
        strategy=strategy,
        outcome=outcome,
        runs=runs,
        epochs=epochs,
        reserved=4,
        seconds=seconds,
    )


FULL = group("full", runs=2, seconds=80.0)
HEAD = group("head", Outcome.PRUNED, runs=6, epochs=1, seconds=6.0)


def test_nothing_is_known_before_the_first_epoch() -> None:
    begun = group("full", Outcome.RUNNING, epochs=0, seconds=9.0)
    assert seconds_needed([]) is None
    assert seconds_needed([begun]) is None
    assert most_seconds_needed([begun]) is None
    assert seconds_reserved([begun], in_search=True) == 0.0


def test_complete_trials_tell_it_and_else_the_epochs_that_were_trained() -> None:
    assert seconds_needed([FULL, HEAD], strategy="full") == 40.0
    assert seconds_needed([FULL, group("full", Outcome.PRUNED, epochs=1, seconds=99.0)], strategy="full") == 40.0
    assert seconds_needed([FULL, HEAD], strategy="head") == 4.0
    running = group("head", Outcome.RUNNING, epochs=2, seconds=3.0)
    assert seconds_needed([running], strategy="head") == 6.0
    assert seconds_needed([running, HEAD], strategy="head") == 4.0


def test_a_new_trial_is_expected_to_cost_what_half_of_them_did_pruned_ones_included() -> None:
    assert seconds_expected([]) is None
    assert seconds_expected([group("full", Outcome.RUNNING, epochs=2, seconds=3.0)]) == 6.0
    assert seconds_expected([FULL, HEAD, group("full", Outcome.ERRORED, seconds=9.0)]) == 1.0
    assert seconds_expected([FULL, group("full", Outcome.PRUNED, runs=5, epochs=0)]) == 40.0  # cut before they began
    assert seconds_expected([FULL, group("full", in_search=False, seconds=9.0)]) == 40.0


@pytest.mark.parametrize(("cheap", "expected"), [(1, 40.0), (2, 7.0), (3, 7.0)])
def test_half_of_the_trials_fit_into_what_a_new_one_is_expected_to_cost(cheap: int, expected: float) -> None:
    stopped = group("full", Outcome.PRUNED, runs=cheap, epochs=1, seconds=7.0 * cheap)
    assert seconds_expected([FULL, stopped]) == expected


def test_a_trial_of_any_strategy_costs_the_mean_of_those_so_far() -> None:
    mean = (2 * 40.0 + 6 * 4.0) / 8
    assert seconds_needed([FULL, HEAD]) == mean
    assert seconds_needed([FULL, HEAD], strategy="lora") == mean
    assert most_seconds_needed([FULL, HEAD]) == 40.0


@pytest.mark.parametrize("outcome", [Outcome.ERRORED, Outcome.INFEASIBLE, Outcome.DIVERGED])
def test_what_ended_badly_tells_nothing(outcome: Outcome) -> None:
    assert seconds_needed([FULL, group("full", outcome, runs=9, epochs=1, seconds=1.0)]) == 40.0


def test_what_runs_is_promised_the_rest_of_its_epochs() -> None:
    fresh = group("full", Outcome.RUNNING, epochs=0, seconds=5.0)
    assert seconds_reserved([FULL, fresh], in_search=True) == 35.0
    slow = group("full", Outcome.RUNNING, runs=2, epochs=2, seconds=60.0)  # at 15 s an epoch each
    assert seconds_reserved([FULL, slow], in_search=True) == 60.0
    waiting = group("", Outcome.WAITING, epochs=0)
    assert seconds_reserved([FULL, waiting], in_search=True) == 40.0
    late = group("full", Outcome.RUNNING, epochs=0, seconds=99.0)
    assert seconds_reserved([FULL, late], in_search=True) == 0.0
    assert count_running([FULL, slow, waiting, late]) == 3


def test_a_retraining_that_waits_is_promised_nothing() -> None:
    waiting = group("full", Outcome.WAITING, runs=8, epochs=0, in_search=False)
    running = group("full", Outcome.RUNNING, epochs=0, in_search=False)
    assert seconds_reserved([FULL, waiting, running], in_search=False) == 40.0
    assert seconds_reserved([FULL, waiting, running], in_search=True) == 0.0
