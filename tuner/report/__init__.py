"""What a study means: rows to a summary, the summary to figures, the figures to one offline HTML page."""

from __future__ import annotations

from pathlib import Path

from tuner.report.summary import Summary, summarise
from tuner.report.verdict import Basis, FinalistScore, Winner, choose_winner, score_finalists
from tuner.store.records import StudySnapshot

__all__ = [
    "Basis",
    "FinalistScore",
    "Summary",
    "Winner",
    "choose_winner",
    "score_finalists",
    "summarise",
    "write_report",
]


def write_report(snapshot: StudySnapshot, path: str | Path) -> Path:
    """Write the report of a study as one HTML file that needs no network.

    Args:
        snapshot: The study, finished or not.
        path: Where the file goes; its folder must exist, an existing file is replaced at once.

    Returns:
        The absolute path of the file.

    Raises:
        ConflictError: If ``path`` is a symbolic link or a folder.
        UnavailableError: If its folder does not exist, or the file cannot be written.
    """
    # Plotly and Optuna are loaded here: a verdict on the terminal needs neither.
    from tuner.report.page import write_page

    return write_page(snapshot, path)
