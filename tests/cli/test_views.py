"""The winner in words and as a document, from studies that no real search gives quickly."""

from __future__ import annotations

from dataclasses import replace

from tests.cli.test_json import validate
from tests.report.samples import cut_short, make_finalist, make_spec, make_study, make_trial
from tuner.cli.documents import best_document
from tuner.cli.verdict import verdict_document
from tuner.cli.views import finalist_lines, study_lines, winner_words, workers_lines
from tuner.report import summarise
from tuner.report.verdict import choose_winner
from tuner.store.records import FinalistRecord, Outcome, StudySnapshot, StudyState, TrialRecord, WorkerRecord

RECIPE = make_trial(0, strategy="full", values=(0.80,), is_recipe=True)
BEST = make_trial(1, values=(0.95,))


def snapshot_of(
    *finalists: FinalistRecord,
    trials: tuple[TrialRecord, ...] = (RECIPE, BEST),
    state: StudyState = StudyState.FINISHED,
) -> StudySnapshot:
    return StudySnapshot(
        study=make_study(spec=make_spec(), trials=trials, state=state), trials=trials, finalists=finalists
    )


def test_a_winner_without_a_value_of_the_search() -> None:
    unreported = replace(RECIPE, outcome=Outcome.PRUNED, value=None, best_epoch=None, epochs=())
    snapshot = snapshot_of(make_finalist(0, rank=2, validation=(0.96, 0.97)), trials=(unreported, BEST))
    winner = choose_winner(snapshot)
    assert winner is not None
    assert winner_words(winner, "macro_f1")[1] == "no macro_f1 in the search, where it was pruned"
    document = best_document(winner, "macro_f1")
    answer = {
        "schema_version": 1,
        "name": "reuters-r8",
        "best": document,
        "verdict": verdict_document(summarise(snapshot)),
    }
    validate(answer, "study-best")
    assert document["values"] == {}


def test_an_incomplete_confirmation_is_said_in_words_and_as_a_document() -> None:
    why = "budget of 0.5 device hours is used"
    snapshot = snapshot_of(
        cut_short(make_finalist(1, rank=1, validation=(0.9, 0.9)), kept=0, reason=why),
        make_finalist(0, rank=2, validation=(0.79, 0.81), is_baseline=True),
    )
    winner = choose_winner(snapshot)
    assert winner is not None
    assert winner_words(winner, "macro_f1")[3:] == [
        "not settled, the confirmation is incomplete: 2 of 4 re-trainings gave a score",
        f"  2 stopped ({why})",
    ]
    shown = [line for line in finalist_lines(snapshot) if " of 2 " in line]
    assert [("2 of 2" in line, "0 of 2" in line) for line in shown] == [(True, False), (False, True)]
    assert study_lines(snapshot)[1].split(maxsplit=1)[1] == "finished (the confirmation is incomplete)"
    document = best_document(winner, "macro_f1")
    answer = {
        "schema_version": 1,
        "name": "reuters-r8",
        "best": document,
        "verdict": verdict_document(summarise(snapshot)),
    }
    validate(answer, "study-best")
    assert document["basis"] == "incomplete"


def test_one_seed_is_called_one_seed() -> None:
    winner = choose_winner(snapshot_of(make_finalist(1, rank=1, validation=(0.9,))))
    assert winner is not None
    assert winner_words(winner, "macro_f1")[-1] == "one seed cannot tell how much of its lead is the luck of the seed"


def test_a_worker_without_a_sign_of_life_is_silent() -> None:
    worker = WorkerRecord(
        worker="w-1", host="box", pid=1, devices=("cpu/0",), state="running", started_at=0.0, seen_at=0.0, is_alive=True
    )
    over = replace(worker, is_alive=False)
    for record, now, state in ((worker, 40.0, "running"), (worker, 46.0, "silent"), (over, 1.0, "silent")):
        assert workers_lines([record], now=now, width=None)[1].split()[4] == state
