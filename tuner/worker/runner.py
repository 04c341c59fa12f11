"""The runner: a child process that trains, one run after another, and stays warm in between.

torch lives here and nowhere else in a worker. The process is spawned, never forked; it has no database password in its
environment or arguments and speaks to its supervisor over two pipes. When the supervisor dies, the pipe closes and the runner ends
itself at once, so that nobody trains for a lease that somebody else may take over.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from tuner.errors import PlaceError, TrialOutOfMemory, TunerError
from tuner.files.disk import is_full
from tuner.study.plan import TrialPlan, TrialResult, Verdict
from tuner.worker import protocol
from tuner.worker.verdicts import INFEASIBLE, judge

Train = Callable[..., TrialResult]
"""What trains: :func:`tuner.training.run.run_trial`."""

_PROGRESS_SECONDS = 0.25
_PULSE_SECONDS = 1.0


class Runner:
    """Serves one supervisor until the pipe closes."""

    def __init__(self, *, read: int, write: int, cache: Path, train: Train, device: str = "") -> None:
        """Speak over two file descriptors.

        Args:
            read: Messages from the supervisor.
            write: Messages to the supervisor.
            cache: Folder for tokenised data, shared by all runners of the box.
            train: Trains one run; called with a plan and what :func:`tuner.training.run.run_trial` takes besides.
            device: What it trains on, with its memory.
        """
        from tuner.training.cache import WarmCache
        from tuner.training.memory import LeakWatch

        self._run_trial = train
        self._reader = protocol.LineReader(read)
        self._write = write
        self._write_lock = threading.Lock()
        self._runs: queue.SimpleQueue[protocol.Run] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[protocol.Answer] = queue.SimpleQueue()
        self._interrupts: dict[str, Verdict] = {}
        self._cache = WarmCache(cache)
        self._study = ""
        self._device = device
        self._leaks = LeakWatch()

    def serve(self) -> None:
        """Take runs until the process is ended by the closing of the pipe, or by damage."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        self._say(protocol.Ready(device=self._device))
        while self._train(self._runs.get()):
            pass
        os._exit(0)  # at once: a process whose device failed may hang while it takes its context down

    def _listen(self) -> None:
        while not self._reader.is_closed:
            for message in self._reader.read():
                match message:
                    case protocol.Run():
                        self._runs.put(message)
                    case protocol.Answer():
                        self._answers.put(message)
                    case protocol.Interrupt(key=key, verdict=verdict):
                        self._interrupts[key] = Verdict(verdict)
        os._exit(0)  # the supervisor is gone; nothing here is worth a clean exit, checkpoints are whole at any moment

    def _say(self, message: protocol.Message) -> None:
        with self._write_lock:
            try:
                protocol.send(self._write, message)
            except BrokenPipeError:
                os._exit(0)

    def _train(self, run: protocol.Run) -> bool:
        """Train one run and say how it ended; False if this process should not go on."""
        from tuner.training.cache import WarmCache

        plan = TrialPlan.from_json(run.plan)
        if plan.spec.name != self._study:  # another study: another model, other data
            self._cache = WarmCache(self._cache.folder)
            self._study = plan.spec.name
        started = time.monotonic()
        try:
            result = self._run_trial(
                plan,
                report=partial(self._report, run.key),
                progress=_Throttle(
                    lambda epoch, part: self._say(protocol.Progress(key=run.key, epoch=epoch, fraction=part)),
                    seconds=_PROGRESS_SECONDS,
                ),
                started=lambda facts: self._say(protocol.Started(key=run.key, facts=dict(facts))),
                recall=lambda epoch, metrics: self._say(
                    protocol.Recall(key=run.key, epoch=epoch, metrics=dict(metrics))
                ),
                released=partial(
                    self._released,
                    run.key,
                    _Throttle(lambda: self._say(protocol.Pulse(key=run.key)), seconds=_PULSE_SECONDS),
                ),
                fitted=lambda size: self._say(protocol.Fit(key=run.key, micro_batch=size)),
                cache=self._cache,
            )
        except Exception as error:  # noqa: BLE001 - a trial may fail in any way; the worker lives on
            if isinstance(error, PlaceError) or is_full(error):
                self._say(_no_room(run.key, error, seconds=time.monotonic() - started))
                return True
            failed = _failure(run.key, error, seconds=time.monotonic() - started)
            self._say(failed)
            return not failed.recycle
        leak = self._leaks.look()
        self._say(protocol.Finished(key=run.key, result=result.to_json(), leak=leak))
        return not leak

    def _released(self, key: str, pulse: _Throttle) -> Verdict | None:
        pulse()
        return self._interrupts.get(key)

    def _report(self, key: str, epoch: int, metrics: Mapping[str, float], seconds: float) -> Verdict:  # noqa: PLR0917 - run_trial calls it by position
        from tuner.training.memory import peak_so_far

        peak = peak_so_far()
        self._say(protocol.Report(key=key, epoch=epoch, metrics=dict(metrics), seconds=seconds, peak_memory=peak))
        while True:
            answer = self._answers.get()
            if answer.key == key and answer.epoch == epoch:
                return Verdict(answer.verdict)


