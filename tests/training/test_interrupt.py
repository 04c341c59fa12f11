from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.samples import Recorder, plan, run, study, write_rows
from tuner.study.plan import Verdict
from tuner.training import features
from tuner.training import run as module
from tuner.training.cache import WarmCache
from tuner.training.interrupt import Interrupted, stop_if_told


class Asked:
    """Lets an attempt go on until it has been asked a number of times."""

    def __init__(self, times: int, verdict: Verdict = Verdict.STOP) -> None:
        self.count = 0
        self._times = times
        self._verdict = verdict

    def __call__(self) -> Verdict | None:
        self.count += 1
        return self._verdict if self.count >= self._times else None


def test_none_lets_an_attempt_go_on_and_a_verdict_ends_it() -> None:
    asked = Asked(2, Verdict.RELEASE)
    stop_if_told(asked)
    with pytest.raises(Interrupted) as caught:
        stop_if_told(asked)
    assert caught.value.verdict is Verdict.RELEASE


@pytest.mark.parametrize("verdict", [Verdict.STOP, Verdict.RELEASE])
def test_an_attempt_told_to_end_while_it_is_prepared_has_no_epoch_and_keeps_its_checkpoint(
    tmp_path: Path, verdict: Verdict
) -> None:
    spec, report = study(tmp_path), Recorder()
    run(plan(spec, tmp_path / "c"), report=Recorder(after=1, verdict=Verdict.RELEASE))
    result = run(plan(spec, tmp_path / "c"), report=report, released=Asked(1, verdict))
    assert (result.ended_by, result.epochs, dict(result.metrics)) == (verdict.value, 0, {})
    assert (result.seconds > 0, report.curve) == (True, [])
    assert (tmp_path / "c" / "epoch-0001").exists()


def test_every_stage_of_the_preparation_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = ("load_tokenizer", "load_labels", "load_base", "load_data", "load_lessons", "adapt", "frozen_position")
    spec, asked = study(tmp_path), Asked(10_000)
    before: dict[str, int] = {}
    for name in stages:

        def staged(*args: object, name: str = name, stage: object = getattr(module, name), **named: object) -> object:
            before[name] = asked.count
            assert callable(stage)
            return stage(*args, **named)

        monkeypatch.setattr(module, name, staged)
    run(plan(spec, tmp_path / "c"), released=asked)
    assert list(before) == list(stages)
    assert len(set(before.values())) == len(stages) and min(before.values()) > 0


def test_a_long_capture_of_vectors_is_interrupted_between_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, cache, told = study(tmp_path), WarmCache(), False
    monkeypatch.setattr(features, "evaluation_batches", lambda lengths: list(lengths.argsort().split(4)))
    captured: list[int] = []
    vectors = features._vectors

    def watched(*args: object, **named: object) -> object:
        nonlocal told
        captured.append(1)
        told = len(captured) == 6
        return vectors(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "_vectors", watched)
    head = plan(spec, tmp_path / "c", strategy="head")
    result = run(head, cache=cache, released=lambda: Verdict.STOP if told else None)
    assert (result.ended_by, result.epochs, len(captured)) == ("stop", 0, 6)
    # What was interrupted left nothing behind: the same runner trains the trial as a fresh one does.
    again, fresh = Recorder(), Recorder()
    run(head, report=again, cache=cache)
    run(plan(spec, tmp_path / "fresh", strategy="head"), report=fresh)
    assert again.curve == fresh.curve


def test_tokenising_is_interrupted_between_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.training.tokens._CHUNK", 10)
    write_rows(tmp_path / "test.csv")
    write_rows(tmp_path / "train.csv", rows=100)
    folder = tmp_path / "cache"
    # Asked before: four stages, the file, and two of its chunks.
    result = run(plan(study(tmp_path), tmp_path / "c"), cache=WarmCache(folder), released=Asked(8))
    assert (result.ended_by, result.epochs) == ("stop", 0)
    assert not folder.exists()
