"""Learning from a larger model: its answers to the training rows, and the loss that follows them.

The teacher reads the rows as texts, with its own tokenizer, and once: in evaluation mode, before the first step. Its
logits are kept in memory for all trials of a runner, and on disk beside the tokens for the next runner.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax
from transformers import PreTrainedTokenizerBase

from tuner.errors import ConfigurationError
from tuner.strategies.state import load_trainable_state
from tuner.study.plan import TeacherPlan, TrialPlan
from tuner.study.spec import StudySpec
from tuner.study.teacher import places
from tuner.tasks import TASKS
from tuner.training.adapt import adapt
from tuner.training.batches import TokenExamples, evaluation_batches
from tuner.training.cache import WarmCache, model_key, read_tensors, write_tensors
from tuner.training.data import Rows, load_labels, load_tokens
from tuner.training.device import Compute, circumstances
from tuner.training.interrupt import Released, stop_if_told
from tuner.training.memory import in_parts
from tuner.training.model import fingerprint_of, load_base, load_classifier, load_tokenizer
from tuner.training.remote import kept_checkpoint

_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Lessons:
    """What a teacher says about the training rows.

    Attributes:
        logits: One line for each row, in the order of the study's labels, float32, (rows, classes).
        fingerprint: Hash of the teacher's weights and of the order of its labels.
    """

    logits: Tensor
    fingerprint: str


def distillation(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """How far a student is from its teacher: T² times the Kullback-Leibler divergence of both at temperature T.

    The factor keeps the gradients as large as those of the labels' loss, whatever the temperature.

    Args:
        student: Logits, (rows, classes).
        teacher: Logits, (rows, classes).
        temperature: Both are divided by it.

    Returns:
        The sum over the rows, a scalar.

    Source: Hinton et al. 2015, Distilling the Knowledge in a Neural Network.
    """
    follows = log_softmax(student.float() / temperature, dim=-1)
    leads = log_softmax(teacher.float() / temperature, dim=-1)
    return temperature**2 * kl_div(follows, leads, reduction="sum", log_target=True)


def load_lessons(
    plan: TrialPlan,
    *,
    rows: Rows,
    labels: Sequence[str],
    compute: Compute,
    cache: WarmCache,
    released: Released = lambda: None,
) -> Lessons | None:
    """What the plan's teacher says about the training rows; None without a teacher.

    Args:
        plan: What is trained.
        rows: The training rows.
        labels: Class names by index.
        compute: Device and precision.
        cache: Where the logits are kept.
        released: Asked between files and before every batch.

    Raises:
        ConfigurationError: If the teacher cannot be loaded, or does not know a label of the study.
        ConflictError: If the weights of a trial do not fit its model.
        DataError: If the rows of the teacher's own study cannot be read.
        Interrupted: If ``released`` says so; nothing is kept then.
    """
    if plan.teacher is None:
        return None
    needed = torch.unique(rows.chosen)
    said = json.dumps(plan.teacher.to_json(), sort_keys=True)
    key = (
        "teacher",
        said,
        _files(plan.teacher),
        tuple(labels),
        rows.tokens.key,
        needed.numpy().tobytes(),
        str(compute),
    )

    def build() -> Lessons:
        return _ask(plan, needed=needed, labels=labels, compute=compute, cache=cache, released=released)

    kept = cache.get(key, build)
    return Lessons(
        logits=kept.logits[torch.searchsorted(needed, rows.chosen)].to(compute.device), fingerprint=kept.fingerprint
    )


def _files(teacher: TeacherPlan) -> tuple[Hashable, ...]:
    """The model that teaches, or that the trial was trained from, as it is now."""
    model = teacher if teacher.trial is None else StudySpec.model_validate(teacher.trial["spec"])
    return model_key(model.model, model.revision)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Teacher:
    """A classifier that is ready to answer.

    Attributes:
        name: For messages.
        model: On the CPU.
        tokenizer: Its own.
        spec: How the study's rows are read for it.
        labels: Its class names by index.
        fingerprint: Hash of its weights.
    """

    name: str
    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    spec: StudySpec
    labels: Sequence[str]
    fingerprint: str


def _ask(
    plan: TrialPlan, *, needed: Tensor, labels: Sequence[str], compute: Compute, cache: WarmCache, released: Released
) -> Lessons:
    """The teacher's logits for some rows of the training file, (rows, classes), on the CPU."""
    assert plan.teacher is not None
    stop_if_told(released)
    load = _model if plan.teacher.trial is None else _trial
    teacher = load(plan.teacher, spec=plan.spec, cache=cache)
    columns = _columns(teacher, labels)
    stop_if_told(released)
    tokens = load_tokens(
        plan.spec.data.train, teacher.spec, tokenizer=teacher.tokenizer, cache=cache, released=released
    )
    fingerprint = sha256(json.dumps([teacher.fingerprint, columns]).encode()).hexdigest()
    # Runners of other devices and with other threads share the folder, and their last digits are others.
    exactly = [_FORMAT, fingerprint, tokens.key, str(compute), compute.name, circumstances()]
    digest = sha256(json.dumps(exactly, sort_keys=True).encode())
    digest.update(needed.numpy().data)
    path = None if cache.folder is None else cache.folder / f"teacher-{digest.hexdigest()[:40]}.safetensors"
    if path is not None and (kept := read_tensors(path)) is not None and "logits" in kept:
        return Lessons(logits=kept["logits"], fingerprint=fingerprint)
    examples = TokenExamples.on(
        compute.device,
        rows=Rows(tokens=tokens, targets=torch.zeros(len(tokens.lengths), dtype=torch.int64), chosen=needed),
        pad=int(teacher.tokenizer.pad_token_id),
    )
    logits = _answers(teacher.model.to(compute.device), examples, compute=compute, released=released)[:, columns]
    if not torch.isfinite(logits).all():
        raise ConfigurationError(f"the teacher {teacher.name} gives answers that are not finite")
    if path is not None:
        write_tensors(path, {"logits": logits.contiguous()})
    return Lessons(logits=logits, fingerprint=fingerprint)


