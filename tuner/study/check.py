"""The check of a study against the real model and data, before a trial is wasted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuner.errors import Problem
from tuner.study.build import resolve_study_space
from tuner.study.catalogue import Catalogue
from tuner.study.dataset import DataFacts, ReadHub, read_data
from tuner.study.forecast import Forecast, forecast
from tuner.study.pretrained import ModelFacts, read_model
from tuner.study.ranges import Findings
from tuner.study.space import SearchSpace
from tuner.study.spec import StudySpec

_ANY_SIZE = 1e8  # parameters, where the model cannot be read: the report has problems then, and its space is only shown

_FEW_ROWS = 200  # validation rows; below, chance moves a share by 7 points and more


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """What the check found.

    Attributes:
        spec: The study with a hub model pinned to the commit that was looked at; this is what should be stored.
        problems: Why the study cannot run, with dotted keys; :func:`tuner.study.file.locate` adds the file's lines.
        warnings: What is odd but can be used, with dotted keys.
        model: The pretrained model, None if it cannot be read.
        data: The rows, None if they cannot be read or are on the hub and were not opened.
        space: What is searched, for this model's size.
        forecast: What the study will do at most.
    """

    spec: StudySpec
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    model: ModelFacts | None
    data: DataFacts | None
    space: SearchSpace
    forecast: Forecast


def check_study(spec: StudySpec, *, catalogue: Catalogue, read_hub: ReadHub | None = None) -> CheckReport:
    """Open a study's model and data, and say what would go wrong and what it will cost.

    Args:
        spec: A study from :mod:`tuner.study.file`; its paths are absolute.
        catalogue: Tasks and strategies that exist.
        read_hub: Reads hub data sets; without it they are passed over with a warning.
    """
    findings = Findings()
    model = read_model(spec, findings=findings)
    data = read_data(spec, read_hub=read_hub, findings=findings)
    parameters = float(model.parameters) if model is not None and model.parameters else _ANY_SIZE
    resolved = resolve_study_space(spec, catalogue=catalogue, parameters=parameters)
    findings.problems.extend(resolved.problems)
    findings.warnings.extend(resolved.warnings)
    _fit(spec, model=model, findings=findings)
    if data is not None and 0 < data.validation_rows < _FEW_ROWS:
        noise = 100 * 1.96 * 0.5 / math.sqrt(data.validation_rows)  # 95 % of a share of one half, where it is widest
        findings.warn(
            "data.validation",
            f"only {data.validation_rows} validation {'row judges' if data.validation_rows == 1 else 'rows judge'} "
            f"the search: differences below about {noise:.0f} points are noise",
        )
    return CheckReport(
        spec=spec if model is None or not model.revision else spec.model_copy(update={"revision": model.revision}),
        problems=tuple(findings.problems),
        warnings=tuple(findings.warnings),
        model=model,
        data=data,
        space=resolved.space,
        forecast=forecast(spec, space=resolved.space, train_rows=data.train_rows if data is not None else None),
    )


def _fit(spec: StudySpec, *, model: ModelFacts | None, findings: Findings) -> None:
    """What fits badly together, though each part is right by itself."""
    length = spec.training.max_length
    if model is not None and model.max_tokens is not None and length > model.max_tokens:
        findings.refuse(
            "training.max_length", f"{length} is more than the {model.max_tokens} tokens that {spec.model} can read"
        )
    trials = spec.budget.trials
    first = len(spec.tried_first)
    if trials is not None and trials < first:
        what = "strategies once each" if first == len(spec.strategy_names) else "recipes that are tried first"
        findings.warn("budget.trials", f"{trials} trials cannot even try the {first} {what}")
    if spec.confirm.finalists and spec.data.test is None:
        findings.warn(
            "confirm", "without data.test the finalists are compared on the validation rows, which the search has seen"
        )
    if trials is not None and spec.confirm.finalists > trials:
        findings.warn("confirm.finalists", f"there are only {trials} trials to choose from")
