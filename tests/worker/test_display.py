"""What a worker shows, fed with the events of a made-up worker."""

from __future__ import annotations

import io
import os
import pty

import pytest

from tuner.store.records import Outcome, StudyState
from tuner.worker.display import LiveDisplay, PlainDisplay, choose_display
from tuner.worker.events import (
    Display,
    EpochReported,
    Event,
    Notice,
    RunClaimed,
    RunEnded,
    RunProgress,
    StudySeen,
    WorkerStarted,
)

COUNTS = {"complete": 0, "pruned": 0, "diverged": 0, "errored": 0, "infeasible": 0, "running": 0, "waiting": 0}


def started() -> WorkerStarted:
    return WorkerStarted(worker="w-1", host="box", slots=("cuda:0/0", "cuda:0/1"), storage="sqlite:///tuner.db")


def seen(
    study: str = "news", *, state: StudyState = StudyState.SEARCHING, complete: int = 0, best: int | None = None
) -> StudySeen:
    return StudySeen(
        study=study,
        state=state,
        counts={**COUNTS, "complete": complete},
        budget_trials=20,
        used_share=complete / 20,
        metric="macro_f1",
        best_number=best,
        best_value=None if best is None else 0.91234,
        best_strategy=None if best is None else "lora",
    )


def claimed(number: int = 3, *, study: str = "news", seed: int | None = None, attempt: int = 1) -> RunClaimed:
    return RunClaimed(
        study=study,
        number=number,
        seed=seed,
        slot="cuda:0/0",
        attempt=attempt,
        strategy="lora",
        params={"learning_rate": 0.00123, "batch_size": 16},
        epochs=4,
    )


def reported(number: int = 3, *, epoch: int = 1) -> EpochReported:
    return EpochReported(
        study="news",
        number=number,
        seed=None,
        slot="cuda:0/0",
        epoch=epoch,
        epochs=4,
        metric="macro_f1",
        value=0.75,
        seconds=12.0,
    )


def ended(number: int = 3, *, outcome: Outcome = Outcome.COMPLETE, reason: str = "") -> RunEnded:
    return RunEnded(
        study="news",
        number=number,
        seed=None,
        slot="cuda:0/0",
        outcome=outcome,
        reason=reason,
        metric="macro_f1",
        value=0.8,
        seconds=33.0,
    )


def plain(*events: Event) -> list[str]:
    """The lines of events, without the time of day."""
    stream = io.StringIO()
    shown = PlainDisplay(stream)
    for event in events:
        shown.show(event)
    shown.close()
    return [line.partition("  ")[2] for line in stream.getvalue().splitlines()]


def live(*events: Event, width: int = 80) -> str:
    """The last board that is drawn, as text."""
    stream = io.StringIO()
    shown = LiveDisplay(stream, width=width)
    for event in events:
        shown.show(event)
    stream.seek(0)
    stream.truncate()
    shown.close()
    return stream.getvalue()


def test_a_line_for_each_change() -> None:
    progress = RunProgress(study="news", number=3, slot="cuda:0/0", epoch=1, fraction=0.5)
    assert plain(started(), seen(), claimed(), progress, reported(), ended(), seen(complete=1, best=3)) == [
        "worker w-1 on box: cuda:0/0, cuda:0/1; database sqlite:///tuner.db",
        "study news is searching: 0 of 20 trials",
        "trial 3 lora on cuda:0/0: learning_rate=0.00123 batch_size=16",
        "trial 3 lora epoch 1 of 4: macro_f1 0.7500, 12 s so far",
        "trial 3 lora complete: macro_f1 0.8000, 33 s",
        "study news: best so far trial 3 lora: macro_f1 0.9123",
    ]


def test_nothing_is_said_twice() -> None:
    assert len(plain(seen(), seen(), seen(complete=1, best=3), seen(complete=1, best=3))) == 2


def test_bad_ends_say_why() -> None:
    lines = plain(seen(), ended(outcome=Outcome.PRUNED, reason="rank 5 of 5 there"))
    assert lines[-1] == "trial 3 pruned: rank 5 of 5 there, 33 s"


