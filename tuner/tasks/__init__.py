"""What is learnt: one file for each task, one line here.

Nothing in this package imports torch before a model is built, so the registry can be read at once.
"""

from __future__ import annotations

from tuner.tasks.base import Scores, Task
from tuner.tasks.text_classification import TextClassification

TASKS: dict[str, Task] = {
    "text-classification": TextClassification(),
}

__all__ = ["TASKS", "Scores", "Task"]
