"""What the training of one trial is told and what it answers; plain data that JSON can hold.

The supervisor, which never imports torch, builds a :class:`TrialPlan`; the training, which never sees a database, turns
it into a :class:`TrialResult` and asks for a :class:`Verdict` after every epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

from tuner.study.domains import Value
from tuner.study.spec import StudySpec


class Verdict(Enum):
    """What a trial does after a report."""

    GO_ON = "go_on"
    PRUNE = "prune"  # it loses: stop, keep what was reported
    RELEASE = "release"  # the worker drains: stop, the checkpoint lets any worker go on
    STOP = "stop"  # the run is no longer ours, or was cancelled: stop and write nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherPlan:
    """The model that a run learns from besides the labels: a pretrained classifier, or a trial that is complete.

    Attributes:
        model: Hub id, absolute folder or ``package://`` of a classifier; empty where a trial teaches.
        revision: Commit of a hub model.
        trial: The trial that teaches, as JSON: ``spec`` (the study it is of), ``strategy``, ``params`` and ``seed``;
            None where a model teaches.
        checkpoint: Folder or URL with the weights of that trial's best epoch; empty where a model teaches.
    """

    model: str = ""
    revision: str | None = None
    trial: Mapping[str, Any] | None = None
    checkpoint: str = ""

    def to_json(self) -> dict[str, Any]:
        """The teacher as JSON."""
        return {
            "model": self.model,
            "revision": self.revision,
            "trial": None if self.trial is None else dict(self.trial),
            "checkpoint": self.checkpoint,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TeacherPlan:
        """The inverse of :meth:`to_json`."""
        return cls(**data)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialPlan:
    """One run of one trial.

    Attributes:
        spec: The study; paths in it are absolute.
        number: Optuna's trial number.
        strategy: The strategy or combination.
        params: Absolute values: ``learning_rate``, ``batch_size``, … and dotted ones such as ``lora.r``.
        seed: Seed of the weights, the data order and the dropout of this run.
        score_test: Score the test rows at the end (confirmation runs only).
        checkpoint_dir: Folder of this attempt, or its URL in an object store; nobody else writes to it.
        scratch: Local folder for checkpoints on their way to and from an object store; unused otherwise.
        resume_from: Folders or URLs of earlier attempts of this run, newest first; the newest valid checkpoint counts.
        teacher: The model to learn from besides the labels, where the study distills one; ``params`` hold
            ``distill.temperature`` and ``distill.weight`` then.
        micro_batch: Rows on the device at once at most, from what is known about its memory; 0 where nothing is. The
            gradients are those of whole batches all the same.
    """

    spec: StudySpec
    number: int
    strategy: str
    params: Mapping[str, Value]
    seed: int
    checkpoint_dir: str
    scratch: str = ""
    score_test: bool = False
    resume_from: tuple[str, ...] = ()
    teacher: TeacherPlan | None = None
    micro_batch: int = 0

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON, for the pipe to the runner."""
        return {
            "spec": self.spec.model_dump(mode="json"),
            "number": self.number,
            "strategy": self.strategy,
            "params": dict(self.params),
            "seed": self.seed,
            "checkpoint_dir": self.checkpoint_dir,
            "scratch": self.scratch,
            "score_test": self.score_test,
            "resume_from": list(self.resume_from),
            "teacher": None if self.teacher is None else self.teacher.to_json(),
            "micro_batch": self.micro_batch,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialPlan:
        """The inverse of :meth:`to_json`."""
        teacher = data.get("teacher")
        return cls(
            **{
                **data,
                "spec": StudySpec.model_validate(data["spec"]),
                "resume_from": tuple(data["resume_from"]),
                "teacher": None if teacher is None else TeacherPlan.from_json(teacher),
            }
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """Rows counted by true and predicted class.

    Attributes:
        labels: Class names, in the order of the matrix.
        counts: ``counts[true][predicted]``.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TestScore:
    """The test rows, scored once by one confirmation run.

    Attributes:
        metrics: The task's metrics on the test rows.
        confusion: Counts on the test rows.
        predictions: Predicted class index of each test row, in the order of the file.
        truth: True class index of each test row, in the order of the file.
    """

    metrics: Mapping[str, float]
    confusion: Confusion
    predictions: tuple[int, ...]
    truth: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult:
    """How a run ended, if it ended well; bad ends are exceptions (:class:`tuner.errors.TrialError`).

    Attributes:
        ended_by: ``epochs`` (all were trained), ``patience`` (early stopping), or the verdict that stopped it.
        epochs: Epochs trained, over all attempts of the run.
        best_epoch: 1-based epoch that counts.
        metrics: Validation metrics of that epoch.
        confusion: Validation counts of that epoch.
        test: Test score, if the plan asked for one.
        checkpoint: Folder or URL with the weights of the best epoch; empty if none is kept.
        trainable_params: Parameters that receive gradients.
        total_params: All parameters of the adapted model.
        peak_memory: Bytes: on CUDA the allocator's peak, on CPU the process's peak resident set.
        seconds: Device seconds of this attempt: training, evaluation, checkpoints.
        device: Name of the device, such as ``NVIDIA H100 80GB HBM3`` or ``cpu``.
        notes: What a person should know, such as the share of texts that were cut.
    """

    ended_by: str
    epochs: int
    best_epoch: int
    metrics: Mapping[str, float]
    trainable_params: int
    total_params: int
    peak_memory: int
    seconds: float
    device: str
    checkpoint: str = ""
    confusion: Confusion | None = None
    test: TestScore | None = None
    notes: tuple[str, ...] = field(default=())

    def finite(self) -> TrialResult:
        """The same without the metrics that are not finite: neither JSON nor every database can hold them."""
        test = self.test
        return replace(
            self,
            metrics=_finite(self.metrics),
            test=None if test is None else replace(test, metrics=_finite(test.metrics)),
        )

    def to_json(self) -> dict[str, Any]:
        """The result as JSON, for the pipe to the supervisor and the database."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialResult:
        """The inverse of :meth:`to_json`."""
        fields = dict(data)
        fields["confusion"] = confusion_from_json(data.get("confusion"))
        if (test := data.get("test")) is not None:
            confusion = confusion_from_json(test["confusion"])
            assert confusion is not None
            fields["test"] = TestScore(
                metrics=test["metrics"],
                confusion=confusion,
                predictions=tuple(test["predictions"]),
                truth=tuple(test["truth"]),
            )
        fields["notes"] = tuple(data.get("notes", ()))
        return cls(**fields)


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def confusion_from_json(data: Mapping[str, Any] | None) -> Confusion | None:
    """A :class:`Confusion` from its JSON form, or None."""
    if data is None:
        return None
    return Confusion(labels=tuple(data["labels"]), counts=tuple(tuple(row) for row in data["counts"]))
