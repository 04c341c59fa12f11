"""A network that is slow, resets connections, or swallows everything for a while: all takes longer, and nothing is wrong."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.faults.checker import check
from tests.faults.figures import LONG, RecordProperty, record
from tests.faults.mob import HEARTBEAT, LEASE, make_study, mob
from tests.faults.proxy import bad_network
from tuner.api import load_study
from tuner.store.records import Outcome

pytestmark = pytest.mark.slow

KINDS = ["postgres", "mariadb"] if LONG else ["postgres"]
ROUND_TRIP = 0.5 if LONG else 0.03
SWALLOWED = 60.0 if LONG else 4.0
RESETS = 0.005 if LONG else 0.01  # of all messages; a transaction has about ten
TRIALS = {"slow": 6 if LONG else 2, "resets": 100 if LONG else 12, "swallows": 6 if LONG else 2}
EPOCHS = {"slow": 2, "resets": 4, "swallows": 20}


@pytest.mark.timeout(3600 if LONG else 300)
@pytest.mark.parametrize("fault", ["slow", "resets", "swallows"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_network_costs_only_time(
    tmp_path: Path, kind: str, fault: str, request: pytest.FixtureRequest, record_property: RecordProperty
) -> None:
    url = make_url(str(request.getfixturevalue(f"{kind}_url")))
    direct = url.render_as_string(hide_password=False)
    trials = TRIALS[fault]
    make_study(direct, trials=trials, epochs=EPOCHS[fault], pruner="none")
    seconds, resets = (ROUND_TRIP if fault == "slow" else 0.0), (RESETS if fault == "resets" else 0.0)
    with bad_network(port=int(url.port or 0), seconds=seconds, resets=resets) as network:
        through = url.set(port=network.port).render_as_string(hide_password=False)
        with mob(tmp_path, url=direct) as crowd:
            # A heartbeat takes some round trips: leases are for networks that are as slow as they are.
            lease, beat = (60.0, 10.0) if fault == "slow" else (LEASE, HEARTBEAT)
            for _ in range(2):
                crowd.start(storage=through, other_box=True, lease=lease, heartbeat=beat)
            if fault == "swallows":
                crowd.wait(lambda: len(crowd.lines("EpochReported")) > 4, what="both train")
                with network.swallowing():
                    time.sleep(SWALLOWED)
            crowd.wait_until_over()
            findings = check(url=direct, study="toy", ledger=crowd.ledger, trials=trials)
            exits = [line["status"] for line in crowd.lines("Exited")]
            said = crowd.tail()
    outcomes = [trial.outcome for trial in load_study("toy", storage=direct).trials]
    what: dict[str, tuple[str, float]] = {
        "slow": ("round trip ms", 1000 * ROUND_TRIP),
        "resets": ("resets", network.resets),
        "swallows": ("nothing gets through for s", SWALLOWED),
    }
    errored = outcomes.count(Outcome.ERRORED)
    figures = dict([what[fault]]) | {"trials": len(outcomes), "errored": errored, "wrong": findings.total}
    record(record_property, row=13, database=direct, figures=figures)
    assert findings.wrong == {}
    assert errored == 0
    assert exits == [0, 0], said
    assert fault != "resets" or network.resets > 0
