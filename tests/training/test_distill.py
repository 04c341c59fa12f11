from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, BertConfig

from tests.training.samples import CONFIGS, LABELS, Recorder, plan, run, study, write_model
from tests.training.toy import ROWS, WEIGHTS, by_hand, gradients, objective_of
from tuner.errors import ConfigurationError, ConflictError
from tuner.study.plan import TeacherPlan, TrialPlan, Verdict
from tuner.study.spec import StudySpec
from tuner.training.batches import TokenExamples
from tuner.training.cache import WarmCache
from tuner.training.data import StudyData, load_data, load_labels
from tuner.training.device import choose_compute
from tuner.training.distill import Lessons, distillation, load_lessons
from tuner.training.evaluate import predict
from tuner.training.model import load_tokenizer
from tuner.training.regularisers import Mixing

CPU = choose_compute("fp32")


def test_distillation_is_hintons_formula() -> None:
    student, teacher = (
        torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]),
        torch.tensor([[2.0, 1.0, 0.0], [3.0, 0.0, 0.0]]),
    )
    p, q = (teacher / 2.5).softmax(1), (student / 2.5).softmax(1)
    torch.testing.assert_close(distillation(student, teacher, temperature=2.5), 2.5**2 * (p * (p / q).log()).sum())
    assert distillation(teacher, teacher + 7.0, temperature=3.0).item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_the_loss_is_shared_by_labels_and_teacher(
    tmp_path: Path, micro_batch: int, weighted: bool, mixup: float
) -> None:
    changes = {"distill_weight": 0.3, "distill_temperature": 4.0, "label_smoothing": 0.1, "mixup": mixup}
    objective, layer, weights = objective_of(tmp_path, weighted=weighted, **changes)
    said = torch.randn(30, 3, generator=torch.Generator().manual_seed(2))
    objective = replace(objective, teacher=said)
    mixing = Mixing.draw(alpha=0.4, rows=8, seed=objective.settings.seed, step=3)
    share, partners = (mixing.share, mixing.partners) if mixup else (1.0, torch.arange(8))

    def loss(vectors: Tensor, targets: Tensor) -> Tensor:
        logits = layer(share * vectors + (1 - share) * vectors[partners])

        def of(places: Tensor) -> Tensor:
            hard = cross_entropy(logits, targets[places], weight=weights, label_smoothing=0.1)
            p, q = (said[ROWS][places] / 4.0).log_softmax(1), (logits / 4.0).log_softmax(1)
            soft = (p.exp() * (p - q)).sum(1).mean()
            return torch.add(0.7 * hard, 0.3 * 16.0 * soft)

        own, other = of(torch.arange(8)), of(partners)
        mixed: Tensor = share * own + (1 - share) * other
        return mixed

    torch.testing.assert_close(gradients(objective, micro_batch=micro_batch), by_hand(objective, loss))
    assert (weights is WEIGHTS) == weighted


def write_teacher(folder: Path, labels: Sequence[str], *, seed: int = 1) -> Path:
    """A classifier with a tokenizer, its weights random, its classes in an order of its own."""
    write_model(folder)
    config = BertConfig.from_dict({**CONFIGS["bert"].to_dict(), "id2label": dict(enumerate(labels))})
    config.label2id = {label: index for index, label in enumerate(labels)}
    torch.manual_seed(seed)
    model: nn.Module = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6.0)
    model.save_pretrained(folder)  # type: ignore[operator]
    return folder


def rows_of(spec: StudySpec, *, cache: WarmCache, balance: str = "none") -> StudyData:
    labels = load_labels(spec, cache=cache)
    tokenizer = load_tokenizer(spec, cache=cache)
    return load_data(spec, tokenizer=tokenizer, labels=labels, balance=balance, with_test=False, cache=cache)


def lessons(what: TrialPlan, *, cache: WarmCache, balance: str = "none") -> tuple[Lessons, StudyData]:
    data = rows_of(what.spec, cache=cache, balance=balance)
    found = load_lessons(what, rows=data.train, labels=data.labels, compute=CPU, cache=cache)
    assert found is not None
    return found, data


