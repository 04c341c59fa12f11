"""What went wrong is counted by type, with the reason that was given most."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.cli.rehearsal import open_study, play_trouble
from tests.report.samples import make_spec, make_study, make_trial
from tuner.api import load_study
from tuner.report.page import render_page
from tuner.report.troubles import list_troubles
from tuner.store.records import Outcome, StudySnapshot, TrialRecord


def snapshot_of(*trials: TrialRecord) -> StudySnapshot:
    return StudySnapshot(study=make_study(spec=make_spec(), trials=trials), trials=trials, finalists=())


def bad(number: int, outcome: Outcome, reason: str) -> TrialRecord:
    return make_trial(number, outcome=outcome, values=(), reason=reason)


def test_reasons_that_differ_in_numbers_only_are_one_reason() -> None:
    found = list_troubles(
        snapshot_of(
            bad(0, Outcome.DIVERGED, "f1 is nan"),
            bad(1, Outcome.DIVERGED, "the loss grew to 2.1e+03 in epoch 1, step 7"),
            bad(2, Outcome.DIVERGED, "the loss grew to 9.4e+12 in epoch 3, step 118"),
            bad(3, Outcome.INFEASIBLE, ""),
            make_trial(4, values=(0.5,)),
        )
    )
    assert [(trouble.what, trouble.why, trouble.trials) for trouble in found] == [
        ("3 trials diverged", "the loss grew to 2.1e+03 in epoch 1, step 7 (2 of 3)", (0, 1, 2)),
        ("1 trial infeasible", "no reason was given", (3,)),
    ]


def test_attempts_count_where_there_was_another_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    open_study(url, trials=20)
    play_trouble(url)
    found = {
        (trouble.unit, trouble.outcome.value): trouble for trouble in list_troubles(load_study("played", storage=url))
    }
    assert {key: len(trouble.numbers) for key, trouble in found.items()} == {
        ("trial", "errored"): 2,
        ("trial", "diverged"): 1,
        ("trial", "infeasible"): 1,
        ("attempt", "lost"): 3,
        ("attempt", "errored"): 1,
        ("attempt", "preempted"): 1,
    }
    assert found["attempt", "lost"].why == "the runner was killed by SIGABRT (2 of 3)"
    assert found["attempt", "lost"].trials == (7, 8)
    assert found["trial", "errored"].meaning != found["attempt", "errored"].meaning


def test_the_page_names_each_type(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    open_study(url, trials=20)
    play_trouble(url)
    snapshot = load_study("played", storage=url)
    page = render_page(snapshot)
    assert '2 trials <span class="state errored">errored</span>' in page
    assert '3 attempts <span class="state lost">lost</span>' in page
    assert "OSError: [Errno 5] Input/output error: &#39;/data/rows.csv&#39;" in page
    good = tuple(trial for trial in snapshot.trials if trial.outcome is Outcome.COMPLETE and len(trial.attempts) == 1)
    assert "What went wrong" not in render_page(replace(snapshot, trials=good))


def test_a_second_chance_with_less_memory_is_an_attempt_that_was_infeasible() -> None:
    trial = make_trial(3, values=(0.5,))
    short = replace(trial.attempts[0], outcome=Outcome.INFEASIBLE, reason="out of memory with 8 rows")
    (trouble,) = list_troubles(snapshot_of(replace(trial, attempts=(short, replace(trial.attempts[0], attempt=2)))))
    assert (trouble.what, trouble.why) == ("1 attempt infeasible", "out of memory with 8 rows")
    assert "a fresh process" in trouble.meaning
