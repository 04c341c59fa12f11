"""The study file as data: what is asked, validated field by field.

Every field has a default or is required; nothing past :mod:`tuner.study.file` tests for missing keys. Types are strict:
text is no number and a number is no text, so that a slip is named and never guessed at. Names that a registry decides
(tasks, strategies, metrics) are checked by :mod:`tuner.study.rules` against the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from tuner.contest import FINAL, FIRST_SEEDS, ROOM
from tuner.study.names import combinations, joined

STUDY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


def _by_name(value: Any) -> Any:
    """``tpe`` is short for ``{name: tpe}``."""
    return {"name": value} if isinstance(value, str) else value


def _table(value: Any) -> Any:
    """A section with every line commented out is an empty one, not nothing."""
    return {} if value is None else value


File = Annotated[str, Field(json_schema_extra={"format": "path"})]
"""A file, a package's resource or a hub data set; the format is what messages call it."""


class Section(BaseModel):
    """A part of a study file: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


MOST_SEEDS = 20
"""Fresh seeds that a finalist may be trained with."""


class FoldsSpec(Section):
    """The training rows in parts of one size: the first judges the search, the others judge the finalists."""

    folds: Annotated[int, Field(ge=3, le=MOST_SEEDS)] = Field(
        description="stratified parts of the training rows: the first judges the search, each of the others a round of the confirmation"
    )


def _name_or_folds(value: Any) -> str:
    return FoldsSpec.__name__ if isinstance(value, Mapping | FoldsSpec) else "name"


Validation = Annotated[
    Annotated[Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)] | File, Tag("name")]
    | Annotated[FoldsSpec, Tag(FoldsSpec.__name__)],
    Discriminator(_name_or_folds),
]
"""Which rows judge: a share of the training rows, a file, or folds."""


class DataSpec(Section):
    """Where the rows are and which columns matter."""

    train: File = Field(
        description="training rows: a .csv, .tsv, .tab, .jsonl or .parquet file, package://NAME/PATH, or hub://OWNER/NAME?split=train"
    )
    text: str | Annotated[tuple[str, str], Field(strict=False)] = Field(
        default="text", description="column with the text; two columns for sentence pairs"
    )
    label: str = Field(default="label", description="column with the label")
    validation: Validation = Field(
        default=0.15, description="a stratified share of the training rows, a file, or {folds: 5}"
    )
    test: File | None = Field(default=None, description="rows that only the finalists see, once, after the search")
    balance: Literal["none", "class_weight", "oversample", "undersample"] = Field(
        default="none", description="what is done about classes of unequal size"
    )
    train_rows: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="use a stratified sample of this many training rows"
    )

    @property
    def folds(self) -> int:
        """Into how many folds the training rows are divided; 0 where they are not."""
        return self.validation.folds if isinstance(self.validation, FoldsSpec) else 0


class ComposeSpec(Section):
    """Strategies of which the search takes one, several or all at once."""

    compose: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        description="2 to 5 strategies; they and all their combinations compete"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """All combinations, the single strategies first and the whole set last."""
        return combinations(self.compose)

    @property
    def tried_first(self) -> tuple[str, ...]:
        """The single strategies and the whole set: what lies between them is left to the search."""
        return (*self.compose, self.names[-1])


def _form(value: Any) -> str:
    return ComposeSpec.__name__ if isinstance(value, Mapping | ComposeSpec) else "name"


def _list_or_compose(value: Any) -> str:
    return ComposeSpec.__name__ if isinstance(value, Mapping | ComposeSpec) else "list"


def _one_name(value: Any) -> Any:
    return joined(value) if isinstance(value, str) else value


Strategy = Annotated[
    Annotated[str, BeforeValidator(_one_name), Tag("name")] | Annotated[ComposeSpec, Tag(ComposeSpec.__name__)],
    Discriminator(_form),
]
"""One item of the list of strategies. The tag of a section is its class, which is how messages find their way."""

Strategies = Annotated[
    Annotated[tuple[Strategy, ...], Field(min_length=1, strict=False), Tag("list")]
    | Annotated[ComposeSpec, Tag(ComposeSpec.__name__)],
    Discriminator(_list_or_compose),
]
"""A list of strategies, or what the search composes them of."""


class ObjectiveSpec(Section):
    """What is best."""

    metric: str = Field(
        description="a metric of the task, measured on the validation rows; in a list also trainable_params, seconds or peak_memory"
    )
    goal: Literal["maximize", "minimize"] | None = Field(default=None, description="default: the metric's own goal")


def _one_or_several(value: Any) -> str:
    return "list" if isinstance(value, list | tuple) else ObjectiveSpec.__name__


Bound = Annotated[str, Field(json_schema_extra={"format": "constraint"})]
"""One constraint as text, read by :mod:`tuner.study.constraints`; the format is what messages know it by."""

MOST_OBJECTIVES = 4
"""With more, hardly any trial is worse than another one in everything."""

Objectives = Annotated[
    Annotated[ObjectiveSpec, Tag(ObjectiveSpec.__name__)]
    | Annotated[tuple[ObjectiveSpec, ...], Field(min_length=1, max_length=MOST_OBJECTIVES, strict=False), Tag("list")],
    Discriminator(_one_or_several),
]
"""What is best, or several things that are weighed against each other, the one that ranks trials of equal worth first."""


class TrainingSpec(Section):
    """What all trials share."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=3, description="epochs of a trial that is not pruned"
    )
    max_length: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=128, description="tokens; longer texts are cut"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto: bf16 where the device has it"
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(default=0, description="weights, data order, split and dropout")
    patience: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="stop a trial after this many epochs without a better objective"
    )
    select: Literal["best", "last"] = Field(default="best", description="which epoch of a trial counts")
    micro_batch: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="rows on the device at once; larger batches are accumulated"
    )


