"""tuner: which fine-tuning method, with which hyperparameters, and how sure is that answer?

The same service as the command line, for programs::

    import tuner

    study = tuner.create_study("studies/quickstart.yaml", storage="sqlite:///tuner.db")
    tuner.run_worker(studies=[study.name], storage="sqlite:///tuner.db")
    best = tuner.best(study.name, storage="sqlite:///tuner.db")
    tuner.write_report(study.name, path="report.html", storage="sqlite:///tuner.db")

Importing this package imports nothing heavy; each function imports what it needs. Errors are
:class:`tuner.errors.TunerError` and its subclasses.
"""

from __future__ import annotations

from tuner.api import best, catalogue, check_study, create_study, list_studies, load_study, run_worker, write_report
from tuner.live import (
    change_study,
    drain_workers,
    enqueue_trial,
    pause_study,
    resume_study,
    retry_trials,
    stop_study,
    stop_trial,
)
from tuner.reproduction import repeat_trial, train_trial, trial_recipe

__version__ = "0.1.0"

__all__ = [
    "best",
    "catalogue",
    "change_study",
    "check_study",
    "create_study",
    "drain_workers",
    "enqueue_trial",
    "list_studies",
    "load_study",
    "pause_study",
    "repeat_trial",
    "resume_study",
    "retry_trials",
    "run_worker",
    "stop_study",
    "stop_trial",
    "train_trial",
    "trial_recipe",
    "write_report",
]
