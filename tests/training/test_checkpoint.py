from __future__ import annotations

import errno
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.samples import Recorder, plan, run, study
from tuner.errors import PlaceError
from tuner.study.plan import Verdict
from tuner.training.checkpoint import FINAL, MANIFEST, OPTIMIZER, STATE, WEIGHTS, Checkpoints, newest_checkpoint


def state(epoch: int, *, best: int, identity: str = "run") -> dict[str, Any]:
    return {"identity": identity, "best_epoch": best, "history": {"epochs": [{}] * epoch}, "scaler": {}}


def save(checkpoints: Checkpoints, epoch: int, *, best: int, identity: str = "run") -> None:
    checkpoints.save(
        state=state(epoch, best=best, identity=identity),
        weights={"w": torch.full((3,), float(epoch))},
        optimizer={"w/step": torch.tensor(float(epoch))},
        best=best,
    )


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Files cannot grow beyond so many bytes: the kernel refuses as it does on a full disk, and anybody may ask for it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_the_last_two_epochs_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    kept = []
    for epoch, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 5), (6, 6)):
        save(checkpoints, epoch, best=best)
        kept.append({int(name.rpartition("-")[2]) for name in names(tmp_path)})
    # The best of the last but one is kept with it: without it that one could not be gone on from.
    assert kept == [{1}, {1, 2}, {2, 3}, {2, 3, 4}, {2, 4, 5}, {5, 6}]


def test_the_newest_is_found_whole(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in (1, 2, 3, 4):
        save(checkpoints, epoch, best=min(epoch, 2))
    found, skipped = newest_checkpoint([tmp_path], identity="run")
    assert found is not None and skipped == []
    assert found.epoch == 4
    assert found.weights()["w"].tolist() == [4.0] * 3
    assert found.optimizer()["w/step"].item() == 4.0


def test_a_complete_run_keeps_its_weights_alone(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1, best=1)
    path = Path(checkpoints.finish(state=state(2, best=1), weights={"w": torch.zeros(1)}))
    assert names(tmp_path) == {FINAL}
    assert names(path) == {WEIGHTS, STATE, MANIFEST}
    found, _ = newest_checkpoint([tmp_path], identity="run")
    assert found is not None and found.is_final and found.optimizer() == {}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize("file", [WEIGHTS, OPTIMIZER, STATE, MANIFEST])
@pytest.mark.parametrize("damage", [flip_a_bit, cut, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    tmp_path: Path, file: str, damage: Callable[[Path], object]
) -> None:
    save(Checkpoints(tmp_path), 1, best=1)
    save(Checkpoints(tmp_path), 2, best=1)
    damage(tmp_path / "epoch-0002" / file)
    found, skipped = newest_checkpoint([tmp_path], identity="run")
    assert found is not None and found.epoch == 1
    assert len(skipped) == 1 and "epoch-0002 was skipped" in skipped[0]


def test_a_checkpoint_whose_best_one_is_damaged_is_skipped(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path), 1, best=1)
    save(Checkpoints(tmp_path), 2, best=1)
    flip_a_bit(tmp_path / "epoch-0001" / WEIGHTS)
    found, skipped = newest_checkpoint([tmp_path], identity="run")
    assert found is None and len(skipped) == 2


def test_a_checkpoint_of_another_run_is_skipped(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path), 3, best=3, identity="other")
    found, skipped = newest_checkpoint([tmp_path], identity="run")
    assert found is None and "another run" in skipped[0]


def test_half_written_folders_do_not_count_and_are_cleaned(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path), 1, best=1)
    shutil.copytree(tmp_path / "epoch-0001", tmp_path / ".writing-epoch-0009")
    found, _ = newest_checkpoint([tmp_path], identity="run")
    assert found is not None and found.epoch == 1
    save(Checkpoints(tmp_path), 2, best=2)
    assert names(tmp_path) == {"epoch-0001", "epoch-0002"}


def test_the_most_advanced_attempt_wins_and_is_adopted_with_its_best(tmp_path: Path) -> None:
    first, second = Checkpoints(tmp_path / "1"), Checkpoints(tmp_path / "2")
    for epoch in (1, 2, 3):
        save(first, epoch, best=min(epoch, 2))
    save(second, 1, best=1)
    third = Checkpoints(tmp_path / "3")
    folders = [third.folder, second.folder, first.folder]
    found, _ = newest_checkpoint(folders, identity="run")
    assert found is not None and found.path == tmp_path / "1" / "epoch-0003"
    third.adopt(found)
    shutil.rmtree(first.folder)
    again, _ = newest_checkpoint(folders, identity="run")
    assert again is not None and again.path == tmp_path / "3" / "epoch-0003"
    assert names(third.folder) == {"epoch-0002", "epoch-0003"}


