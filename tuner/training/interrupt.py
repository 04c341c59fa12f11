"""How an attempt is ended between two reports."""

from __future__ import annotations

from collections.abc import Callable

from tuner.study.plan import Verdict

Released = Callable[[], Verdict | None]
"""Asked again and again whether the attempt ends here, and by which verdict; None lets it go on."""


class Interrupted(Exception):
    """The attempt was told to end before its first step, when there is nothing to hand back yet."""

    def __init__(self, verdict: Verdict) -> None:
        """Told by this verdict."""
        super().__init__(verdict.value)
        self.verdict = verdict


def stop_if_told(released: Released) -> None:
    """Ask once.

    Raises:
        Interrupted: If the attempt ends here.
    """
    if (verdict := released()) is not None:
        raise Interrupted(verdict)