def _answers(model: nn.Module, examples: TokenExamples, *, compute: Compute, released: Released) -> Tensor:
    """The logits of all rows, in their order."""
    model.eval()
    batches = evaluation_batches(examples.lengths)

    def answer(rows: Tensor) -> Tensor:
        stop_if_told(released)
        answers: Tensor = model(**examples.inputs(rows)).logits.float()
        return answers

    with torch.no_grad(), compute.autocast():
        parts = in_parts(batches, answer, device=compute.device)
    together = torch.cat(parts).cpu()
    logits = torch.empty_like(together)
    logits[torch.cat(batches)] = together
    return logits


def _model(teacher: TeacherPlan, *, spec: StudySpec, cache: WarmCache) -> _Teacher:
    """A classifier from the hub, a folder or a package."""
    spec = _reading(spec, model=teacher.model, revision=teacher.revision, max_length=spec.training.max_length)
    tokenizer = load_tokenizer(spec, cache=cache)
    classifier = load_classifier(spec, task=TASKS[spec.task], pad=int(tokenizer.pad_token_id))
    limit = min(spec.training.max_length, classifier.max_positions, tokenizer.model_max_length)
    return _Teacher(
        name=f'"{teacher.model}"',
        model=classifier.model,
        tokenizer=tokenizer,
        spec=_reading(spec, model=spec.model, revision=spec.revision, max_length=limit),
        labels=classifier.labels,
        fingerprint=classifier.fingerprint,
    )


def _trial(teacher: TeacherPlan, *, spec: StudySpec, cache: WarmCache) -> _Teacher:
    """A trial of this or another study, with the weights that it kept."""
    assert teacher.trial is not None
    own = StudySpec.model_validate(teacher.trial["spec"])
    if own.task != spec.task:
        raise ConfigurationError(f'the teacher is a trial of "{own.name}" for {own.task}', why=f"this is {spec.task}")
    tokenizer, labels = load_tokenizer(own, cache=cache), load_labels(own, cache=cache)
    base = load_base(own, task=TASKS[own.task], labels=labels, pad=int(tokenizer.pad_token_id), cache=cache)
    adapted = adapt(
        base,
        strategy=str(teacher.trial["strategy"]),
        params=teacher.trial["params"],
        dropout=0.0,
        seed=int(teacher.trial["seed"]),
    )
    try:
        with kept_checkpoint(teacher.checkpoint) as checkpoint:
            weights = checkpoint.weights()
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f'the weights of the teacher, a trial of "{own.name}", cannot be read: {teacher.checkpoint}',
            why=str(error),
            fix="train it again, or name another teacher",
        ) from error
    load_trainable_state(adapted.model, weights, names=adapted.trained)
    return _Teacher(
        name=f'of the study "{own.name}"',
        model=adapted.model,
        tokenizer=tokenizer,
        spec=_reading(spec, model=own.model, revision=own.revision, max_length=own.training.max_length),
        labels=labels,
        fingerprint=sha256(f"{base.fingerprint} {fingerprint_of(weights)}".encode()).hexdigest(),
    )


def _reading(spec: StudySpec, *, model: str, revision: str | None, max_length: int) -> StudySpec:
    """The study with its rows, read by another model."""
    training = spec.training.model_copy(update={"max_length": max_length})
    return spec.model_copy(update={"model": model, "revision": revision, "training": training})


def _columns(teacher: _Teacher, labels: Sequence[str]) -> list[int]:
    """Which of the teacher's classes each label of the study is, by name; case does not count."""
    found = places(labels, known=teacher.labels)
    missing = [label for label, place in zip(labels, found, strict=True) if place is None]
    if missing:
        raise ConfigurationError(
            f"the teacher {teacher.name} does not know the label{'s' if len(missing) > 1 else ''} "
            f"{', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}",
            why=f"its labels are {', '.join(teacher.labels[:8])}{' …' if len(teacher.labels) > 8 else ''}",
            fix="name a teacher that was trained on these labels, or rename the labels of the rows",
        )
    return [place for place in found if place is not None]
