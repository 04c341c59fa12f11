from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.object_stores import found, running_store
from tests.training.samples import Recorder, plan, run, study
from tuner.errors import PlaceError
from tuner.files import remote
from tuner.files.remote import RemoteFolder
from tuner.study.plan import TrialPlan, Verdict
from tuner.training.checkpoint import FINAL, WEIGHTS
from tuner.training.remote import RemoteCheckpoints, kept_checkpoint
from tuner.training.sealed import MANIFEST


def state(epoch: int, *, best: int, identity: str = "run") -> dict[str, Any]:
    return {"identity": identity, "best_epoch": best, "history": {"epochs": [{}] * epoch}, "scaler": {}}


def save(checkpoints: RemoteCheckpoints, epoch: int, *, best: int) -> None:
    checkpoints.save(
        state=state(epoch, best=best),
        weights={"w": torch.full((3,), float(epoch))},
        optimizer={"w/step": torch.tensor(float(epoch))},
        best=best,
    )


def attempt(url: str, folder: Path, *, number: int) -> RemoteCheckpoints:
    return RemoteCheckpoints(f"{url}/attempt-{number}", scratch=folder / f"scratch-{number}")


def names(url: str) -> list[str]:
    return RemoteFolder(url).names()


def test_the_store_holds_what_a_folder_would(object_url: str, tmp_path: Path) -> None:
    checkpoints = attempt(object_url, tmp_path, number=1)
    for epoch in (1, 2, 3, 4):
        save(checkpoints, epoch, best=min(epoch, 2))
    url = f"{object_url}/attempt-1"
    assert names(url) == ["epoch-0002", "epoch-0003", "epoch-0004"]
    place = checkpoints.finish(state=state(4, best=2), weights={"w": torch.full((3,), 2.0)})
    assert (place, names(url)) == (f"{url}/{FINAL}", [FINAL])
    with kept_checkpoint(place) as kept:
        assert kept.weights()["w"].tolist() == [2.0] * 3
    checkpoints.clear()
    assert names(url) == [] and not checkpoints.folder.exists()


def test_another_box_goes_on_from_the_newest(object_url: str, tmp_path: Path) -> None:
    first, second = attempt(object_url, tmp_path, number=1), attempt(object_url, tmp_path, number=2)
    for epoch in (1, 2, 3):
        save(first, epoch, best=min(epoch, 2))
    shutil.rmtree(tmp_path / "scratch-1")
    adopted, notes = second.adopt_newest([f"{object_url}/attempt-1"], identity="run")
    assert adopted is not None and (adopted.epoch, notes) == (3, [])
    assert adopted.path == tmp_path / "scratch-2" / "epoch-0003"
    assert adopted.weights()["w"].tolist() == [3.0] * 3
    assert adopted.optimizer()["w/step"].item() == 3.0
    # The folder of the earlier attempt may go at any time: its own one has both.
    assert names(f"{object_url}/attempt-2") == ["epoch-0002", "epoch-0003"]
    RemoteFolder(f"{object_url}/attempt-1").clear()
    third, _ = attempt(object_url, tmp_path, number=3).adopt_newest(
        [f"{object_url}/attempt-2", f"{object_url}/attempt-1"], identity="run"
    )
    assert third is not None and third.epoch == 3


def test_what_was_cut_off_before_its_manifest_does_not_count(object_url: str, tmp_path: Path) -> None:
    first = attempt(object_url, tmp_path, number=1)
    for epoch in (1, 2):
        save(first, epoch, best=epoch)
    RemoteFolder(f"{object_url}/attempt-1/epoch-0002").remove(MANIFEST)
    adopted, notes = attempt(object_url, tmp_path, number=2).adopt_newest([f"{object_url}/attempt-1"], identity="run")
    assert adopted is not None and (adopted.epoch, notes) == (1, [])


@pytest.mark.parametrize("file", [WEIGHTS, MANIFEST, "state.json"])
def test_what_is_damaged_is_set_aside_for_the_one_before(s3_url: str, tmp_path: Path, file: str) -> None:
    first = attempt(s3_url, tmp_path, number=1)
    for epoch in (1, 2):
        save(first, epoch, best=epoch)
    damaged = RemoteFolder(f"{s3_url}/attempt-1/epoch-0002")
    damaged.write(file, damaged.read(file)[:-9])
    adopted, notes = attempt(s3_url, tmp_path, number=2).adopt_newest([f"{s3_url}/attempt-1"], identity="run")
    assert adopted is not None and adopted.epoch == 1
    assert len(notes) == 1 and notes[0].startswith("checkpoint attempt-1/epoch-0002 was skipped: ")
    assert MANIFEST not in damaged.names() and json.loads(damaged.read("damaged.json"))["why"]
    again, notes = attempt(s3_url, tmp_path, number=3).adopt_newest([f"{s3_url}/attempt-1"], identity="run")
    assert again is not None and (again.epoch, notes) == (1, [])


