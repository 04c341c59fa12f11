"""Numbers as people read them: one way for the page, the figures and the command line."""

from __future__ import annotations

import math

from tuner.study.domains import Value


def format_score(value: float | None) -> str:
    """A metric with four decimals; large ones with one."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


def format_difference(value: float) -> str:
    """A signed difference of a metric."""
    return ("+" if value >= 0 else "-") + format_score(abs(value))


def format_probability(value: float) -> str:
    """A probability in percent that never claims certainty."""
    if value > 0.999:
        return "> 99.9 %"
    if value < 0.001:
        return "< 0.1 %"
    return f"{value * 100:.1f} %" if value > 0.99 or value < 0.01 else f"{value * 100:.0f} %"


def format_share(part: float, whole: float) -> str:
    """A share in whole percent."""
    return f"{100 * part / whole:.0f} %" if whole else "–"


def format_seconds(seconds: float) -> str:
    """A duration in the two largest units that matter."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def format_count(number: int | None) -> str:
    """A count of parameters with its unit: ``4.39 M``."""
    if number is None:
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def format_value(value: Value) -> str:
    """A hyperparameter's value; floats with three significant digits."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value == 0.0 or 1e-3 <= abs(value) < 1e4:
        short = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        # A decay of 0.9999 is not 1.
        return f"{value:.6g}" if float(short) == 1.0 else short
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
