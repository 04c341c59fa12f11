"""Our tables, beside Optuna's in the same database.

Optuna owns trials, parameters and values, so that its dashboard and command line work on a tuner database as they
are. What Optuna cannot hold is here: the study file, leases, attempts, every metric, workers and events.

Times are seconds since 1970 by the database's clock (:func:`db_now`): neither a worker's clock nor a session's time zone
can make a lease look stale. There are no foreign keys into Optuna's tables: deleting a study in Optuna's dashboard must not fail.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.mysql import DOUBLE, LONGTEXT
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

metadata = MetaData()

# MySQL's TEXT ends at 64 KiB and its FLOAT at 7 digits; the other databases need no word.
_LongText = Text().with_variant(LONGTEXT(), "mysql", "mariadb")
_Double = Float(precision=53).with_variant(DOUBLE(asdecimal=False), "mysql", "mariadb")

studies = Table(
    "tuner_studies",
    metadata,
    Column("study_id", Integer, primary_key=True, autoincrement=False),  # Optuna's
    Column("name", String(100), nullable=False, unique=True),
    Column("uid", String(32), nullable=False),  # ids are used again after a deletion on SQLite; this is not
    Column("spec", _LongText, nullable=False),
    Column("space", _LongText, nullable=False),
    Column(
        "code", String(80), nullable=False
    ),  # what made it: version and digest of the training code; empty: not known
    Column("metric", String(100), nullable=False),
    Column("maximize", Boolean, nullable=False),
    Column("state", String(16), nullable=False),
    Column("state_reason", _LongText, nullable=False),
    Column("search_over", _LongText, nullable=False),  # why no new trial may start, beside the budget; empty: one may
    Column("priority", Integer, nullable=False),
    Column("created_at", _Double, nullable=False),
    Column("finished_at", _Double),
)

workers = Table(
    "tuner_workers",
    metadata,
    Column("worker_id", String(64), primary_key=True),
    Column("host", String(255), nullable=False),
    Column(
        "boot", String(100), nullable=False
    ),  # one running kernel and process namespace: where a pid means something
    Column("pid", Integer, nullable=False),
    Column("process_started", _Double, nullable=False),
    Column("devices", _LongText, nullable=False),
    Column("version", String(32), nullable=False),
    Column("code", String(80), nullable=False),  # as in tuner_studies
    Column(
        "beat", Integer, nullable=False
    ),  # grows with each heartbeat: a smaller one than was written is an older backup
    Column("asked", String(16), nullable=False),  # what a person asks of it: drain, or nothing
    Column("state", String(16), nullable=False),
    Column("started_at", _Double, nullable=False),
    Column("seen_at", _Double, nullable=False),
    Column("expires_at", _Double, nullable=False),
)

# A run is one training: of a trial in the search, or of a finalist with a fresh seed. Its lease is in the same row, so
# that "do I still own it" and "write the result" are one statement.
runs = Table(
    "tuner_runs",
    metadata,
    Column("run_id", Integer, primary_key=True),
    Column("study_id", Integer, ForeignKey("tuner_studies.study_id"), nullable=False),
    Column("trial_id", Integer, nullable=False),  # Optuna's
    Column("number", Integer, nullable=False),  # Optuna's
    Column("purpose", String(8), nullable=False),  # search | confirm
    Column("seed", Integer, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", _LongText, nullable=False),
    Column("strategy", String(200)),  # null until a proposal is bound
    Column("params", _LongText),
    Column("is_recipe", Boolean, nullable=False),  # the strategy's default recipe
    Column(
        "learnt_from", String(120), nullable=False
    ),  # a past trial, as STUDY/NUMBER, whose values it takes; or empty
    Column("attempt", Integer, nullable=False),  # the fencing epoch: grows with every claim
    Column("token", String(32), nullable=False),  # of the newest claim, random: a deleted study's ids may be used again
    Column("losses", Integer, nullable=False),  # attempts that ended without a word
    Column(
        "asked", String(16), nullable=False
    ),  # what a person asks of the worker that runs it: stop, release, or nothing
    Column("worker_id", String(64)),
    Column("expires_at", _Double),
    Column("reserved_epochs", Integer, nullable=False),
    Column("epochs_done", Integer, nullable=False),
    Column("value", _Double),
    Column("best_epoch", Integer),
    Column("trainable_params", BigInteger),
    Column("peak_memory", BigInteger),  # bytes
    Column("result", _LongText),
    Column("checkpoint", _LongText, nullable=False),
    Column("finalist_rank", Integer),
    Column("is_baseline", Boolean, nullable=False),
    Column("created_at", _Double, nullable=False),
    Column("ended_at", _Double),
    UniqueConstraint("study_id", "number", "purpose", "seed", name="tuner_runs_once"),
    Index("tuner_runs_by_outcome", "study_id", "outcome"),
)

attempts = Table(
    "tuner_attempts",
    metadata,
    Column("run_id", Integer, ForeignKey("tuner_runs.run_id"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("worker_id", String(64), nullable=False),
    Column("host", String(255), nullable=False),
    Column("slot", String(64), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", _LongText, nullable=False),
    Column("facts", _LongText, nullable=False),  # device, versions, parameters
    Column("started_at", _Double, nullable=False),
    Column("ended_at", _Double),
    Column("seconds", _Double, nullable=False),
    Column("log_tail", _LongText, nullable=False),
)

metrics = Table(
    "tuner_metrics",
    metadata,
    Column("run_id", Integer, ForeignKey("tuner_runs.run_id"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("split", String(16), primary_key=True),  # validation | test | device
    Column("name", String(100), primary_key=True),
    Column("value", _Double, nullable=False),
)

# What was learnt about memory, over all studies: a later trial starts with a micro-batch that fits.
fits = Table(
    "tuner_fits",
    metadata,
    Column("model", String(64), primary_key=True),  # fingerprint of the model's source and revision
    Column("strategy", String(200), primary_key=True),
    Column("length", Integer, primary_key=True, autoincrement=False),  # most tokens, or pixels of a side, of a row
    Column("device", String(100), primary_key=True),  # kind and memory of the device
    Column("micro_batch", Integer, nullable=False),  # rows
    Column("at", _Double, nullable=False),
)

events = Table(
    "tuner_events",
    metadata,
    Column("event_id", Integer, primary_key=True),
    Column("at", _Double, nullable=False),
    Column("study_id", Integer),
    Column("number", Integer),
    Column("run_id", Integer),
    Column("worker_id", String(64)),
    Column("who", String(200)),  # the person who asked for it, as user@host; null: the worker by itself
    Column("kind", String(32), nullable=False),
    Column("text", _LongText, nullable=False),
    Index("tuner_events_by_study", "study_id", "event_id"),
)


class db_now(FunctionElement[float]):  # noqa: N801 - reads as an SQL function where it is used
    """Seconds since 1970 by the database's clock, at the moment of the statement."""

    type = _Double
    inherit_cache = True


@compiles(db_now, "sqlite")
def _sqlite_now(_element: db_now, _compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _postgresql_now(_element: db_now, _compiler: Any, **_: Any) -> str:
    # Not now(): that is the start of the transaction, which may have waited for a lock.
    return "extract(epoch from clock_timestamp())::double precision"


@compiles(db_now, "mysql")
@compiles(db_now, "mariadb")
def _mysql_now(_element: db_now, _compiler: Any, **_: Any) -> str:
    return "(unix_timestamp(now(6)) + 0e0)"
