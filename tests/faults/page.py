"""Writes ``docs/reliability.md`` from the fault matrix and the figures that ``make faults`` measured."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from tests.faults.figures import read_file
from tests.faults.rows import LEFT_OUT, ROWS
from tests.source_tree import ROOT, modules

FILE = ROOT / "docs" / "reliability.md"
DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MariaDB"}
UNITS = ("ms", "MiB", "s", "%")

INTRODUCTION = """\
# Reliability

Any process may be killed at any moment, any connection may break, any machine may stop and come back. No finished trial is lost, none counts twice, none is stuck, and an interrupted one goes on from its last checkpoint. This page says how
that is measured, and what came out.

```bash
make faults    # the long form of every test below, then this page anew; takes hours
make soak      # half an hour of trials: memory, descriptors, threads, connections
```

`make test` runs a short form of each: the same faults, fewer times.

## What must hold after every fault

Each worker of these tests writes down what the database acknowledged to it, on the disk, before it goes on. Afterwards [a checker](../tests/faults/checker.py) compares that with the database, with Optuna's own view of it and with the checkpoints:

| | |
|---|---|
| A | Every end of a trial that was acknowledged is in the database, with the same outcome and value. |
| B | No trial ended twice. |
| C | Nothing was acknowledged to an attempt after another one had taken over. |
| D | No trial is left running by nobody. |
| E | Trial numbers have no gaps and no doubles, the states add up, and the budget is kept. |
| F | The epochs of a trial follow each other, and their values are those of its parameters, whoever trained them. |
| G | Every checkpoint that can be seen is what its manifest says, and every complete trial has one. |

"Wrong" in the figures counts what violates one of these; "runs interrupted" are those that a kill met while they trained. No event in *n* kills means a rate below 3/*n* with 95 % confidence.

Workers, runners, pipes, database servers and checkpoints are real; the training is a formula in most tests, so that hundreds of deaths fit into minutes. [Some](../tests/faults/test_workers.py) kill the training of a real model and compare its curve with the undisturbed one, bit for bit.
Leases are 3 s and heartbeats 1 s there, where a worker has 90 s and 15 s unless it is told otherwise. A death that must be told from silence, as that of another box, is simulated for every other worker.

"""

TABLE = """\
## Faults and figures

Measured on {machine}. "Stock Optuna" is `optuna.load_study` with its own storage, heartbeat and retry callback on the same machine and servers ([the script](../tests/faults/stock_optuna.py)); "-" means that we did not measure it.

| | fault | promise | measured | stock Optuna |
|--:|---|---|---|---|
"""

LEFT = """\

## Left out

"""


def page() -> str:
    """The whole page."""
    kept = read_file()
    return "".join([INTRODUCTION, TABLE.format(machine=_machine(kept["machine"])), *_rows(kept), LEFT, *_left_out()])


@cache
def rows_with_tests() -> Mapping[int, Mapping[str, None]]:
    """For each row the files of the tests that record figures for it, in order, as the source says."""
    found: dict[int, dict[str, None]] = {}
    for module in modules("tests"):
        for call in ast.walk(module.tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] == "record":
                for keyword in call.keywords:
                    if keyword.arg == "row":
                        found.setdefault(int(ast.literal_eval(keyword.value)), {})[module.where] = None
    return found


def _machine(facts: Mapping[str, str]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts.items() if name != "cores")
    return f"a machine with {facts.get('cores', '?')} cores and no GPU: {versions}"


def _rows(kept: Mapping[str, Any]) -> Iterator[str]:
    records: dict[int, list[dict[str, Any]]] = {}
    for test in sorted(kept["tests"], key=_natural):
        for one in kept["tests"][test]:
            records.setdefault(one["row"], []).append(one)
    for number, fault in ROWS.items():
        if number not in LEFT_OUT:
            files = rows_with_tests().get(number, {})
            links = ", ".join(f"[{file.rpartition('/')[2].removesuffix('.py')}](../{file})" for file in files)
            measured = "<br>".join(dict.fromkeys(_figures(one) for one in _longest(records.get(number, []))))
            theirs = kept["optuna"].get(str(number), "-")
            yield f"| {number} | {fault.what} | {fault.promise} ({links}) | {measured or '-'} | {theirs} |\n"


def _natural(name: str) -> list[tuple[float, str]]:
    """An order in which 5 comes before 30."""
    return [(float(part), "") if part.isdigit() else (0.0, part) for part in re.split(r"(\d+)", name)]


def _longest(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the long form, if there are any."""
    return [one for one in records if one["form"] == "long"] or records


def _figures(one: Mapping[str, Any]) -> str:
    kind = DATABASES.get(one["database"], "")
    prefixes = {name.rpartition(": ")[0] for name in one["figures"]}
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    start = len(prefix) + 2 if prefix else 0
    words = ", ".join(_figure(name[start:], value) for name, value in one["figures"].items())
    form = "" if one["form"] == "long" else " (short form)"
    about = ", ".join(filter(None, (kind, prefix)))
    return f"{about}{': ' if about else ''}{words}{form}"


def _figure(name: str, value: float | str) -> str:
    said = f"{value:,.10g}" if isinstance(value, int | float) else value
    what, _, unit = name.rpartition(" ")
    is_unit = unit in UNITS and not what.rpartition(" ")[2].isdigit()
    return f"{what.removesuffix(',')} {said} {unit}".strip() if is_unit else f"{name} {said}"


def _left_out() -> Iterator[str]:
    for number, reason in LEFT_OUT.items():
        yield f"- {number}: {reason}\n"


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
