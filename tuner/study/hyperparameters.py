"""The hyperparameters that every strategy has: optimizer, schedule and regularisation."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.study.domains import Choice, Fixed, Hyperparameter, Range

RELATIVE_LEARNING_RATE = "learning_rate_decades"
"""Name of the searched offset: ``log10(learning_rate / prior)``."""

# Macro-F1 on Reuters R8 (1200 rows, 4 epochs, batch 16, one seed) with 4.4 M parameters, at multiples of the strategy's own
# learning rate; full fine-tuning, then LoRA.
# AdamW     1: .691            1: .742
# Adam      1: .508            1: .746
# Adafactor 10, 30, 100, 300: .776 .795 .298 .085            10, 30, 100: .529 .779 .746
# Lion      0.1, 0.3, 1: .254 .496 .486                      0.1, 0.3: .601 .648   (Chen et al. 2023: 3 to 10 times smaller)
# RMSprop   0.1, 0.3, 1: .200 .328 .631                      0.1, 0.3: .488 .656
# SGD       6, 20, 60, 200, 600: .205 .341 .322 .287 .185    2, 6, 20: .305 .556 .681
OPTIMIZER_RATES: Mapping[str, float] = {
    "adamw": 1.0,
    "adam": 1.0,
    "sgd": 30.0,
    "rmsprop": 1.0,
    "adafactor": 30.0,
    "lion": 0.3,
}
"""Learning rate of each optimizer as a multiple of the strategy's own, which is AdamW's."""

SHARED_HYPERPARAMETERS: tuple[Hyperparameter, ...] = (
    Hyperparameter(
        name=RELATIVE_LEARNING_RATE,
        domain=Range(low=-1.5, high=1.5),
        default=0.0,
        help="decades around the strategy's own learning rate",
    ),
    Hyperparameter(
        name="optimizer",
        domain=Fixed(value="adamw"),
        default="adamw",
        help=(
            "what turns gradients into steps; sgd has momentum 0.9; adafactor moves weights by the rate times their own size, "
            "the rate capped at 1/sqrt(step) whatever the schedule says"
        ),
        allowed=Choice(options=tuple(OPTIMIZER_RATES)),
    ),
    Hyperparameter(
        name="batch_size",
        domain=Choice(options=(8, 16, 32)),
        default=16,
        help="rows in one optimizer step",
        allowed=Range(low=1, high=65536, kind="int"),
    ),
    Hyperparameter(
        name="weight_decay",
        domain=Range(low=1e-4, high=0.3, log=True),
        default=0.01,
        help=(
            "weight decay of matrices, LoRA's and virtual tokens too; vectors (biases, norms, IA3's factors) exempt; "
            "decoupled (Loshchilov & Hutter 2019), L2 in adam, sgd and rmsprop"
        ),
        allowed=Range(low=0.0, high=10.0),
    ),
    Hyperparameter(
        name="dropout",
        domain=Range(low=0.0, high=0.3),
        default=0.1,
        help="dropout probability of the model's hidden layers, attention and head",
        allowed=Range(low=0.0, high=0.9),
    ),
    Hyperparameter(
        name="label_smoothing",
        domain=Range(low=0.0, high=0.2),
        default=0.0,
        help="probability mass spread over the other classes (Szegedy et al. 2016)",
        allowed=Range(low=0.0, high=0.9),
    ),
    Hyperparameter(
        name="warmup_ratio",
        domain=Fixed(value=0.06),
        default=0.06,
        help="share of all steps with a linearly rising learning rate",
        allowed=Range(low=0.0, high=0.9),
    ),
    Hyperparameter(
        name="schedule",
        domain=Fixed(value="linear"),
        default="linear",
        help="learning rate after the warmup; wsd: constant, then a linear fall over the last fifth of the steps",
        allowed=Choice(options=("linear", "cosine", "constant", "wsd", "polynomial")),
    ),
    Hyperparameter(
        name="max_grad_norm",
        domain=Fixed(value=1.0),
        default=1.0,
        help="gradients are clipped to this norm; 0 switches clipping off",
        allowed=Range(low=0.0, high=1e6),
    ),
    Hyperparameter(
        name="l1",
        domain=Fixed(value=0.0),
        default=0.0,
        help="factor of the sum of absolute weights in the loss, vectors exempt as in weight_decay (1e-7 to 1e-4); 0: off",
        allowed=Range(low=0.0, high=1.0),
    ),
    Hyperparameter(
        name="l2_sp",
        domain=Fixed(value=0.0),
        default=0.0,
        help=(
            "factor of half the squared distance to the pretrained weights, of inserted parts to where they began, of a new "
            "head's matrices to 0 (Li et al. 2018; 1e-4 to 1); 0: off"
        ),
        allowed=Range(low=0.0, high=100.0),
    ),
    Hyperparameter(
        name="mixup",
        domain=Fixed(value=0.0),
        default=0.0,
        help="alpha of mixup (Zhang et al. 2018), on embeddings or pixels (0.1 to 1); 0: off",
        allowed=Range(low=0.0, high=16.0),
    ),
    Hyperparameter(
        name="r_drop",
        domain=Fixed(value=0.0),
        default=0.0,
        help="factor of the disagreement of two passes with dropout (R-Drop, Liang et al. 2021; 0.5 to 5); 0: off",
        allowed=Range(low=0.0, high=100.0),
    ),
    Hyperparameter(
        name="fgm",
        domain=Fixed(value=0.0),
        default=0.0,
        help="length of an adversarial change of each row's embeddings (Miyato et al. 2017; 0.1 to 5); 0: off",
        allowed=Range(low=0.0, high=1000.0),
    ),
    Hyperparameter(
        name="ema",
        domain=Fixed(value=0.0),
        default=0.0,
        help="decay of a moving average of the weights, which is what is judged and kept (0.9 to 0.9999); 0: off",
        allowed=Range(low=0.0, high=0.99999),
    ),
    Hyperparameter(
        name="patience",
        domain=Fixed(value=0),
        default=0,
        help="stop after this many epochs without a better objective; 0: as training.patience says",
        allowed=Range(low=0, high=10_000, kind="int"),
    ),
)
