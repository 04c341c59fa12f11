"""Two boxes and a database on a third: one is cut off for longer than its lease, and comes back.

The boxes are network namespaces with a cable each. Where those are not allowed, a proxy before the database stands for each
cable; that form runs everywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest
from sqlalchemy.engine import make_url

from tests.faults.checker import check, read_ledger
from tests.faults.figures import RecordProperty, record
from tests.faults.mob import LEASE, Mob, make_study, mob
from tests.faults.networks import NoNamespaces, hoses, network
from tests.postgres import PostgresServer, running_server
from tuner.api import load_study
from tuner.store.records import Outcome, TrialRecord

pytestmark = pytest.mark.slow

EPOCHS = 60  # about 9 seconds of training
HEAD_START = 40  # epochs that the other box has done when the first one begins: it is free when the lease runs out


class Line(Protocol):
    """The connection between a box and the database."""

    def cut(self) -> None: ...
    def mend(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Place:
    """A box: how its programs are started, what connects it, and the database as it sees it."""

    within: tuple[str, ...]
    line: Line
    url: str


@dataclass(frozen=True, kw_only=True)
class Site:
    """Two boxes, and the database as the test sees it."""

    url: str
    places: tuple[Place, Place]


@contextlib.contextmanager
def namespaces() -> Iterator[Site]:
    """Boxes as network namespaces; the test stands in that of the database."""
    with (
        network("left", "right") as cables,
        running_server("listen_addresses=0.0.0.0") as server,
        server.database() as url,
    ):
        admit(server, "10.99.0.0/16")
        here = make_url(url)
        there = [here.set(host=cable.address).update_query_dict({"sslmode": "disable"}) for cable in cables]
        left, right = (
            Place(within=cable.box.within, line=cable, url=seen.render_as_string(hide_password=False))
            for cable, seen in zip(cables, there, strict=True)
        )
        yield Site(url=url, places=(left, right))


def admit(server: PostgresServer, network: str) -> None:
    """Let a network in, with a password as from everywhere."""
    with (server.data / "pg_hba.conf").open("a", encoding="utf-8") as file:
        file.write(f"host all all {network} scram-sha-256\n")
    server.execute("SELECT pg_reload_conf()")


@contextlib.contextmanager
def proxies() -> Iterator[Site]:
    """Boxes as proxies of one machine."""
    with running_server() as server, server.database() as url, hoses(port=server.port, number=2) as made:
        left, right = (
            Place(
                within=(),
                line=hose,
                url=make_url(url).set(port=hose.port).render_as_string(hide_password=False),
            )
            for hose in made
        )
        yield Site(url=url, places=(left, right))


def lines_of(crowd: Mob, *, study: str = "", after: float = 0.0, **wanted: Any) -> list[dict[str, Any]]:
    """What the workers were acknowledged: of a study, after a moment, with these values."""
    if not crowd.ledger.exists():
        return []
    return [
        line
        for line in read_ledger(crowd.ledger)
        if (not study or line.get("study") == study)
        and line["at"] > after
        and all(line.get(name) == value for name, value in wanted.items())
    ]


def has_trained_to_the_end(folder: Path, number: int) -> bool:
    """Whether the first attempt at a trial has done all its epochs, whatever the database knows of it."""
    states = (folder / "files" / "checkpoints").glob(f"*/trial-{number}/attempt-1/epoch-*/state.json")
    return any(json.loads(state.read_text())["epochs"] == EPOCHS for state in states)


def rows_of(trial: TrialRecord, attempt: int) -> list[Any]:
    """What the database has of an attempt."""
    return [epoch for epoch in trial.epochs if epoch.attempt == attempt]


# A box that comes back tells what it did meanwhile: epochs of a trial that it still trains, or the end of one that it has finished.
# Behind a proxy, whose kernel acknowledges every packet, it waits for an answer instead of training on, so it has no end to tell.
@pytest.mark.parametrize(("form", "late"), [("namespaces", "epochs"), ("namespaces", "end"), ("proxies", "epochs")])
def test_a_box_that_was_cut_off_changes_nothing_and_lives_on(
    tmp_path: Path, form: str, late: str, record_property: RecordProperty
) -> None:
    with contextlib.ExitStack() as stack:
        site = built(form, stack)
        (near, far) = site.places
        make_study(site.url, trials=2, epochs=EPOCHS, name="boxes")
        left = stack.enter_context(mob(tmp_path, url=site.url, study="boxes", within=near.within))
        right = stack.enter_context(mob(tmp_path, url=site.url, study="boxes", within=far.within))
        serve_all: dict[str, Any] = {"studies": [], "until_done": False, "other_box": True}

        other = right.start(storage=far.url, **serve_all)
        right.wait(lambda: bool(lines_of(right, pid=other, epoch=HEAD_START)), what="the other box has a head start")
        worker = left.start(storage=near.url, **serve_all)
        left.wait(lambda: bool(lines_of(left, pid=worker, epoch=2)), what="the box has told two epochs")
        (held,) = {line["number"] for line in lines_of(left, pid=worker)}

        near.line.cut()
        cut_at = time.time()
        right.wait(lambda: bool(lines_of(right, pid=other, number=held, epoch=EPOCHS // 2)), what="its trial goes on")
        taken_at = lines_of(right, pid=other, number=held, event="RunClaimed")[0]["at"]
        while time.time() < cut_at + 2 * LEASE:
            time.sleep(0.1)
        if late == "end":
            left.wait(lambda: has_trained_to_the_end(tmp_path, held), what="the box has trained on by itself")
        else:
            assert not has_trained_to_the_end(tmp_path, held), "nothing is left for the box to tell"
        before = rows_of(load_study("boxes", storage=site.url).trial(held), 1)
        near.line.mend()
        mended_at = time.time()

        make_study(site.url, trials=6, epochs=4, name="next")
        left.wait(lambda: bool(lines_of(left, study="next", pid=worker)), what="the box takes new trials")
        back_at = lines_of(left, study="next", pid=worker)[0]["at"]
        left.wait(lambda: is_over(site.url, "boxes") and is_over(site.url, "next"), what="both studies are over")
        for pid in (worker, other):
            assert psutil.pid_exists(pid), left.tail()
            os.kill(pid, signal.SIGTERM)
        left.wait(lambda: not left.alive(), what="the box's worker has left")
        right.wait(lambda: not right.alive(), what="the other worker has left")
        said = left.tail()
        trial = load_study("boxes", storage=site.url).trial(held)
        findings = {name: checked(site.url, name, left, tmp_path, trials=n).wrong for name, n in SIZES.items()}

    assert findings == {"boxes": {}, "next": {}}
    assert [attempt.outcome for attempt in trial.attempts] == [Outcome.LOST, Outcome.COMPLETE]
    assert trial.attempts[0].worker != trial.attempts[1].worker
    assert rows_of(trial, 1) == before, "a late write was stored"
    assert lines_of(left, study="boxes", pid=worker, number=held, after=cut_at, event="EpochReported") == []
    ends = lines_of(left, study="boxes", pid=worker, number=held, event="RunEnded")
    assert Outcome.COMPLETE.value not in {end["outcome"] for end in ends}
    assert "Traceback" not in said
    figures: dict[str, float | str] = {
        "cut off for s": round(mended_at - cut_at, 1),
        "s until another box had its trial": round(taken_at - cut_at, 1),
        "late writes that changed something": 0,
        "s until it had a new trial": round(back_at - mended_at, 1),
    }
    record(
        record_property,
        row=39,
        database="postgresql",
        figures={f"{form}, late {late}: {name}": one for name, one in figures.items()},
    )


SIZES = {"boxes": 2, "next": 6}


def built(form: str, stack: contextlib.ExitStack) -> Site:
    """The boxes; skips where the kernel does not allow them, because the other form shows the same."""
    try:
        return stack.enter_context(namespaces() if form == "namespaces" else proxies())
    except NoNamespaces as error:
        pytest.skip(f"no network namespaces here ({error}); the form with proxies shows the same")


def is_over(url: str, study: str) -> bool:
    return not load_study(study, storage=url).study.state.is_open


def checked(url: str, study: str, crowd: Mob, folder: Path, *, trials: int) -> Any:
    """The checker's findings about one of the two studies."""
    ledger = folder / f"{study}.jsonl"
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines_of(crowd, study=study)), encoding="utf-8")
    return check(url=url, study=study, ledger=ledger, trials=trials)
