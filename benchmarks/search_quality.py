"""How good is the answer of a search after 5, 10, 20 and 50 trainings? Every method on the same recorded curves.

    python benchmarks/search_quality.py --seeds 10 --json results.json
    python benchmarks/search_quality.py --table unseen.npz --methods ours "stock Optuna"

The real samplers, pruners and judgement run; only the trainings are replayed (`benchmarks/replay/`). Each cell (method, task,
seed) is deterministic.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, the repository is not on the path

import optuna

from benchmarks.replay.comparison import AUTO, LOOKUPS, Comparison, compare, render
from benchmarks.replay.methods import BASELINES, METHODS, STOCK

DATA = Path(__file__).parent / "data"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print its tables and write its results."""
    options = _parse(arguments)
    optuna.logging.set_verbosity(logging.WARNING)
    results = []
    for table in options.table or sorted(DATA.glob("*/curves.npz")):
        plan = Comparison(
            table=table,
            methods=options.methods,
            tasks=options.tasks,
            seeds=options.seeds,
            workers=options.workers,
            lookup=options.lookup,
            against=options.against,
        )
        results.append(compare(plan))
        print(render(results[-1]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--table",
        type=Path,
        action="append",
        metavar="FILE",
        help="an .npz of recorded curves; default: those of data/",
    )
    add("--methods", nargs="+", default=BASELINES, choices=list(METHODS), metavar="NAME", help=", ".join(METHODS))
    add("--tasks", nargs="+", default=(), metavar="NAME", help="only these tasks are searched")
    add("--seeds", type=int, default=10, help="runs of each method on each task")
    add("--workers", type=int, default=4)
    add("--lookup", choices=[AUTO, *LOOKUPS], default=AUTO, help="what an unrecorded configuration shows")
    add("--against", default=STOCK, choices=list(METHODS), metavar="NAME", help="the others are tested against it")
    add("--json", type=Path, help="write the results there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
