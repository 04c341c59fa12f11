"""Optuna's storage on our engine: same sessions, same pool, same second chances."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb.storage import _VersionManager
from sqlalchemy.engine import URL, Engine
from sqlalchemy.orm import scoped_session, sessionmaker

from tuner.store.location import as_user

Result = TypeVar("Result")
Retry = Callable[[Callable[[], Any]], Any]


class SharedStorage(RDBStorage):
    """`RDBStorage` of 5.0 without what its constructor does.

    That one opens an engine of its own, several connections, and creates tables, which races when eight workers start at
    once (optuna#4621) and which a role without DDL may not do. Each call is one transaction in Optuna; here it is run
    again when it fails for a passing conflict.
    """

    def __init__(self, engine: Engine, url: URL, *, retry: Retry) -> None:
        """Nothing is opened.

        Args:
            engine: Ours.
            url: For Optuna's own messages and pickles; its password is left out.
            retry: Calls a function until it succeeds.
        """
        self.engine_kwargs = {}
        self.url = as_user(url, url.username).render_as_string()
        self.skip_compatibility_check = True
        self.heartbeat_interval = None
        self.grace_period = None
        self.heartbeat_stale_trial_callback = None
        self.failed_trial_callback = None
        self.engine = engine
        self.scoped_session = scoped_session(sessionmaker(bind=engine))
        self._version_manager = _Versions(self.url, engine, self.scoped_session)
        self._retry = retry


class _Versions(_VersionManager):
    """Reads which schema the tables have; Optuna's constructor would write it."""

    def __init__(self, url: str, engine: Engine, sessions: scoped_session[Any]) -> None:
        self.url = url
        self.engine = engine
        self.scoped_session = sessions


def _retrying(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    @functools.wraps(method)
    def _call(self: SharedStorage, *arguments: Any, **named: Any) -> Any:
        return self._retry(lambda: method(self, *arguments, **named))

    return _call


# What Optuna's cache asks its backend for, beside the public methods.
_PRIVATE = frozenset({"_get_best_trial_id", "_get_trials", "_set_trial_param"})
# Run twice they would make two, where the connection broke after the commit; tuner makes studies and trials itself.
_ONCE = frozenset({"create_new_study", "create_new_trial"})

for _name in (BaseStorage.__abstractmethods__ | _PRIVATE) - _ONCE:
    setattr(SharedStorage, _name, _retrying(_name))