@pytest.mark.parametrize("balance", ["none", "oversample"])
def test_a_classifier_answers_in_the_order_of_the_rows_and_of_the_studys_labels(tmp_path: Path, balance: str) -> None:
    folder = write_teacher(tmp_path / "teacher", ["tool", "weather", "Animal", "fruit"])
    what = replace(plan(study(tmp_path), tmp_path / "c"), teacher=TeacherPlan(model=str(folder)))
    found, data = lessons(what, cache=WarmCache(), balance=balance)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    expected = predict(model, examples=TokenExamples.on(CPU.device, rows=data.train, pad=0), compute=CPU)
    torch.testing.assert_close(found.logits, expected[:, [2, 3, 0]])
    assert data.labels == LABELS


def test_the_teacher_is_asked_once_by_all_runners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_teacher(tmp_path / "teacher", LABELS)
    what = replace(plan(study(tmp_path), tmp_path / "c"), teacher=TeacherPlan(model=str(folder)))
    first = WarmCache(tmp_path / "kept")
    found, _ = lessons(what, cache=first)
    monkeypatch.setattr("tuner.training.distill._answers", lambda *_, **__: pytest.fail("asked again"))
    for cache in (first, WarmCache(tmp_path / "kept")):
        again, _ = lessons(what, cache=cache)
        assert torch.equal(again.logits, found.logits) and again.fingerprint == found.fingerprint
    write_teacher(folder, LABELS, seed=2)  # another teacher of the same name
    for cache in (first, WarmCache(tmp_path / "kept")):
        with pytest.raises(pytest.fail.Exception, match="asked again"):
            lessons(what, cache=cache)


def test_answers_are_kept_for_those_alone_who_would_have_given_them_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_teacher(tmp_path / "teacher", LABELS)
    what = replace(plan(study(tmp_path), tmp_path / "c"), teacher=TeacherPlan(model=str(folder)))

    def kept() -> int:
        lessons(what, cache=WarmCache(tmp_path / "kept"))
        return len(list((tmp_path / "kept").glob("teacher-*")))

    assert kept() == kept() == 1
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert kept() == kept() == 2
    finally:
        torch.set_num_threads(threads)
    assert kept() == 2
    monkeypatch.setattr(type(CPU), "name", "another processor")
    assert kept() == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["LABEL_0", "LABEL_1", "LABEL_2"], r"does not know the labels animal, fruit, tool - its labels are LABEL_0,"),
        (["animal", "tool"], r"does not know the label fruit - its labels are animal, tool;"),
    ],
)
def test_a_teacher_of_other_labels_is_refused_in_one_line(tmp_path: Path, labels: Sequence[str], message: str) -> None:
    folder = write_teacher(tmp_path / "teacher", labels)
    what = replace(plan(study(tmp_path), tmp_path / "c"), teacher=TeacherPlan(model=str(folder)))
    with pytest.raises(ConfigurationError, match=message):
        run(what)


def test_a_model_that_was_never_fine_tuned_is_no_teacher(tmp_path: Path) -> None:
    what = replace(plan(study(tmp_path), tmp_path / "c"), teacher=TeacherPlan(model=str(tmp_path / "model-bert")))
    with pytest.raises(ConfigurationError, match=r"is no fine-tuned classifier - it has no weights for classifier"):
        run(what)


def taught_by(folder: Path, *, strategy: str, **changes: Any) -> tuple[TrialPlan, TrialPlan]:
    """A complete trial of its own study, and the plan of a student of it."""
    spec = study(folder, training={"epochs": 3, "max_length": 12})
    teacher = plan(spec, folder / "teacher", strategy=strategy, learning_rate=3e-3)
    result = run(teacher)
    trial: Mapping[str, Any] = {
        "spec": spec.model_dump(mode="json"),
        "strategy": strategy,
        "params": dict(teacher.params),
        "seed": teacher.seed,
    }
    values = {"learning_rate": 3e-3, "distill.weight": 0.7, "distill.temperature": 3.0} | changes
    student = replace(
        plan(study(folder), folder / "student", **values),
        teacher=TeacherPlan(trial=trial, checkpoint=result.checkpoint),
    )
    return teacher, TrialPlan.from_json(json.loads(json.dumps(student.to_json())))


