"""Owner, worker, viewer: what each may do on a real server, and what it may not."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import pytest
from sqlalchemy.engine import make_url

from tests.faults.boxes import Box, assert_whole
from tests.store.toy import holder, run_out, sql, toy_study
from tuner import live
from tuner.dashboard.studies import StudiesApp
from tuner.errors import ConfigurationError, UnavailableError
from tuner.search.driver import StudyDriver
from tuner.store import roles, schema, studies, workers
from tuner.store.database import Database
from tuner.store.location import parse_url
from tuner.store.queries import load_snapshot
from tuner.store.records import Outcome
from tuner.store.roles import Duty

PASSWORD = "s3cr3t pässwörd %s {x} '\"/"


@pytest.fixture(params=["postgres", "mariadb"])
def admin(request: pytest.FixtureRequest) -> Iterator[Database]:
    with Database.open(str(request.getfixturevalue(f"{request.param}_url")), create=True) as database:
        yield database


@pytest.fixture
def url_of(admin: Database) -> Iterator[Callable[[Duty], str]]:
    """Gives the URL of a role of a database in which all three have been made."""
    prefix = f"t{secrets.token_hex(4)}"  # roles belong to the server, not to the database
    names = roles.role_names(prefix)
    for _ in range(2):  # it may run again
        roles.apply_roles(admin, roles.find_roles(admin, names), passwords=dict.fromkeys(Duty, PASSWORD))
    yield lambda duty: admin.url.set(username=names[duty], password=PASSWORD).render_as_string(hide_password=False)
    _drop(admin, names)


def _drop(admin: Database, names: Mapping[Duty, str]) -> None:
    for name in names.values():
        if admin.dialect == "mysql":
            admin.write(sql(f"DROP USER {name}"))
        else:
            admin.write(sql(f"DROP OWNED BY {name} CASCADE"))
            admin.write(sql(f"DROP ROLE {name}"))


@pytest.mark.filterwarnings("ignore:Some regimes for parameter:UserWarning")
def test_a_worker_s_role_serves_a_study_from_its_creation_to_its_end(url_of: Callable[[Duty], str]) -> None:
    with Database.open(url_of(Duty.WORKER), create=True) as db:  # the tables are there: nothing is created
        toy_study(db, budget={"trials": 12}, confirm={"finalists": 1, "seeds": 1})
        me = workers.Identity.of_this_process("w1")
        workers.register(db, me, devices=["cpu/0"], version="1", lease=60.0)
        workers.beat(db, "w1", number=1, state="running", lease=60.0)
        run_out(StudyDriver(db, name="toy"))
        workers.unregister(db, "w1")
        snapshot = load_snapshot(db, "toy")
    assert snapshot.study.counts["complete"] + snapshot.study.counts["pruned"] == 12
    assert snapshot.workers == ()


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE tuner_metrics",
        "ALTER TABLE tuner_metrics ADD COLUMN evil INTEGER",
        "CREATE TABLE evil (id INTEGER)",
        "CREATE INDEX evil ON tuner_metrics (epoch)",
        "DELETE FROM tuner_metrics",
        "DELETE FROM trials",
        "DELETE FROM tuner_events",
    ],
)
def test_a_worker_s_role_changes_no_table_and_deletes_nothing(url_of: Callable[[Duty], str], statement: str) -> None:
    with Database.open(url_of(Duty.WORKER)) as db, pytest.raises((ConfigurationError, UnavailableError)) as caught:
        db.write(sql(statement))
    assert any(word in str(caught.value) for word in ("denied", "must be owner")), caught.value
    with Database.open(url_of(Duty.OWNER)) as db:
        assert schema.read_state(db).is_current


def test_a_viewer_reads_everything_and_writes_nothing(url_of: Callable[[Duty], str]) -> None:
    with Database.open(url_of(Duty.WORKER)) as db:
        toy_study(db)
    url = url_of(Duty.VIEWER)
    with Database.open(url) as db:
        assert load_snapshot(db, "toy").study.name == "toy"
        for statement in (
            "UPDATE tuner_studies SET priority = 9",
            "DELETE FROM tuner_studies",
            "CREATE TABLE evil (id INT)",
        ):
            with pytest.raises((ConfigurationError, UnavailableError), match=r"denied|read-only"):
                db.write(sql(statement))
        with pytest.raises(ConfigurationError, match=r"denied|read-only"):
            toy_study(db, "other")
        assert [study.name for study in studies.list_studies(db)] == ["toy"]


def _asks(url: str) -> dict[str, Callable[[], object]]:
    """Everything that a person may ask of a running study."""
    return {
        "pause": lambda: live.pause_study("toy", storage=url),
        "resume": lambda: live.resume_study("toy", storage=url),
        "set": lambda: live.change_study("toy", trials=9, priority=1, storage=url),
        "enqueue": lambda: live.enqueue_trial("toy", strategy="lora", values={}, storage=url),
        "stop a trial": lambda: live.stop_trial("toy", number=0, storage=url),
        "retry a trial": lambda: live.retry_trials("toy", numbers=[1], storage=url),
        "drain": lambda: live.drain_workers(everyone=True, storage=url),
        "stop": lambda: live.stop_study("toy", storage=url),
    }


def test_a_worker_s_role_may_ask_and_a_viewer_may_not(url_of: Callable[[Duty], str]) -> None:
    with Database.open(url_of(Duty.WORKER)) as db:
        toy_study(db)
        driver = StudyDriver(db, name="toy")
        leases = [driver.claim(holder()) for _ in range(2)]
        assert leases[1] is not None
        driver.fail(leases[1], outcome=Outcome.ERRORED, reason="boom", seconds=1.0, log_tail="")
        me = workers.Identity.of_this_process("w1")
        workers.register(db, me, devices=["cpu/0"], version="1", lease=60.0)
    for ask in _asks(url_of(Duty.VIEWER)).values():
        with pytest.raises(ConfigurationError) as caught:
            ask()
        assert "use the URL of a role that may: docs/deployment.md, Roles" in str(caught.value)
        assert "\n" not in str(caught.value)
    asked = {what: ask() for what, ask in _asks(url_of(Duty.WORKER)).items()}
    assert asked["stop a trial"] is Outcome.RUNNING
    with Database.open(url_of(Duty.VIEWER)) as db:
        study = studies.find_study(db, "toy")
    assert (study.state.value, study.spec.budget.trials, study.used.trials) == ("stopped", 9, 3)


def test_the_dashboard_runs_as_a_viewer(url_of: Callable[[Duty], str]) -> None:
    with Database.open(url_of(Duty.WORKER)) as db:
        toy_study(db)
    said: list[str] = []

    def _start(status: str, _headers: object, _error: object = None, /) -> Callable[[bytes], object]:
        said.append(status)
        return lambda _: None

    environ: dict[str, object] = {"PATH_INFO": "/api/studies"}
    setup_testing_defaults(environ)
    with closing(StudiesApp(url_of(Duty.VIEWER))) as application:
        body = b"".join(application(environ, _start))
    assert said[0].startswith("200")
    assert b"toy" in body


def test_the_owner_upgrades_and_deletes(url_of: Callable[[Duty], str]) -> None:
    with Database.open(url_of(Duty.OWNER), create=True) as db:
        toy_study(db)
        assert schema.upgrade(db).is_current
        db.write(sql("CREATE TABLE tuner_later (id INTEGER)"))
        studies.delete_study(db, "toy")
    with Database.open(url_of(Duty.WORKER)) as db:  # what an upgrade adds is the workers' too
        db.write(sql("INSERT INTO tuner_later VALUES (1)"))
    with Database.open(url_of(Duty.VIEWER)) as db:
        assert db.read(lambda tx: tx.exec_driver_sql("SELECT id FROM tuner_later").scalar_one()) == 1


def test_the_plan_shows_no_password(admin: Database) -> None:
    found = roles.find_roles(admin, roles.role_names("shown"))
    plan = roles.plan_roles(admin, found, with_password=frozenset(Duty))
    assert sum(roles.HIDDEN in statement for statement in plan) == 3
    assert any("shown_viewer" in statement for statement in plan)


def test_sqlite_has_no_roles(sqlite_url: str) -> None:
    with Database(parse_url(sqlite_url)) as db, pytest.raises(ConfigurationError, match="SQLite has none"):
        roles.find_roles(db, roles.role_names("tuner"))


@pytest.mark.parametrize("prefix", ["", "1st", "a'b", "A", "x" * 30])
def test_a_prefix_that_makes_no_name_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot begin a role's name"):
        roles.role_names(prefix)


def test_the_url_of_a_role_survives_its_password(url_of: Callable[[Duty], str]) -> None:
    assert make_url(url_of(Duty.VIEWER)).password == PASSWORD


@pytest.mark.slow
def test_a_real_worker_needs_no_more_than_its_role(url_of: Callable[[Duty], str], tmp_path: Path) -> None:
    box = Box(tmp_path, url_of(Duty.WORKER), budget={"trials": 3})  # creates the study, too
    box.run()
    assert_whole(box.snapshot(), trials=3)
