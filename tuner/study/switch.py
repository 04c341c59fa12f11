"""When a sequence such as ``head>lora`` goes from its first stage to its second: hyperparameters like any other."""

from __future__ import annotations

from tuner.study.domains import Fixed, Hyperparameter, Range

SWITCH = "switch"
"""The block of ``space`` that holds them; all sequences of a study share it."""

SWITCH_AT = Hyperparameter(
    name="switch.at",
    domain=Range(low=0.1, high=0.5),
    default=0.25,
    help="share of the steps after which the second stage of a sequence takes over",
    allowed=Range(low=0.01, high=0.99),
)

SWITCH_RATE = Hyperparameter(
    name="switch.rate",
    # Each sequence has a default of its own: the ratio of its stages' own learning rates.
    domain=Fixed(value=1.0),
    default=1.0,
    help="learning rate of the first stage as a factor of the trial's; by default the ratio of the stages' own",
    allowed=Range(low=1e-6, high=1e6),
)

SWITCH_HYPERPARAMETERS: tuple[Hyperparameter, ...] = (SWITCH_AT, SWITCH_RATE)
"""What every sequence has besides the hyperparameters of its components."""
