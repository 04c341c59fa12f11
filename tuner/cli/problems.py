"""What ``tuner db check`` finds in the tables, and what ``--fix`` did about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tuner.cli.output import line

if TYPE_CHECKING:
    from tuner.store.database import Database
    from tuner.store.problems import Problem

Examined = Sequence[tuple["Problem", bool]]
"""Problems, each with whether it was mended."""


def examine(database: Database, *, fix: bool) -> Examined:
    """Look for problems, and mend them where asked to.

    Raises:
        UnavailableError: If the database cannot be reached.
        ConfigurationError: If its user may not mend.
    """
    from tuner.store import checks
    from tuner.store.control import this_person

    mended = checks.mend_problems(database, who=this_person()) if fix else []
    return [*((problem, True) for problem in mended), *((problem, False) for problem in checks.find_problems(database))]


def show_problems(problems: Examined) -> None:
    """One line for each problem, one for what is done about it."""
    line(f"  problems       {len(problems) or 'none'}")
    for problem, is_mended in problems:
        place = f"study {problem.study}: " if problem.study and problem.kind != "orphan_study" else ""
        line(f"    {place}{problem.text}")
        line(f"      {'mended' if is_mended else 'would be'}: {problem.repair}")


def problem_documents(problems: Examined) -> list[dict[str, Any]]:
    """The problems, as JSON."""
    return [
        {
            "kind": problem.kind,
            "study": problem.study or None,
            "number": problem.number,
            "text": problem.text,
            "repair": problem.repair,
            "is_mended": is_mended,
        }
        for problem, is_mended in problems
    ]
