"""A loss that is no number, or none any more, ends the run at its step."""

from __future__ import annotations

import math

import pytest
import torch

from tuner.errors import TrialDiverged
from tuner.training.divergence import DivergenceWatch

CPU = torch.device("cpu")


def see(watch: DivergenceWatch, losses: list[float], *, norms: list[float] | None = None) -> None:
    for step, loss in enumerate(losses, start=1):
        norm = None if norms is None else torch.tensor(norms[step - 1])
        watch.see(torch.tensor(loss), norm=norm, epoch=2, step=step)
    watch.look()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_found_at_its_step(bad: float) -> None:
    with pytest.raises(TrialDiverged, match=r"non-finite in epoch 2, step 3; lower the learning rate$"):
        see(DivergenceWatch(CPU), [1.0, 0.9, bad, 0.8])


def test_a_gradient_that_is_no_number_is_found_although_the_loss_is_one() -> None:
    with pytest.raises(TrialDiverged, match="epoch 2, step 2"):
        see(DivergenceWatch(CPU), [1.0, 0.9], norms=[3.0, math.inf])


def test_a_loss_that_explodes_is_found_before_it_overflows() -> None:
    with pytest.raises(TrialDiverged, match=r"^the loss grew to 2.1e\+03 in epoch 2, step 3 - it began at 2;"):
        see(DivergenceWatch(CPU), [2.0, 1999.0, 2100.0])


def test_a_model_that_begins_with_hardly_any_loss_may_lose_some() -> None:
    watch = DivergenceWatch(CPU)
    see(watch, [1e-4, 0.7, 999.0])
    assert watch.first == pytest.approx(1e-4)
    with pytest.raises(TrialDiverged):
        see(watch, [1001.0])


def test_the_first_loss_of_a_run_is_that_of_its_first_attempt() -> None:
    watch = DivergenceWatch(CPU, first=50.0)
    see(watch, [1.0, 40_000.0])
    assert watch.first == 50.0


def test_many_steps_are_looked_at_together() -> None:
    """As on a GPU, where each look waits for the device."""
    watch = DivergenceWatch(torch.device("cuda"))
    for step in range(1, 16):
        watch.see(torch.tensor(math.nan if step == 5 else 1.0), norm=None, epoch=1, step=step)
    with pytest.raises(TrialDiverged, match="epoch 1, step 5;"):
        watch.see(torch.tensor(1.0), norm=None, epoch=1, step=16)
