"""One run outside of any study: in a fresh runner as a worker's, without a database, a lease or a checkpoint."""

from __future__ import annotations

import select
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner.errors import UnavailableError
from tuner.store.records import Outcome
from tuner.study.plan import TrialPlan, Verdict
from tuner.worker import protocol
from tuner.worker.devices import SlotPlace, find_slots
from tuner.worker.slot import Slot, describe_death

_KEY = "once"

Report = Callable[[int, Mapping[str, float]], Verdict]
"""Told an epoch and its metrics; says how to go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Once:
    """How a run ended.

    Attributes:
        outcome: COMPLETE, PRUNED where its report said so, or how it failed.
        reason: Why it failed; empty if it did not.
        facts: What it ran on; empty if the model never stood.
        seconds: From its start to its end, the start of the runner included.
    """

    outcome: Outcome
    reason: str
    facts: Mapping[str, Any]
    seconds: float


def place_like(facts: Mapping[str, Any]) -> SlotPlace:
    """The place of this box that is most like one where a run was: the CPU if it was one, with as many threads.

    Args:
        facts: What the run said of its place; empty if it is not known.
    """
    devices = "cpu" if facts.get("device") == "cpu" else "auto"
    place = find_slots(devices, per_device=1)[0]
    return replace(place, threads=int(facts.get("threads", place.threads)))


def train_once(plan: TrialPlan, *, place: SlotPlace, report: Report) -> Once:
    """Train a run in a process of its own.

    Args:
        plan: What is trained.
        place: The device, and the threads.
        report: Told of every epoch.

    Raises:
        UnavailableError: If the process cannot be started, or ends without a word.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tuner-") as folder:
        slot = Slot(place=place, log=Path(folder, "runner.log"), cache=Path(folder, "cache"))
        try:
            slot.start()
        except OSError as error:
            raise UnavailableError(f"cannot start the runner: {error.strerror}") from error
        try:
            slot.send(protocol.Run(key=_KEY, plan=plan.to_json()))
            outcome, reason, facts = _listen(slot, report=report)
        finally:
            slot.kill()
            slot.reap()
    return Once(outcome=outcome, reason=reason, facts=facts, seconds=time.monotonic() - began)


def _listen(slot: Slot, *, report: Report) -> tuple[Outcome, str, Mapping[str, Any]]:
    facts: Mapping[str, Any] = {}
    while True:
        select.select([slot.descriptor], [], [])
        slot.read()
        while slot.inbox:
            match slot.inbox.popleft():
                case protocol.Started(facts=found):
                    facts = found
                case protocol.Report(epoch=epoch, metrics=metrics):
                    verdict = report(epoch, metrics).value
                    slot.send(protocol.Answer(key=_KEY, epoch=epoch, verdict=verdict))
                case protocol.Finished(result=result):
                    ended_by = result["ended_by"]
                    return Outcome.PRUNED if ended_by == Verdict.PRUNE.value else Outcome.COMPLETE, "", facts
                case protocol.Failed(outcome=outcome, reason=reason):
                    return Outcome(outcome), reason, facts
                case protocol.NoRoom(reason=reason):
                    return Outcome.ERRORED, reason, facts
        if slot.has_hung_up:
            assert slot.process is not None
            said = slot.log_tail()
            raise UnavailableError(
                describe_death(slot.process.wait()), why=said.splitlines()[-1] if said else "it said nothing"
            )