class _Throttle:
    """Lets one call through in a while."""

    def __init__(self, call: Callable[..., None], *, seconds: float) -> None:
        self._call = call
        self._seconds = seconds
        self._last = 0.0

    def __call__(self, *arguments: float) -> None:
        now = time.monotonic()
        if now - self._last >= self._seconds:
            self._last = now
            self._call(*arguments)


def _no_room(key: str, error: Exception, *, seconds: float) -> protocol.NoRoom:
    """What a person is told where a run is fine and a disk, or an object store, is not."""
    if isinstance(error, PlaceError):
        return protocol.NoRoom(key=key, reason=str(error), seconds=seconds, place=error.place, needed=error.needed)
    file = str(error.filename or "") if isinstance(error, OSError) else ""
    reason = f"disk full: no room for {file}" if file else f"disk full: {error}".splitlines()[0]
    return protocol.NoRoom(key=key, reason=reason[:2000], seconds=seconds, place=file, needed=0)


def _failure(key: str, error: Exception, *, seconds: float) -> protocol.Failed:
    """What a person is told of a failed run, by the type of its end."""
    from tuner.training.memory import is_broken_device, is_out_of_memory

    judgement = judge(error)
    is_memory = isinstance(error, TrialOutOfMemory) or is_out_of_memory(error)
    cause = protocol.MEMORY if is_memory else protocol.DEVICE if is_broken_device(error) else ""
    is_ours = isinstance(error, TunerError)
    reason = str(error) if is_ours else f"{type(error).__name__}: {error}".splitlines()[0]
    return protocol.Failed(
        key=key,
        outcome=INFEASIBLE if is_memory else judgement.outcome,
        reason=reason[:2000],
        seconds=seconds,
        traceback="" if is_ours and error.__cause__ is None else "".join(traceback.format_exception(error))[-8000:],
        # An out-of-memory leaves a fragmented allocator, a failed device a context in which every later call fails.
        recycle=bool(cause),
        may_pass=judgement.may_pass or cause == protocol.DEVICE,
        cause=cause,
        micro_batch=error.micro_batch if isinstance(error, TrialOutOfMemory) else 0,
    )


def main() -> None:
    """Entry point of ``python -m tuner.worker.runner``; only a supervisor starts it."""
    options = read_options()
    import torch

    from tuner.training.memory import device_kind
    from tuner.training.run import run_trial

    torch.set_num_threads(options.threads)
    Runner(read=options.read, write=options.write, cache=options.cache, train=run_trial, device=device_kind()).serve()


def read_options() -> argparse.Namespace:
    """What a supervisor says on the command line of its runner."""
    parser = argparse.ArgumentParser(description="internal: started by tuner worker start")
    parser.add_argument("--read", type=int, required=True)
    parser.add_argument("--write", type=int, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    # The supervisor decides what Ctrl-C means; and schedulers send SIGTERM to every process of a job, which would make a run
    # that is about to be saved a run whose runner crashed. A supervisor that is gone closes the pipe.
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, signal.SIG_IGN)
    # Where memory runs out on the box the kernel shall take the one that uses it, not the supervisor or the database.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    return parser.parse_args()


if __name__ == "__main__":
    main()
