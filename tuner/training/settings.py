"""What the loop needs to know of a plan: typed, with the recipe's value where the plan is silent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from tuner.study.domains import Value
from tuner.study.hyperparameters import SHARED_HYPERPARAMETERS
from tuner.study.plan import TrialPlan
from tuner.study.teacher import DISTILL_HYPERPARAMETERS
from tuner.tasks import TASKS
from tuner.training.history import Rules


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The hyperparameters that all strategies share.

    Attributes:
        learning_rate: Peak learning rate.
        optimizer: What turns gradients into steps.
        batch_size: Rows of one optimizer step.
        weight_decay: Decay of all but vectors.
        dropout: Probability of every dropout of the architecture.
        label_smoothing: Probability mass spread over the other classes.
        warmup_ratio: Share of all steps with a rising learning rate.
        schedule: Learning rate after the warmup.
        max_grad_norm: Gradients are clipped to this norm; 0 does not clip.
        l1: Factor of the sum of absolute weights.
        l2_sp: Factor of half the squared distance to where the weights began.
        mixup: Alpha of the Beta distribution that rows are mixed by.
        r_drop: Factor of the disagreement of two passes.
        fgm: Length of the adversarial change of the embeddings.
        ema: Decay of the moving average of the weights.
        distill_temperature: What both models' logits are divided by, where there is a teacher.
        distill_weight: The teacher's share of the loss.
        balance: What is done about classes of unequal size.
        micro_batch: Rows on the device at once.
        micro_batches: From which step on how many, where a run is repeated bit for bit.
        seed: Seed of the run.
        rules: What decides over the epochs.
    """

    learning_rate: float
    optimizer: str
    batch_size: int
    weight_decay: float
    dropout: float
    label_smoothing: float
    warmup_ratio: float
    schedule: str
    max_grad_norm: float
    l1: float
    l2_sp: float
    mixup: float
    r_drop: float
    fgm: float
    ema: float
    distill_temperature: float
    distill_weight: float
    balance: str
    micro_batch: int
    seed: int
    rules: Rules
    micro_batches: tuple[tuple[int, int], ...] = ()

    def rows_at_once(self, step: int, *, fit: int) -> int:
        """Rows on the device at once in a step.

        Args:
            step: 0-based, over the whole run.
            fit: What has fitted so far; it counts where no other run is repeated.
        """
        return next((rows for first, rows in reversed(self.micro_batches) if first <= step), fit)

    @classmethod
    def of(cls, plan: TrialPlan) -> Settings:
        """The settings of a plan."""
        spec = plan.spec
        knobs = (*SHARED_HYPERPARAMETERS, *DISTILL_HYPERPARAMETERS)
        values: Mapping[str, Value] = {knob.name: knob.default for knob in knobs} | dict(plan.params)
        goals = {metric.name: metric.goal for metric in TASKS[spec.task].info.metrics}
        goal = spec.lead.goal or goals[spec.lead.metric]
        batch_size = int(values["batch_size"])
        return cls(
            learning_rate=float(values["learning_rate"]),
            optimizer=str(values["optimizer"]),
            batch_size=batch_size,
            weight_decay=float(values["weight_decay"]),
            dropout=float(values["dropout"]),
            label_smoothing=float(values["label_smoothing"]),
            warmup_ratio=float(values["warmup_ratio"]),
            schedule=str(values["schedule"]),
            max_grad_norm=float(values["max_grad_norm"]),
            l1=float(values["l1"]),
            l2_sp=float(values["l2_sp"]),
            mixup=float(values["mixup"]),
            r_drop=float(values["r_drop"]),
            fgm=float(values["fgm"]),
            ema=float(values["ema"]),
            distill_temperature=float(values["distill.temperature"]),
            distill_weight=float(values["distill.weight"]),
            balance=str(values.get("balance", spec.data.balance)),
            micro_batch=min(spec.training.micro_batch or batch_size, plan.micro_batch or batch_size, batch_size),
            seed=plan.seed,
            rules=Rules(
                metric=spec.lead.metric,
                maximize=goal == "maximize",
                epochs=spec.training.epochs,
                # Where the plan says how long, the epochs' scores decide nothing: the rows of the fold have no say but the last.
                patience=None if plan.epochs else int(values["patience"]) or spec.training.patience,
                select="last" if plan.epochs else spec.training.select,
                ends_after=plan.epochs,
            ),
            micro_batches=plan.micro_batches,
        )


def run_identity(plan: TrialPlan, *, model: str, data: str, teacher: str = "") -> str:
    """A hash of all that decides a run's curve: a checkpoint counts only for the run it was written by.

    Args:
        plan: What is trained.
        model: Fingerprint of the pretrained weights: the folder may have been edited since the checkpoint was written.
        data: Fingerprint of the rows, for the same reason.
        teacher: Fingerprint of the teacher's weights, where there is one.
    """
    spec = plan.spec.model_dump(mode="json", include={"task", "model", "revision", "data", "objective", "training"})
    decides = {
        "model": model,
        "data": data,
        "spec": spec,
        "strategy": plan.strategy,
        "params": dict(plan.params),
        "seed": plan.seed,
    }
    if teacher:
        decides["teacher"] = teacher
    return sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
