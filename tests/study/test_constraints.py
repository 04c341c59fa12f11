from __future__ import annotations

import math

import pytest

from tuner.study.constraints import parse_constraint, read_constraints, show_fact


@pytest.mark.parametrize(
    ("text", "name", "is_upper", "bound"),
    [
        ("peak_memory <= 10 GB", "peak_memory", True, 10e9),
        ("peak_memory<=10GiB", "peak_memory", True, 10 * 2**30),
        ("peak_memory <= 512 MiB", "peak_memory", True, 512 * 2**20),
        ("peak_memory <= 800 kB", "peak_memory", True, 800e3),
        ("peak_memory <= 1000000", "peak_memory", True, 1e6),
        ("trainable_params <= 1e6", "trainable_params", True, 1e6),
        ("trainable_params <= 1.5 M", "trainable_params", True, 1.5e6),
        ("seconds <= 600", "seconds", True, 600.0),
        ("seconds <= 10 min", "seconds", True, 600.0),
        ("  seconds  <=  .5h ", "seconds", True, 1800.0),
        ("accuracy >= 0.9", "accuracy", False, 0.9),
        ("accuracy >= 90 %", "accuracy", False, 0.9),
        ("accuracy >= 90%", "accuracy", False, 0.9),
        ("loss <= 0.5", "loss", True, 0.5),
    ],
)
def test_what_is_read(text: str, name: str, is_upper: bool, bound: float) -> None:
    found = parse_constraint(text)
    assert (found.name, found.is_upper) == (name, is_upper)
    assert found.bound == pytest.approx(bound, rel=1e-12)


def test_excess_is_a_share_of_the_bound() -> None:
    memory, accuracy = read_constraints(["peak_memory <= 10 GB", "accuracy >= 0.8"])
    assert memory.excess(12e9) == pytest.approx(0.2)
    assert memory.excess(10e9) == 0.0  # at the bound it is kept
    assert memory.excess(5e9) == pytest.approx(-0.5)
    assert accuracy.excess(0.6) == pytest.approx(0.25)
    assert accuracy.excess(0.8) == 0.0
    assert accuracy.excess(math.nan) > 0


def test_why_is_told_with_units() -> None:
    texts = ["peak_memory <= 10 GB", "seconds <= 10 min", "trainable_params <= 1e6", "accuracy >= 90 %"]
    values = [12.1e9, 612.0, 4_386_178, 0.85]
    assert [one.why(value) for one, value in zip(read_constraints(texts), values, strict=True)] == [
        "peak_memory 12.1 GB breaks the constraint peak_memory <= 10 GB",
        "seconds 612.0 s breaks the constraint seconds <= 10 min",
        "trainable_params 4,386,178 breaks the constraint trainable_params <= 1e6",
        "accuracy 0.8500 breaks the constraint accuracy >= 90 %",
    ]
    assert show_fact("accuracy", None) == "–"
