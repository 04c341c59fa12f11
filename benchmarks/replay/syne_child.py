"""Syne Tune's schedulers behind a pipe: one line of JSON in, one out. Runs in an environment of its own and imports nothing of ours.

{"op": "start", "method": "ASHA", "knobs": {"x": {"low": 0.1, "high": 1.0, "log": true, "kind": "float"}}, "epochs": 52, "seed": 0}
{"op": "ask"}                                              -> {"trial": 3, "values": {...}, "epochs_done": 0} or null
{"op": "report", "trial": 3, "epoch": 1, "score": 0.5}     -> "CONTINUE", "PAUSE" or "STOP"
{"op": "end", "trial": 3, "outcome": "complete", "epoch": 52, "score": 0.9}   -> null
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from importlib import import_module
from typing import Any

_SCORE, _EPOCH, _EPOCHS = "score", "epoch", "epochs"


class Child:
    """One search at a time."""

    def start(self, *, method: str, knobs: dict[str, dict[str, Any]], epochs: int, seed: int) -> None:
        """Make the scheduler."""
        spaces, baselines = import_module("syne_tune.config_space"), import_module("syne_tune.optimizer.baselines")
        self._trial_class = import_module("syne_tune.backend.trial_status").Trial
        space: dict[str, Any] = {_EPOCHS: epochs}
        for name, knob in knobs.items():
            if knob["kind"] == "int":
                make = spaces.lograndint if knob["log"] else spaces.randint
                space[name] = make(int(knob["low"]), int(knob["high"]))
            else:
                space[name] = (spaces.loguniform if knob["log"] else spaces.uniform)(knob["low"], knob["high"])
        self._scheduler = getattr(baselines, method)(
            space,
            metric=_SCORE,
            mode="max",
            resource_attr=_EPOCH,
            max_resource_attr=_EPOCHS,
            random_seed=seed,
            search_options={"debug_log": False},
        )
        self._trials: dict[int, Any] = {}
        self._reached: dict[int, int] = {}
        self._last: dict[int, dict[str, Any]] = {}

    def ask(self) -> dict[str, Any] | None:
        """A new trial, or one that was paused."""
        number = len(self._trials)
        suggestion = self._scheduler.suggest(number)
        if suggestion is None:
            return None
        if suggestion.spawn_new_trial_id:
            trial = self._trial_class(number, suggestion.config, dt.datetime.now(tz=dt.UTC))
            self._trials[number] = trial
            self._reached[number] = 0
            self._scheduler.on_trial_add(trial)
        else:
            number = int(suggestion.checkpoint_trial_id)
        values = {name: value for name, value in self._trials[number].config.items() if name != _EPOCHS}
        return {"trial": number, "values": values, "epochs_done": self._reached[number]}

    def report(self, trial: int, *, epoch: int, score: float) -> str:
        """What the scheduler says to an epoch."""
        self._reached[trial] = epoch
        self._last[trial] = {_SCORE: score, _EPOCH: epoch}
        decision = str(self._scheduler.on_trial_result(self._trials[trial], self._last[trial]))
        if decision != "CONTINUE":
            self._scheduler.on_trial_remove(self._trials[trial])
        return decision

    def end(self, trial: int, *, outcome: str, epoch: int, score: float | None) -> None:
        """A trial came to its last epoch or diverged; the scheduler knows already of those that it stopped."""
        if outcome == "complete":
            self._scheduler.on_trial_complete(self._trials[trial], {_SCORE: score, _EPOCH: epoch})
        elif outcome == "diverged":
            self._scheduler.on_trial_error(self._trials[trial])


def main() -> None:
    """Answer until the input ends."""
    logging.disable(logging.WARNING)
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not stand between the answers
    child = Child()
    for line in sys.stdin:
        message = json.loads(line)
        answer = getattr(child, message.pop("op"))(**message)
        answers.write(json.dumps(answer, default=float) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