def test_later_attempts_and_fresh_seeds_are_named() -> None:
    lines = plain(claimed(attempt=2), claimed(seed=77))
    assert lines[0].startswith("trial 3 lora on cuda:0/0, attempt 2:")
    assert lines[1].startswith("trial 3 lora again with seed 77 on cuda:0/0:")


def test_the_study_is_named_where_there_are_several() -> None:
    assert plain(seen(), seen("mail"), claimed())[-1].startswith("news trial 3 lora")


def test_notices_tell_their_level_and_cannot_take_the_terminal_over() -> None:
    lines = plain(Notice(level="info", text="hello"), Notice(level="warning", text="\x1b[2Jgone"))
    assert lines == ["hello", "warning: ?[2Jgone"]


class _Closed(io.StringIO):
    def write(self, text: str, /) -> int:
        raise BrokenPipeError(text)


@pytest.mark.parametrize("kind", [PlainDisplay, LiveDisplay])
def test_a_display_that_cannot_write_does_not_stop_the_worker(kind: type[PlainDisplay | LiveDisplay]) -> None:
    stream = io.StringIO()
    shown: Display = kind(stream)
    stream.close()
    shown.show(claimed())
    shown.show(reported())
    shown.close()
    assert stream.closed


def test_a_broken_pipe_does_not_stop_the_worker() -> None:
    shown = PlainDisplay(_Closed())
    shown.show(claimed())
    assert plain(claimed()) != []


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_board_fits_the_terminal(width: int) -> None:
    text = live(
        started(),
        seen(complete=5, best=3),
        claimed(),
        reported(epoch=2),
        RunProgress(study="news", number=3, slot="cuda:0/0", epoch=3, fraction=0.5),
        ended(7, outcome=Outcome.PRUNED, reason="macro_f1 0.41 at epoch 1 is rank 9 of 9 there (best 0.91)" * 3),
        claimed(8),
        width=width,
    )
    lines = [line for line in text.splitlines() if line.strip()]
    assert max(len(line.rstrip()) for line in lines) <= width
    assert any(line.startswith("news  searching") for line in lines)
    assert any(line.endswith("5 of 20 trials") for line in lines)
    assert any(line.startswith("best  trial 3 lora: macro_f1 0.9123") for line in lines)
    assert any(line.split()[:4] == ["cuda:0/0", "8", "lora", "1/4"] for line in lines)
    assert any(line.split() == ["cuda:0/1", "free"] for line in lines)
    assert any("trial 7" in line and "pruned" in line for line in lines)


def test_the_board_never_cuts_a_notice() -> None:
    text = live(
        started(), Notice(level="warning", text="draining: trial 4 is given back " + "word " * 20 + "press again")
    )
    assert "press again" in " ".join(text.split())


def test_the_board_shows_the_confirmation() -> None:
    event = StudySeen(
        study="news",
        state=StudyState.CONFIRMING,
        counts=COUNTS,
        budget_trials=20,
        used_share=1.0,
        metric="macro_f1",
        best_number=3,
        best_value=0.9,
        best_strategy="head",
        confirmations=(2, 9),
    )
    text = live(started(), event, claimed(seed=77))
    assert "2 of 9 confirmation runs" in text
    assert "3 seed 77" in text


def test_the_time_that_is_left_follows_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stream = io.StringIO()
    shown = LiveDisplay(stream, width=80)
    shown.show(seen(complete=0))
    now = 160.0
    shown.show(seen(complete=5, best=3))
    shown.close()
    assert "about 3 min 0 s left" in stream.getvalue()


def test_a_terminal_gets_the_board_and_a_file_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(choose_display(io.StringIO()), PlainDisplay)
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setenv("TERM", "xterm")
        board = choose_display(stream)
        assert isinstance(board, LiveDisplay)
        board.close()
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(choose_display(stream), PlainDisplay)
    os.close(controller)