def test_what_is_damaged_on_its_way_is_copied_again(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(attempt(s3_url, tmp_path, number=1), 1, best=1)
    real, calls = RemoteFolder.download, 0

    def download(folder: RemoteFolder, name: str, *, file: Path) -> None:
        nonlocal calls
        calls += 1
        real(folder, name, file=file)
        if calls == 1:
            file.write_bytes(b"")

    monkeypatch.setattr(RemoteFolder, "download", download)
    adopted, notes = attempt(s3_url, tmp_path, number=2).adopt_newest([f"{s3_url}/attempt-1"], identity="run")
    assert adopted is not None and notes == []


def test_a_manifest_that_names_a_file_elsewhere_is_no_manifest(s3_url: str, tmp_path: Path) -> None:
    save(attempt(s3_url, tmp_path, number=1), 1, best=1)
    evil = RemoteFolder(f"{s3_url}/attempt-1/epoch-0001")
    evil.write(MANIFEST, json.dumps({"format": 1, "files": {"../../../outside": {}}}).encode())
    adopted, notes = attempt(s3_url, tmp_path, number=2).adopt_newest([f"{s3_url}/attempt-1"], identity="run")
    assert adopted is None and "is no name of a file" in notes[0]
    assert not (tmp_path.parent / "outside").exists()


def test_a_checkpoint_of_another_run_stays(s3_url: str, tmp_path: Path) -> None:
    save(attempt(s3_url, tmp_path, number=1), 1, best=1)
    adopted, notes = attempt(s3_url, tmp_path, number=2).adopt_newest([f"{s3_url}/attempt-1"], identity="other")
    assert adopted is None and "belongs to another run" in notes[0]
    assert MANIFEST in names(f"{s3_url}/attempt-1/epoch-0001")


def test_an_upload_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE", 0.1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    with running_store("s3") as store, found(store):
        first = attempt(store.url, tmp_path, number=1)
        save(first, 1, best=1)
        real, sent = RemoteFolder.upload, []

        def upload(folder: RemoteFolder, file: Path, *, name: str) -> None:
            sent.append(name)
            if len(sent) == 2:
                raise PlaceError("gone", place=folder.url)
            real(folder, file, name=name)

        monkeypatch.setattr(RemoteFolder, "upload", upload)
        with pytest.raises(PlaceError):
            save(first, 2, best=2)
        assert MANIFEST not in sent
        monkeypatch.setattr(RemoteFolder, "upload", real)
        adopted, _ = attempt(store.url, tmp_path, number=2).adopt_newest([f"{store.url}/attempt-1"], identity="run")
        assert adopted is not None and adopted.epoch == 1
        store.stop()
        with pytest.raises(PlaceError, match="cannot be listed"):
            attempt(store.url, tmp_path, number=3).adopt_newest([f"{store.url}/attempt-1"], identity="run")


def remote_plan(url: str, folder: Path, *, number: int, **changes: Any) -> TrialPlan:
    """A run whose attempts are on different boxes: all they share is the store."""
    box = folder / f"box-{number}"
    return TrialPlan.from_json(
        {
            **plan(study(folder), box, score_test=True).to_json(),
            "checkpoint_dir": f"{url}/attempt-{number}",
            "scratch": str(box / "scratch"),
            "resume_from": [f"{url}/attempt-{earlier}" for earlier in range(number - 1, 0, -1)],
            **changes,
        }
    )


def test_a_run_goes_on_from_box_to_box_bit_for_bit(s3_url: str, tmp_path: Path) -> None:
    whole, curve = Recorder(), []
    expected = run(plan(study(tmp_path), tmp_path / "whole", score_test=True), report=whole)
    for number in (1, 2):
        report = Recorder(after=number, verdict=Verdict.RELEASE)
        run(remote_plan(s3_url, tmp_path, number=number), report=report)
        curve += report.curve
        shutil.rmtree(tmp_path / f"box-{number}", ignore_errors=True)
    report = Recorder()
    last = run(remote_plan(s3_url, tmp_path, number=3), report=report)
    assert report.curve == whole.curve[1:]
    assert all(pair in whole.curve for pair in curve)
    assert (last.metrics, last.test) == (expected.metrics, expected.test)
    assert last.checkpoint == f"{s3_url}/attempt-3/{FINAL}"
    assert not (tmp_path / "box-3" / "scratch").exists()
    with kept_checkpoint(last.checkpoint) as kept:
        ours, theirs = kept.weights(), load_file(Path(expected.checkpoint) / WEIGHTS)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_pruned_run_leaves_nothing_in_the_store(s3_url: str, tmp_path: Path) -> None:
    run(remote_plan(s3_url, tmp_path, number=1), report=Recorder(after=2, verdict=Verdict.PRUNE))
    assert names(f"{s3_url}/attempt-1") == []


def test_a_trial_in_the_store_teaches(s3_url: str, tmp_path: Path) -> None:
    teacher = run(remote_plan(s3_url, tmp_path, number=1))
    spec = study(tmp_path)
    values: dict[str, Any] = {"distill.temperature": 2.0, "distill.weight": 0.5}
    student = plan(spec, tmp_path / "student", **values)
    trial = {
        "spec": spec.model_dump(mode="json"),
        "strategy": "full",
        "params": dict(remote_plan(s3_url, tmp_path, number=1).params),
        "seed": 5,
    }
    taught = TrialPlan.from_json(
        {
            **student.to_json(),
            "teacher": {"model": "", "revision": None, "trial": trial, "checkpoint": teacher.checkpoint},
        }
    )
    report, alone = Recorder(), Recorder()
    run(taught, report=report)
    run(plan(spec, tmp_path / "alone"), report=alone)
    assert report.curve != alone.curve
