"""What a check of the database says about what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something stored that cannot be right.

    Attributes:
        kind: A word that programs filter by.
        text: What is the case.
        repair: What mending does.
        mend: Does it, in the caller's transaction; under the study's lock where it is about one.
        study: Its study's name; empty if it is about none.
        study_id: Its study's id.
        number: Its trial.
        run_id: Its run.
    """

    kind: str
    text: str
    repair: str
    mend: Callable[[Connection], None]
    study: str = ""
    study_id: int | None = None
    number: int | None = None
    run_id: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """One study under examination.

    Attributes:
        study_id: Its id.
        name: Its name.
        metric: Its objective's metric, the first of several.
        spec: Its study file as it is stored.
    """

    study_id: int
    name: str
    metric: str
    spec: str

    def problem(
        self, kind: str, text: str, *, repair: str, mend: Callable[[Connection], None], run: Row[Any] | None = None
    ) -> Problem:
        """A problem of this study, of one of its runs where one is given."""
        return Problem(
            kind=kind,
            text=text,
            repair=repair,
            mend=mend,
            study=self.name,
            study_id=self.study_id,
            number=None if run is None else run.number,
            run_id=None if run is None else run.run_id,
        )


Check = Callable[[Connection, Scope], Iterator[Problem]]
