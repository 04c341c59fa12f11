"""A worker talks to its database in some hundred messages. Each of them, and each answer, is lost once; and at each the worker dies once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy.engine import URL, make_url

from tests.faults.checker import check, read_ledger
from tests.faults.figures import LONG, RecordProperty, record
from tests.faults.mob import Mob, make_study, mob
from tests.faults.proxy import one_reset
from tuner.api import load_study
from tuner.study.domains import Value

pytestmark = pytest.mark.slow

KINDS = ["postgres", "mariadb"] if LONG else ["postgres"]
# Opening the database takes about twenty; three trials, of which the last is drawn by the sampler, take about six hundred.
MESSAGES = range(1, 601)
BROKEN = MESSAGES if LONG else MESSAGES[1:40:4]
DEADLY = MESSAGES if LONG else MESSAGES[9::120]
AT_ONCE = 20 if LONG else 10
TRIALS, EPOCHS = 3, 1


@pytest.fixture
def url(request: pytest.FixtureRequest) -> URL:
    """Of a fresh database of the kind that the test asks for."""
    return make_url(str(request.getfixturevalue(f"{request.param}_url")))


@pytest.mark.timeout(3600 if LONG else 300)
@pytest.mark.parametrize("is_heard", [False, True], ids=["message", "answer"])
@pytest.mark.parametrize("url", KINDS, indirect=True)
def test_a_connection_may_break_at_any_message(
    tmp_path: Path, url: URL, is_heard: bool, record_property: RecordProperty
) -> None:
    """The same worker goes on and leaves as if nothing had been."""
    wrong: dict[int, object] = {}
    with mob(tmp_path, url=_text(url)) as crowd:
        for messages in _batches(BROKEN):
            with contextlib.ExitStack() as stack:
                for at in messages:
                    proxy = stack.enter_context(one_reset(port=int(url.port or 0), at=at, is_heard=is_heard))
                    _start(crowd, at, storage=_text(url.set(port=proxy.port)), other_box=True)
                crowd.wait(lambda: not crowd.alive(), what="all workers have left")
            for at in messages:
                exits, findings = _look(crowd, at)
                if findings or exits != [0]:
                    wrong[at] = findings, exits, _said(crowd, at)
    what = "answers lost" if is_heard else "messages lost"
    record(record_property, row=40, database=_text(url), figures={what: len(BROKEN), "wrong": len(wrong)})
    assert wrong == {}


@pytest.mark.timeout(3600 if LONG else 300)
@pytest.mark.parametrize(
    "is_heard", [False, True] if LONG else [True], ids=["message", "answer"] if LONG else ["answer"]
)
@pytest.mark.parametrize("url", KINDS, indirect=True)
def test_a_worker_may_die_at_any_message(
    tmp_path: Path, url: URL, is_heard: bool, record_property: RecordProperty
) -> None:
    """Another worker finishes the study, with the trials that the first would have tried."""
    wrong: dict[int, object] = {}
    deaths = 0
    with mob(tmp_path, url=_text(url)) as crowd:
        _start(crowd, 0, storage=_text(url))
        crowd.wait(lambda: not crowd.alive(), what="all workers have left")
        undisturbed = _tried(crowd)
        for messages in _batches(DEADLY):
            with contextlib.ExitStack() as stack:
                for at in messages:
                    victim = _Victim(crowd)
                    proxy = stack.enter_context(
                        one_reset(port=int(url.port or 0), at=at, is_heard=is_heard, then=victim.die)
                    )
                    victim.is_born(_start(crowd, at, storage=_text(url.set(port=proxy.port))))
                crowd.wait(lambda: not crowd.alive(), what="all workers have left or died")
            for at in messages:
                _start(crowd, at, storage=_text(url), is_new=False)
            crowd.wait(lambda: not crowd.alive(), what="all others have left")
            for at in messages:
                exits, findings = _look(crowd, at)
                deaths += len(exits) == 1
                if findings or exits[-1:] != [0] or _tried(crowd) != undisturbed:
                    wrong[at] = findings, exits, _tried(crowd), _said(crowd, at)
    figures = {"messages at which it died": deaths, "wrong": len(wrong)}
    record(record_property, row=41, database=_text(url), figures=figures)
    assert wrong == {}
    assert deaths >= 0.7 * len(DEADLY)


class _Victim:
    """A worker that is killed at a message that it may send before its pid is known here."""

    def __init__(self, crowd: Mob) -> None:
        self._crowd = crowd
        self._pid = 0
        self._known = threading.Event()

    def is_born(self, pid: int) -> None:
        self._pid = pid
        self._known.set()

    def die(self) -> None:
        self._known.wait()
        self._crowd.kill(self._pid)


def _batches(messages: Sequence[int]) -> list[Sequence[int]]:
    return [messages[first : first + AT_ONCE] for first in range(0, len(messages), AT_ONCE)]


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _start(crowd: Mob, at: int, *, storage: str, other_box: bool = False, is_new: bool = True) -> int:
    """A worker of a study of its own; its pid."""
    _turn_to(crowd, at)
    if is_new:
        make_study(crowd.url, trials=TRIALS, epochs=EPOCHS, name=crowd.study, pruner="none")
    return crowd.start(storage=storage, other_box=other_box, lease=60.0)


def _turn_to(crowd: Mob, at: int) -> None:
    crowd.study = f"toy{at}"
    crowd.log, crowd.ledger = (crowd.log.with_name(f"{at}.{end}") for end in ("log", "jsonl"))


def _look(crowd: Mob, at: int) -> tuple[list[int], dict[str, int]]:
    """With what the workers of a study left, and what is wrong with it."""
    _turn_to(crowd, at)
    exits = [line["status"] for line in read_ledger(crowd.ledger) if line["event"] == "Exited"]
    files = crowd.ledger.with_name("files")
    return exits, check(url=crowd.url, study=crowd.study, ledger=crowd.ledger, trials=TRIALS, files=files).wrong


def _tried(crowd: Mob) -> list[tuple[str, dict[str, Value]]]:
    """What each trial of a study was."""
    return [(trial.strategy, dict(trial.params)) for trial in load_study(crowd.study, storage=crowd.url).trials]


def _said(crowd: Mob, at: int) -> str:
    return crowd.log.with_name(f"{at}.log").read_text(encoding="utf-8")[-2000:]
