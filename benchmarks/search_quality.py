"""How good is the answer of a search after 5, 10, 20 and 50 trainings? Every method on the same recorded curves.

    python benchmarks/search_quality.py --seeds 10 --json results.json
    python benchmarks/search_quality.py --ablate
    python benchmarks/search_quality.py --table benchmarks/data/lcbench/curves.npz --arm num_layers
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
from benchmarks.replay.methods import ABLATIONS, BASELINES, METHODS, OURS, STOCK

DATA = Path(__file__).parent / "data"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print its tables and write its results."""
    options = _parse(arguments)
    optuna.logging.set_verbosity(logging.WARNING)
    methods = ABLATIONS if options.ablate else options.methods
    results = []
    for table in options.table or sorted(DATA.glob("*/curves.npz")):
        plan = Comparison(
            table=table,
            methods=methods,
            tasks=options.tasks,
            seeds=options.seeds,
            workers=options.workers,
            lookup=options.lookup,
            against=options.against or (OURS if options.ablate else STOCK),
            arm=options.arm,
            keep=options.keep,
            syne=options.syne,
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
    add("--ablate", action="store_true", help="ours, without one mechanism at a time, instead of --methods")
    add("--tasks", nargs="+", default=(), metavar="NAME", help="only these tasks are searched")
    add("--seeds", type=int, default=10, help="runs of each method on each task")
    add("--workers", type=int, default=4)
    add("--lookup", choices=[AUTO, *LOOKUPS], default=AUTO, help="what an unrecorded configuration shows")
    add(
        "--arm", default="", metavar="KNOB", help="each value of this knob is a strategy, learning rates a decade apart"
    )
    add("--against", choices=list(METHODS), metavar="NAME", help=f"what the others are tested against ({STOCK})")
    add("--keep", type=Path, metavar="FOLDER", help="keep each run's result there, and run none that is there already")
    add(
        "--syne",
        type=Path,
        metavar="PYTHON",
        help='interpreter of an environment with "syne-tune[gpsearchers]==0.13.0" and statsmodels; its searches run, too',
    )
    add("--json", type=Path, help="write the results there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