def test_between_equal_epochs_the_newest_attempt_wins(tmp_path: Path) -> None:
    for name in ("1", "2"):
        save(Checkpoints(tmp_path / name), 1, best=1)
    found, _ = newest_checkpoint([tmp_path / "2", tmp_path / "1"], identity="run")
    assert found is not None and found.path.parent.name == "2"


def test_an_epoch_written_again_replaces_the_damaged_one(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path), 1, best=1)
    flip_a_bit(tmp_path / "epoch-0001" / WEIGHTS)
    save(Checkpoints(tmp_path), 1, best=1)
    found, skipped = newest_checkpoint([tmp_path], identity="run")
    assert found is not None and skipped == []


def test_only_what_is_trained_is_stored(tmp_path: Path) -> None:
    result = run(plan(study(tmp_path), tmp_path / "c", strategy="lora+bitfit"))
    stored = sum(path.stat().st_size for path in Path(result.checkpoint).glob("*.safetensors"))
    assert stored < 4 * result.trainable_params + 8192
    assert not [path for path in Path(result.checkpoint).iterdir() if path.suffix not in {".json", ".safetensors"}]


def test_a_run_whose_last_checkpoint_is_damaged_goes_on_from_the_one_before(tmp_path: Path) -> None:
    spec = study(tmp_path, training={"select": "best"}, objective={"metric": "loss"})
    whole, second = Recorder(), Recorder()
    run(plan(spec, tmp_path / "whole"), report=whole)
    run(plan(spec, tmp_path / "c"), report=Recorder(after=1, verdict=Verdict.RELEASE))
    shutil.copytree(tmp_path / "c" / "epoch-0001", tmp_path / "epoch-0001")
    run(plan(spec, tmp_path / "c"), report=Recorder(after=2, verdict=Verdict.RELEASE))
    if not (tmp_path / "c" / "epoch-0001").exists():
        shutil.copytree(tmp_path / "epoch-0001", tmp_path / "c" / "epoch-0001")
    flip_a_bit(tmp_path / "c" / "epoch-0002" / OPTIMIZER)
    result = run(plan(spec, tmp_path / "c"), report=second)
    assert second.curve == whole.curve
    assert any("epoch-0002 was skipped: optimizer.safetensors is damaged" in note for note in result.notes)


def test_a_complete_run_asked_again_gives_its_result_without_training(tmp_path: Path) -> None:
    spec = study(tmp_path)
    first = run(plan(spec, tmp_path / "1", score_test=True))
    report = Recorder()
    again = run(plan(spec, tmp_path / "2", score_test=True, resume_from=[tmp_path / "1"]), report=report)
    assert [epoch for epoch, _ in report.curve] == [3]
    assert (again.metrics, again.test, again.best_epoch) == (first.metrics, first.test, first.best_epoch)
    assert Path(again.checkpoint) == tmp_path / "2" / FINAL
    state_text = (Path(again.checkpoint) / STATE).read_text()
    assert json.loads(state_text) == json.loads((tmp_path / "1" / FINAL / STATE).read_text())


@pytest.mark.parametrize("races", [1, 3])
def test_an_attempt_that_lives_on_may_replace_what_is_being_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, races: int
) -> None:
    zombie = Checkpoints(tmp_path / "1")
    save(zombie, 1, best=1)
    copytree, copied = shutil.copytree, 0

    def copy(source: Path, target: Path) -> Path:
        nonlocal copied
        copied += 1
        if copied <= races:
            for epoch in (2 * copied, 2 * copied + 1):  # removes the epoch that is about to be copied
                save(zombie, epoch, best=epoch)
        return Path(copytree(source, target))

    monkeypatch.setattr("tuner.training.checkpoint.shutil.copytree", copy)
    found, _ = Checkpoints(tmp_path / "2").adopt_newest([zombie.folder], identity="run")
    assert found is not None and found.path == tmp_path / "2" / f"epoch-{2 * races + 1:04d}"
    shutil.rmtree(zombie.folder)
    assert found.weights()["w"].tolist() == [float(2 * races + 1)] * 3


