"""The check of a study against the real model and data, before a trial is wasted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuner.errors import ConfigurationError, Problem, first_line
from tuner.study.build import resolve_study_space
from tuner.study.catalogue import Catalogue
from tuner.study.constraints import read_constraints
from tuner.study.dataset import DataFacts, ReadHub, read_data
from tuner.study.forecast import Forecast, forecast
from tuner.study.names import count_noun
from tuner.study.pretrained import ModelFacts, read_model
from tuner.study.proof import Probe, StrategyProof, note_proofs
from tuner.study.ranges import Findings
from tuner.study.space import ModelKind, SearchSpace
from tuner.study.spec import StudySpec
from tuner.study.teacher import FindTrial
from tuner.study.teaching import TeacherFacts, read_teacher

_ANY_SIZE = 1e8  # parameters, where the model cannot be read: the report has problems then, and its space is only shown

_ANY_CLASSES = ("0", "1")  # where the rows cannot be read

_LEAST_MEMORY = 1e6  # bytes; below, a unit was forgotten

_FEW_SEEDS = 3  # the fewest whose scatter says something
_FEW_ROWS = 200  # validation rows; below, chance moves a share by 7 points and more


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """What the check found.

    Attributes:
        spec: The study with hub models pinned to the commits that were looked at; this is what should be stored.
        problems: Why the study cannot run, with dotted keys; :func:`tuner.study.file.locate` adds the file's lines.
        warnings: What is odd but can be used, with dotted keys.
        model: The pretrained model, None if it cannot be read.
        data: The rows, None if they cannot be read or are on the hub and were not opened.
        space: What is searched, for this model's size.
        forecast: What the study will do at most.
        proofs: Each strategy, tried on the model's shapes; empty where that was not asked for or is not possible.
    """

    spec: StudySpec
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    model: ModelFacts | None
    data: DataFacts | None
    space: SearchSpace
    forecast: Forecast
    proofs: tuple[StrategyProof, ...] = ()

    @property
    def holds_back(self) -> bool:
        """Whether rows are held back from the search for the finalists; True where that is not known."""
        return self.data is None or not self.data.complete or self.data.held_back_rows > 0 or self.spec.data.folds > 0


def check_study(
    spec: StudySpec,
    *,
    catalogue: Catalogue,
    read_hub: ReadHub | None = None,
    probe: Probe | None = None,
    find_trial: FindTrial | None = None,
) -> CheckReport:
    """Open a study's model and data, and say what would go wrong and what it will cost.

    Args:
        spec: A study from :mod:`tuner.study.file`; its paths are absolute.
        catalogue: Tasks and strategies that exist.
        read_hub: Reads hub data sets; without it they are passed over with a warning.
        probe: Tries the strategies on the model; without it that is left out.
        find_trial: Looks up the trial that is to teach; without it that is left out.
    """
    findings = Findings()
    model = read_model(spec, findings=findings)
    data = read_data(spec, read_hub=read_hub, findings=findings)
    parameters = float(model.parameters) if model is not None and model.parameters else _ANY_SIZE
    resolved = resolve_study_space(spec, catalogue=catalogue, parameters=parameters)
    findings.problems.extend(resolved.problems)
    findings.warnings.extend(resolved.warnings)
    proofs: tuple[StrategyProof, ...] = ()
    if probe is not None and model is not None and not resolved.problems:
        classes = tuple(data.classes) if data is not None and len(data.classes) > 1 else _ANY_CLASSES
        proofs = _prove(spec, probe=probe, model=model, space=resolved.space, classes=classes, findings=findings)
    teacher = read_teacher(
        spec, classes=tuple(data.classes) if data is not None else (), find_trial=find_trial, findings=findings
    )
    _fit(spec, model=model, data=data, findings=findings)
    if data is not None and 0 < data.validation_rows < _FEW_ROWS:
        noise = 100 * 1.96 * 0.5 / math.sqrt(data.validation_rows)  # 95 % of a share of one half, where it is widest
        findings.warn(
            "data.validation",
            f"only {data.validation_rows} validation {'row judges' if data.validation_rows == 1 else 'rows judge'} "
            f"the search: differences below about {noise:.0f} points are noise",
        )
    return CheckReport(
        spec=_pinned(spec, model=model, teacher=teacher),
        problems=tuple(findings.problems),
        warnings=tuple(findings.warnings),
        model=model,
        data=data,
        space=replace(resolved.space, model=_kind(model)),
        forecast=forecast(spec, space=resolved.space, train_rows=data.train_rows if data is not None else None),
        proofs=proofs,
    )


def _kind(model: ModelFacts | None) -> ModelKind | None:
    return None if model is None else ModelKind(family=model.model_type, parameters=model.parameters)


def _pinned(spec: StudySpec, *, model: ModelFacts | None, teacher: TeacherFacts | None) -> StudySpec:
    """The study with hub models at the commits that were looked at."""
    changed: dict[str, Any] = {}
    if model is not None and model.revision:
        changed["revision"] = model.revision
    if spec.distill is not None and teacher is not None and teacher.model is not None and teacher.model.revision:
        changed["distill"] = spec.distill.model_copy(update={"revision": teacher.model.revision})
    return spec.model_copy(update=changed)


def _prove(
    spec: StudySpec,
    *,
    probe: Probe,
    model: ModelFacts,
    space: SearchSpace,
    classes: Sequence[str],
    findings: Findings,
) -> tuple[StrategyProof, ...]:
    """What the model says to each strategy; that it could not be asked is no reason to refuse the study, but that it cannot be loaded is."""
    try:
        proofs = tuple(probe(spec, space=space, classes=classes, folder=model.folder))
    except ConfigurationError as error:
        findings.refuse("model", str(error))
        return ()
    except Exception as error:  # noqa: BLE001 - a model may break the libraries in any way; trials would say so, too
        findings.warn("model", f"the strategies could not be tried on it ({first_line(error)[:200]})")
        return ()
    note_proofs(proofs, spec=spec, findings=findings)
    return proofs


def _fit(spec: StudySpec, *, model: ModelFacts | None, data: DataFacts | None, findings: Findings) -> None:
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
        findings.warn("budget.trials", f"{count_noun(trials, 'trial')} cannot even try the {first} {what}")
    is_unseen = spec.data.test is not None or spec.data.folds > 0 or (data is not None and data.held_back_rows > 0)
    if spec.confirm.finalists and not is_unseen:
        findings.warn(
            "confirm", "without data.test the finalists are compared on the validation rows, which the search has seen"
        )
    if spec.confirm.finalists and spec.confirm.seeds == 1:
        which = f" and one of the {spec.data.folds - 1} folds that judge finalists" if spec.data.folds else ""
        findings.warn(
            "confirm.seeds",
            f"one seed{which} cannot tell how sure the answer is; give {max(spec.data.folds - 1, _FEW_SEEDS)} or more",
        )
    if trials is not None and spec.confirm.finalists > trials:
        what = f"is only {trials} trial" if trials == 1 else f"are only {trials} trials"
        findings.warn("confirm.finalists", f"there {what} to choose from")
    _fit_aims(spec, findings=findings)


def _fit_aims(spec: StudySpec, *, findings: Findings) -> None:
    """What is asked, but is hardly meant: an early end that cannot come, gigabytes without their unit."""
    stop, trials = spec.search.stop_when, spec.budget.trials
    if stop is not None and trials is not None and 2 * stop.trials >= trials:
        most = (trials - 1) // 2
        cure = f"set trials to {most} at most" if most > 1 else "leave it out"
        findings.warn(
            "search.stop_when",
            f"can never end the search: to look {stop.trials} trials ahead it needs {2 * stop.trials} that ended, "
            f"and the budget is {trials}; {cure}",
        )
    for place, one in enumerate(read_constraints(spec.constraints)):
        if one.name == "peak_memory" and one.bound < _LEAST_MEMORY:
            findings.warn(
                f"constraints.{place}",
                f"{one.text} is {one.bound:g} bytes, which no training keeps; give the unit, as in peak_memory <= 10 GB",
            )
