"""Whether the sampler and the pruner that a study names can be made, before a worker finds out."""

from __future__ import annotations

from tuner.errors import ConfigurationError, Problem
from tuner.search.pruners import make_pruner
from tuner.search.samplers import Draw, make_sampler
from tuner.study.ranges import Findings
from tuner.study.space import SearchSpace
from tuner.study.spec import StudySpec


def find_wrong_choices(spec: StudySpec, *, space: SearchSpace) -> list[Problem]:
    """Why they cannot be made, with the keys of the study file; empty if they can.

    Args:
        spec: The study.
        space: What it searches.
    """
    findings = Findings()
    try:
        make_sampler(spec.search.sampler, space=space, draw=Draw(seed=spec.search.seed))
    except ConfigurationError as error:
        findings.refuse("search.sampler", str(error))
    try:
        make_pruner(spec.search.pruner, epochs=spec.training.epochs)
    except ConfigurationError as error:
        findings.refuse("search.pruner", str(error))
    return findings.problems