def _studies(value: Any) -> Any:
    """One study's name is short for a list of it; what can be none of the forms is refused with all of them."""
    if not isinstance(value, str | list | tuple):
        raise ValueError("must be all, none, or past studies by name, as in learn_from: [tickets]")  # noqa: TRY004 - pydantic's way
    return (value,) if isinstance(value, str) and value not in ("all", "none") else value


class ChoiceSpec(Section):
    """A sampler or pruner by name, with its options."""

    name: str = "auto"
    options: dict[str, Any] = Field(default_factory=dict, description="arguments of the Optuna class")


Named = Annotated[ChoiceSpec, BeforeValidator(_by_name, json_schema_input_type=str | ChoiceSpec)]
"""A :class:`ChoiceSpec`, or its name alone."""


LearnFrom = Annotated[
    Literal["all", "none"] | Annotated[tuple[str, ...], Field(min_length=1, strict=False)],
    BeforeValidator(_studies, json_schema_input_type=str | tuple[str, ...]),
]
"""Every past study of the same task, none of them, or those of these names."""


class StopWhenSpec(Section):
    """Which gain is too small to go on for."""

    gain: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = Field(description="in the units of the objective")
    trials: Annotated[int, Field(ge=2, le=10_000)] = Field(default=20, description="for so many more trials")


class SearchSpec(Section):
    """How values are proposed and losers are stopped."""

    sampler: Named = Field(default_factory=ChoiceSpec, description="a name, or {name, options}")
    pruner: Named = Field(default_factory=ChoiceSpec, description="a name, or {name, options}")
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(default=0, description="seed of the sampler")
    stop_when: StopWhenSpec | None = Field(
        default=None, description="end the search when more trials are expected to gain less than this"
    )
    learn_from: LearnFrom = Field(
        default="all",
        description="past studies in this database whose best values are tried first: all, none, or a list of names",
    )


LIMITS = ("trials", "epochs", "gpu_hours", "hours", "money")
"""What a budget may limit; it has at least one of them."""


class BudgetSpec(Section):
    """When the search ends: the first limit reached ends it."""

    trials: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        default=None, description="trials, the pruned ones included"
    )
    epochs: Annotated[int, Field(ge=1)] | None = Field(default=None, description="epochs over all trials")
    gpu_hours: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = Field(
        default=None, description="device hours over all slots; up to a fifth is kept back for the confirmation"
    )
    hours: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="hours by the clock since the first trial began; a fifth is kept back for the confirmation",
    )
    money: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = Field(
        default=None, description="what device hours may cost, in the currency of price_per_hour"
    )
    price_per_hour: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = Field(
        default=None, description="what an hour of one slot costs"
    )

    @property
    def device_hours(self) -> float | None:
        """Device hours that may be used, by gpu_hours or for the money, whichever is less; None without such a limit."""
        limits = [self.gpu_hours] if self.gpu_hours is not None else []
        if self.money is not None and self.price_per_hour is not None:
            limits.append(self.money / self.price_per_hour)
        return min(limits, default=None)


LEAST_HELD_BACK = 200
"""Rows that are worth holding back: fewer are not, unless the study file asks for them."""


class ConfirmSpec(Section):
    """How sure the answer shall be: the best are trained again with fresh seeds and scored on the test rows."""

    finalists: Annotated[int, Field(ge=0, le=20)] = Field(
        default=4, description="how many, the default recipe not counted; 0: no confirmation"
    )
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] = Field(
        default=5,
        description="fresh seeds for each finalist that finishes the race; with folds, one for each fold but the first",
    )
    held_back: Literal["auto"] | Annotated[float, Field(ge=0.0, le=0.9, allow_inf_nan=False)] = Field(
        default="auto",
        description="share of the validation rows that only finalists are scored on; auto: a third where that is 200 rows or more, else none",
    )

    @property
    def fewest_runs(self) -> int:
        """Re-trainings where the default recipe is among the best and all others fall out after the first seeds; 0 without any."""
        if not self.finalists:
            return 0
        return self.finalists * min(self.seeds, FIRST_SEEDS) + max(self.seeds - FIRST_SEEDS, 0)

    @property
    def most_runs(self) -> int:
        """Re-trainings where nobody falls out but to make room.

        More come only where one fails, whose finalist is not judged by the race any more, or where many workers begin rounds before one has ended.
        """
        if not self.finalists:
            return 0
        last = max(self.seeds - FIRST_SEEDS, 0)
        left = min(self.finalists, FINAL) if last >= ROOM else self.finalists
        return (self.finalists + 1) * min(self.seeds, FIRST_SEEDS) + (left + 1) * last

    def count_held_back(self, rows: int) -> int:
        """How many of so many validation rows the search never sees.

        Two hundred rows tell an accuracy of 0.9 to 4 points; fewer would choose worse than all rows do, which the search has seen.
        """
        if not self.finalists:
            return 0
        if self.held_back != "auto":
            return min(round(self.held_back * rows), max(rows - 1, 0))
        return rows // 3 if rows // 3 >= LEAST_HELD_BACK else 0


