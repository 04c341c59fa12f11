"""With this folder on PYTHONPATH every ``tuner worker start`` of the environment trains toys, and writes down what it was acknowledged.

A launcher starts its workers in processes of SLURM's or Ray's, out of a test's reach; Python imports this module in each of them
at its start. Everything is real but the training, which is a formula: see `tests.faults.toy_training`.
"""

from __future__ import annotations

import sys


def _train_toys() -> None:
    from dataclasses import replace
    from typing import Any

    from tests.faults.nursery import Ledger
    from tuner.worker import supervisor
    from tuner.worker.events import Display, Event
    from tuner.worker.options import WorkerOptions

    class Both:
        """A display for people and one for the checker."""

        def __init__(self, *displays: Display) -> None:
            self._displays = displays

        def show(self, event: Event) -> None:
            for display in self._displays:
                display.show(event)

        def close(self) -> None:
            for display in self._displays:
                display.close()

    real = supervisor.run_worker

    def run_worker(options: WorkerOptions, *, display: Display) -> Any:
        options.files.mkdir(parents=True, exist_ok=True)
        toys = replace(options, runner="tests.faults.toy_training")
        return real(toys, display=Both(display, Ledger(options.files / "ledger.jsonl")))

    supervisor.run_worker = run_worker


if sys.orig_argv[1:5] == ["-m", "tuner", "worker", "start"]:
    _train_toys()