@pytest.mark.parametrize("strategy", ["full", "lora+bitfit"])
def test_a_trial_teaches_with_the_weights_that_it_kept(tmp_path: Path, strategy: str) -> None:
    _, student = taught_by(tmp_path, strategy=strategy)
    cache = WarmCache()
    found, data = lessons(student, cache=cache)
    assert student.teacher is not None and student.teacher.trial is not None
    # The same run again, asked for the training rows as if they were its test rows, gives the same answers.
    own = StudySpec.model_validate(student.teacher.trial["spec"])
    judged = own.model_copy(update={"data": own.data.model_copy(update={"test": own.data.train})})
    result = run(plan(judged, tmp_path / "again", strategy=strategy, learning_rate=3e-3, score_test=True))
    assert result.test is not None
    answers = torch.tensor(result.test.predictions)[data.train.chosen]
    assert torch.equal(found.logits.argmax(1), answers)


def test_the_weights_of_another_trial_do_not_fit(tmp_path: Path) -> None:
    _, student = taught_by(tmp_path, strategy="full")
    assert student.teacher is not None and student.teacher.trial is not None
    other = {**student.teacher.trial, "strategy": "head"}
    with pytest.raises(ConflictError, match="do not fit"):
        run(replace(student, teacher=replace(student.teacher, trial=other)))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        run(replace(student, teacher=replace(student.teacher, checkpoint=str(tmp_path / "nowhere"))))


@pytest.mark.parametrize("strategy", ["full", "head"])
def test_a_resumed_student_equals_the_uninterrupted_one_and_heard_its_teacher(tmp_path: Path, strategy: str) -> None:
    _, student = taught_by(tmp_path, strategy="full")
    student = replace(student, strategy=strategy)
    whole, rest, alone, deaf = Recorder(), Recorder(), Recorder(), Recorder()
    cache = WarmCache()
    run(replace(student, checkpoint_dir=str(tmp_path / "whole")), report=whole, cache=cache)
    part = str(tmp_path / "part")
    run(replace(student, checkpoint_dir=part), report=Recorder(after=1, verdict=Verdict.RELEASE), cache=cache)
    run(replace(student, resume_from=(part,)), report=rest)
    assert rest.curve == whole.curve
    run(replace(student, teacher=None, checkpoint_dir=str(tmp_path / "alone"), resume_from=(part,)), report=alone)
    assert alone.curve[0][0] == 1  # the run without a teacher is another one: it goes on from nothing
    assert alone.curve[0][1]["train_loss"] != whole.curve[0][1]["train_loss"]
    values = {**student.params, "distill.weight": 0.0}
    run(replace(student, params=values, checkpoint_dir=str(tmp_path / "deaf")), report=deaf, cache=cache)
    assert [curve["loss"] for _, curve in deaf.curve] == pytest.approx([curve["loss"] for _, curve in alone.curve])


def test_another_teacher_makes_another_run(tmp_path: Path) -> None:
    folder = write_teacher(tmp_path / "teacher", LABELS)
    what = replace(plan(study(tmp_path), tmp_path / "1"), teacher=TeacherPlan(model=str(folder)))
    run(what, report=Recorder(after=1, verdict=Verdict.RELEASE))
    write_teacher(folder, LABELS, seed=2)
    report = Recorder()
    result = run(replace(what, checkpoint_dir=str(tmp_path / "2"), resume_from=(str(tmp_path / "1"),)), report=report)
    assert [epoch for epoch, _ in report.curve] == [1, 2, 3]
    assert any("belongs to another run" in note for note in result.notes)