class DistillSpec(Section):
    """A larger model that every trial learns from besides the labels."""

    teacher: str = Field(
        description="a classifier with the study's labels (hub id, local folder or package://NAME/PATH), "
        "or a trial that is complete (STUDY/NUMBER)"
    )
    revision: str | None = Field(default=None, description="commit of a hub model")
    temperature: Any = Field(default=2.0, description="softens both models' predictions: a number, a list or a range")
    weight: Any = Field(default=0.5, description="the teacher's share of the loss: a number, a list or a range")


class StudySpec(Section):
    """One study file."""

    name: Annotated[str, Field(pattern=STUDY_NAME)] = Field(
        description="the study's name, of A-Z a-z 0-9 . _ - (1 to 100)"
    )
    task: str = Field(description="what is learnt, such as text-classification")
    model: str = Field(description="hub id, local folder, or package://NAME/PATH")
    revision: str | None = Field(default=None, description="commit of a hub model")
    data: DataSpec = Field(description="where the rows are")
    objective: Objectives = Field(
        description="what is best, such as {metric: accuracy}, or a list: [{metric: accuracy}, {metric: trainable_params}]"
    )
    constraints: Annotated[tuple[Bound, ...], Field(min_length=1, strict=False)] | None = Field(
        default=None,
        description='what a trial must keep to win, such as ["peak_memory <= 10 GB", "seconds <= 600", "accuracy >= 0.9"]',
    )
    strategies: Strategies = Field(
        description="ways to adapt the model, such as [head, lora, head>lora], or {compose: [bitfit, lora, adapter]}"
    )
    space: Annotated[dict[str, Any], BeforeValidator(_table)] = Field(
        default_factory=dict, description="ranges that differ from the strategies' own"
    )
    training: Annotated[TrainingSpec, BeforeValidator(_table)] = Field(
        default_factory=TrainingSpec, description="what all trials share"
    )
    search: Annotated[SearchSpec, BeforeValidator(_table)] = Field(
        default_factory=SearchSpec, description="how values are proposed and losers are stopped"
    )
    budget: BudgetSpec = Field(default_factory=lambda: BudgetSpec(trials=30), description="when the search ends")
    confirm: Annotated[ConfirmSpec, BeforeValidator(_table)] = Field(
        default_factory=ConfirmSpec, description="how sure the answer shall be"
    )
    distill: DistillSpec | None = Field(default=None, description="a larger model to learn from besides the labels")

    @model_validator(mode="before")
    @classmethod
    def _a_seed_for_each_fold(cls, data: Any) -> Any:
        """Where folds are asked for and nothing is said about seeds, every fold but the first has one."""
        match data:
            case {"data": {"validation": {"folds": int(folds)}}} if folds > 1:
                confirm = data.get("confirm")
                if confirm is None or (isinstance(confirm, Mapping) and "seeds" not in confirm):
                    return {**data, "confirm": {**(confirm or {}), "seeds": min(folds - 1, MOST_SEEDS)}}
        return data

    def count_held_back(self, rows: int) -> int:
        """How many of so many validation rows the search never sees; none of a fold: the search sees no row of the others."""
        return 0 if self.data.folds else self.confirm.count_held_back(rows)

    @property
    def objectives(self) -> tuple[ObjectiveSpec, ...]:
        """All objectives; of several, each with its goal."""
        return (self.objective,) if isinstance(self.objective, ObjectiveSpec) else self.objective

    @property
    def lead(self) -> ObjectiveSpec:
        """The first objective: it decides which epoch of a trial counts and ranks the finalists."""
        return self.objectives[0]

    @property
    def has_front(self) -> bool:
        """Whether several objectives are weighed against each other."""
        return len(self.objectives) > 1

    @property
    def strategy_names(self) -> tuple[str, ...]:
        """Every strategy that competes, in the order of the file; what is composed stands where it is asked for."""
        return tuple(name for item in self._items for name in ([item] if isinstance(item, str) else item.names))

    @property
    def tried_first(self) -> tuple[str, ...]:
        """The strategies whose recipes are tried before the search proposes anything."""
        return tuple(name for item in self._items for name in ([item] if isinstance(item, str) else item.tried_first))

    @property
    def _items(self) -> tuple[str | ComposeSpec, ...]:
        return (self.strategies,) if isinstance(self.strategies, ComposeSpec) else self.strategies
