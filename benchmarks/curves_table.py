"""Make one table of recorded lines: ``python benchmarks/curves_table.py lines.jsonl benchmarks/data/strategies/curves.npz``.

A data set is in the table if all configurations of a seed are, and so are its further seeds. Of a training that broke off the last epochs
are NaN. The file holds ``tasks``, ``metrics``, ``space`` (the search space as JSON), ``proposals`` (JSON of each row: its strategy and
what a sampler said) and for each task ``task_<name>``: seeds x rows x epochs x metrics, float32.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, the repository is not on the path

import numpy as np

from benchmarks.record_curves import SOURCES, read_lines, space_of, study

METRICS = ("macro_f1", "accuracy", "loss", "train_loss", "seconds")


def tabulate(lines: Sequence[Mapping[str, Any]], *, epochs: int) -> dict[str, Any]:
    """The arrays of the table, but for its space.

    Args:
        lines: As they were recorded.
        epochs: Of a training that did not break off.

    Raises:
        ValueError: If no data set is complete.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    cells: dict[tuple[str, int, tuple[str, int]], np.ndarray[Any, Any]] = {}
    for line in lines:
        row = (line["strategy"], line["configuration"])
        rows[row] = {"strategy": line["strategy"], **line["proposal"]}
        cells[line["data"], line["seed"], row] = _curve(line["curve"], epochs=epochs)
    table: dict[str, Any] = {}
    for name in dict.fromkeys(line["data"] for line in lines):
        seeds = [
            seed for seed in sorted({seed for _, seed, _ in cells}) if all((name, seed, row) in cells for row in rows)
        ]
        if seeds:
            table[f"task_{name}"] = np.array([[cells[name, seed, row] for row in rows] for seed in seeds])
    if not table:
        raise ValueError("no data set has all configurations of a seed yet")
    return {
        "tasks": np.array([name.removeprefix("task_") for name in table]),
        "metrics": np.array(METRICS),
        "proposals": np.array([json.dumps(proposal) for proposal in rows.values()]),
        **table,
    }


def _curve(curve: Sequence[Mapping[str, float]], *, epochs: int) -> np.ndarray[Any, Any]:
    found = np.full((epochs, len(METRICS)), np.nan, dtype=np.float32)
    for epoch, measured in enumerate(curve):
        found[epoch] = [measured.get(name, np.nan) for name in METRICS]
    return found


def main() -> None:
    """Write the table, and say what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path, help="what record_curves.py wrote")
    parser.add_argument("table", type=Path, help="the .npz to write")
    parser.add_argument("--configurations", type=int, default=30, help="the first so many of each strategy")
    options = parser.parse_args()
    lines = [line for line in read_lines(options.lines) if line["configuration"] < options.configurations]
    epochs = max(len(line["curve"]) for line in lines)
    with tempfile.TemporaryDirectory() as folder:  # its ranges are the same for every data set
        space = space_of(study(next(iter(SOURCES)), Path(folder), epochs=epochs))
    table = tabulate(lines, epochs=epochs)
    options.table.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.table, space=np.array(json.dumps(space.to_json())), **table)
    for name in table["tasks"]:
        seeds, rows, *_ = table[f"task_{name}"].shape
        print(f"{name}: {seeds} seeds x {rows} configurations x {epochs} epochs")


if __name__ == "__main__":
    main()