def test_a_copy_that_never_succeeds_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(Checkpoints(tmp_path / "1"), 1, best=1)

    def broken(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("tuner.training.checkpoint.shutil.copytree", broken)
    with pytest.raises(OSError, match="Input/output error"):
        Checkpoints(tmp_path / "2").adopt_newest([tmp_path / "1"], identity="run")


def test_an_epoch_replaced_while_it_is_looked_at_is_no_reason_to_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zombie = Checkpoints(tmp_path / "1")
    save(zombie, 1, best=1)
    look, looks = Path.iterdir, 0

    def iterdir(folder: Path) -> Iterator[Path]:
        nonlocal looks
        seen = list(look(folder))
        if folder == zombie.folder and (looks := looks + 1) == 1:
            monkeypatch.setattr(Path, "iterdir", look)
            for epoch in (2, 3):
                save(zombie, epoch, best=epoch)
        return iter(seen)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    found, _ = Checkpoints(tmp_path / "2").adopt_newest([zombie.folder], identity="run")
    assert looks == 1
    assert found is not None and found.epoch == 3


def test_what_is_damaged_is_set_aside_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = Checkpoints(tmp_path / "1"), Checkpoints(tmp_path / "2")
    for epoch in (1, 2, 3):
        save(first, epoch, best=epoch)
    flip_a_bit(tmp_path / "1" / "epoch-0003" / WEIGHTS)
    found, notes = second.adopt_newest([first.folder], identity="run")
    assert found is not None and found.path == tmp_path / "2" / "epoch-0002"
    assert notes == ["checkpoint 1/epoch-0003 was skipped: weights.safetensors is damaged"]
    assert notes[0] in caplog.text
    assert names(tmp_path / "1") == {"epoch-0002", "damaged-epoch-0003"}
    assert second.adopt_newest([first.folder], identity="run")[1] == []


def test_what_was_set_aside_is_kept_until_the_run_is_complete(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in (1, 2):
        save(checkpoints, epoch, best=epoch)
    flip_a_bit(tmp_path / "epoch-0002" / STATE)
    checkpoints.adopt_newest([], identity="run")
    save(checkpoints, 2, best=2)
    assert names(tmp_path) == {"epoch-0001", "epoch-0002", "damaged-epoch-0002"}
    checkpoints.finish(state=state(2, best=2), weights={"w": torch.zeros(1)})
    assert names(tmp_path) == {FINAL}


def test_of_a_pair_the_damaged_one_is_set_aside(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save(Checkpoints(tmp_path), epoch, best=1)
    flip_a_bit(tmp_path / "epoch-0001" / WEIGHTS)
    found, notes = Checkpoints(tmp_path).adopt_newest([], identity="run")
    assert found is None and len(notes) == 3
    assert names(tmp_path) == {"damaged-epoch-0001", "epoch-0002", "epoch-0003"}


def test_what_cannot_be_read_or_is_of_another_run_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(Checkpoints(tmp_path), 1, best=1, identity="other")
    save(Checkpoints(tmp_path), 2, best=2)
    real = Path.open

    def unreadable(path: Path, *arguments: Any, **options: Any) -> Any:
        if "epoch-0002" in str(path):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", unreadable)
    found, notes = Checkpoints(tmp_path).adopt_newest([], identity="run")
    assert found is None and len(notes) == 2
    assert names(tmp_path) == {"epoch-0001", "epoch-0002"}


def test_no_room_leaves_the_checkpoint_before_and_says_how_much_it_takes(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c")
    save(checkpoints, 1, best=1)
    with (
        full_disk(10_000),
        pytest.raises(PlaceError, match=r"disk full: no room for a checkpoint of .* in .*/c;") as caught,
    ):
        checkpoints.save(state=state(2, best=2), weights={"w": torch.zeros(10_000)}, optimizer={}, best=2)
    assert (caught.value.place, caught.value.needed) == (str(tmp_path / "c"), 40_000)
    assert names(tmp_path / "c") == {"epoch-0001"}
    found, notes = checkpoints.adopt_newest([], identity="run")
    assert found is not None and found.epoch == 1 and notes == []


def test_no_room_for_a_copy_of_an_earlier_attempt_leaves_nothing_here(tmp_path: Path) -> None:
    first, second = Checkpoints(tmp_path / "1"), Checkpoints(tmp_path / "2")
    first.save(state=state(1, best=1), weights={"w": torch.zeros(10_000)}, optimizer={}, best=1)
    with full_disk(10_000), pytest.raises(PlaceError, match="disk full"):
        second.adopt_newest([first.folder], identity="run")
    assert (names(tmp_path / "1"), names(tmp_path / "2")) == ({"epoch-0001"}, set())
    found, _ = second.adopt_newest([first.folder], identity="run")
    assert found is not None and found.path == tmp_path / "2" / "epoch-0001"
