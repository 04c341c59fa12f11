"""What a study will have cost, in words and as a document."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tuner.study.outlook import Outlook, Span
from tuner.terminal import duration


def outlook_words(outlook: Outlook) -> str:
    """An interval in words: device time, time by the clock, money."""
    slots = "worker" if outlook.workers == 1 else "workers"
    words = (
        f"{span_words(outlook.device_hours)} of device time, {span_words(outlook.hours)} with {outlook.workers} {slots}"
    )
    if outlook.money is not None:
        words += f", cost {outlook.money.low:.2f} to {outlook.money.high:.2f}"
    return words


def span_words(hours: Span) -> str:
    """Two ends in hours as durations, once if they read the same."""
    low, high = duration(hours.low * 3600.0), duration(hours.high * 3600.0)
    return low if low == high else f"{low} to {high}"


def outlook_document(outlook: Outlook | None) -> dict[str, Any] | None:
    """An interval as JSON."""
    return None if outlook is None else asdict(outlook)
