"""What the training of one trial is told and what it answers; plain data that JSON can hold.

The supervisor, which never imports torch, builds a :class:`TrialPlan`; the training, which never sees a database, turns
it into a :class:`TrialResult` and asks for a :class:`Verdict` after every epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

from tuner.study.domains import Value
from tuner.study.folds import fold_of
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
        score_test: Score the test rows and the held back validation rows at the end (confirmation runs only).
        checkpoint_dir: Folder of this attempt, or its URL in an object store; nobody else writes to it. Empty: nothing is kept, nobody
            can go on, and no test rows are scored.
        scratch: Local folder for checkpoints on their way to and from an object store; unused otherwise.
        resume_from: Folders or URLs of earlier attempts of this run, newest first; the newest valid checkpoint counts.
        teacher: The model to learn from besides the labels, where the study distills one; ``params`` hold
            ``distill.temperature`` and ``distill.weight`` then.
        micro_batch: Rows on the device at once at most, from what is known about its memory; 0 where nothing is. The
            gradients are those of whole batches all the same.
        micro_batches: From which step on how many rows were on the device at once, where a run is repeated bit for bit: gradients that are
            added up in other parts differ in their last digits. Empty: as ``micro_batch`` says.
        epochs: Epochs after which the run ends, the last of which counts; 0: as ``spec.training`` says. The learning rate falls as it
            does over all epochs of the study.
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
    micro_batches: tuple[tuple[int, int], ...] = ()
    epochs: int = 0

    @property
    def fold(self) -> int:
        """The fold that judges the run; 0 where the rows are not divided into folds."""
        return fold_of(self.spec, seed=self.seed)

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
            "micro_batches": [list(part) for part in self.micro_batches],
            "epochs": self.epochs,
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
                "micro_batches": parts_from_json(data.get("micro_batches")),
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
    """Rows that the search never sees, test rows or held back ones, scored once by one confirmation run.

    Attributes:
        metrics: The task's metrics on these rows.
        confusion: Counts on these rows.
        predictions: Predicted class index of each row, in the order of the file.
        truth: True class index of each row, in the order of the file.
        by_row: Each row's part in the study's metric, in the order of the file, where predicted classes do not tell it (``auc``,
            ``loss``): their mean is the metric. Empty for other metrics, and in results of older versions.
    """

    metrics: Mapping[str, float]
    confusion: Confusion
    predictions: tuple[int, ...]
    truth: tuple[int, ...]
    by_row: tuple[float, ...] = ()


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
        held_back: Score on the validation rows that the search never sees, if the plan asked for it and there are any.
        checkpoint: Folder or URL with the weights of the best epoch; empty if none is kept.
        trainable_params: Parameters that receive gradients.
        total_params: All parameters of the adapted model.
        peak_memory: Bytes: on CUDA the allocator's peak, on CPU the process's peak resident set.
        seconds: Device seconds of this attempt: training, evaluation, checkpoints.
        device: Name of the device, such as ``NVIDIA H100 80GB HBM3`` or ``cpu``.
        notes: What a person should know, such as the share of texts that were cut.
        micro_batches: As in :class:`TrialPlan`: what must be the same where the run is repeated bit for bit.
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
    held_back: TestScore | None = None
    notes: tuple[str, ...] = field(default=())
    micro_batches: tuple[tuple[int, int], ...] = ()

    def finite(self) -> TrialResult:
        """The same without the metrics that are not finite: neither JSON nor every database can hold them."""
        return replace(
            self,
            metrics=_finite(self.metrics),
            test=_finite_score(self.test),
            held_back=_finite_score(self.held_back),
        )

    def to_json(self) -> dict[str, Any]:
        """The result as JSON, for the pipe to the supervisor and the database."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialResult:
        """The inverse of :meth:`to_json`."""
        fields = dict(data)
        fields["confusion"] = confusion_from_json(data.get("confusion"))
        for name in ("test", "held_back"):
            fields[name] = _score_from_json(data.get(name))
        fields["notes"] = tuple(data.get("notes", ()))
        fields["micro_batches"] = parts_from_json(data.get("micro_batches"))
        return cls(**fields)


def _finite_score(score: TestScore | None) -> TestScore | None:
    return None if score is None else replace(score, metrics=_finite(score.metrics))


def _score_from_json(data: Mapping[str, Any] | None) -> TestScore | None:
    if data is None:
        return None
    confusion = confusion_from_json(data["confusion"])
    assert confusion is not None
    return TestScore(
        metrics=data["metrics"],
        confusion=confusion,
        predictions=tuple(data["predictions"]),
        truth=tuple(data["truth"]),
        by_row=tuple(data.get("by_row", ())),
    )


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def confusion_from_json(data: Mapping[str, Any] | None) -> Confusion | None:
    """A :class:`Confusion` from its JSON form, or None."""
    if data is None:
        return None
    return Confusion(labels=tuple(data["labels"]), counts=tuple(tuple(row) for row in data["counts"]))


def parts_from_json(data: Sequence[Sequence[int]] | None) -> tuple[tuple[int, int], ...]:
    """``micro_batches`` from its JSON form; empty where older versions wrote none."""
    return tuple((int(first), int(rows)) for first, rows in data or ())
