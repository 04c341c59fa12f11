"""Names that a study file may use where no registry decides them, and the nearest one to a misspelt word."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Sequence

SAMPLERS = ("auto", "random", "tpe", "gp", "cmaes", "nsgaii", "nsgaiii", "qmc", "grid", "brute_force")
"""What ``search.sampler`` may be; ``tuner/search`` maps each to a class of Optuna, and a test keeps both equal."""

PRUNERS = (
    "auto",
    "none",
    "median",
    "percentile",
    "successive_halving",
    "hyperband",
    "patient",
    "threshold",
    "wilcoxon",
)
"""What ``search.pruner`` may be; ``tuner/search`` maps each to a class of Optuna, and a test keeps both equal."""

SAMPLERS_OF_ONE = frozenset({"cmaes"})
"""Samplers that know one objective only."""

PRUNERS_OF_SEVERAL = frozenset({"auto", "none"})
"""What ``search.pruner`` may be where a study has several objectives: Optuna's own compare one number."""

COMBINE = "+"
"""Between the components of a combined strategy: ``lora+bitfit``."""

THEN = ">"
"""Between two strategies of which the second takes over from the first within a run: ``head>lora``."""

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "lr": ("learning_rate",),
    "bs": ("batch_size",),
    "batch": ("batch_size",),
    "per_device_train_batch_size": ("batch_size",),
    "wd": ("weight_decay",),
    "l2": ("weight_decay",),
    "rank": ("r",),
    "lora_r": ("r",),
    "lora_rank": ("r",),
    "alpha": ("alpha_ratio",),
    "lora_alpha": ("alpha_ratio",),
    "drop": ("dropout",),
    "lora_dropout": ("dropout",),
    "modules": ("targets",),
    "target_modules": ("targets",),
    "use_rslora": ("rank_stabilized",),
    "use_dora": ("dora",),
    "opt": ("optimizer",),
    "optim": ("optimizer",),
    "scheduler": ("schedule",),
    "lr_scheduler": ("schedule",),
    "lr_scheduler_type": ("schedule",),
    "warmup": ("warmup_ratio",),
    "warmup_steps": ("warmup_ratio",),
    "clip": ("max_grad_norm",),
    "grad_clip": ("max_grad_norm",),
    "smoothing": ("label_smoothing",),
    "epoch": ("epochs",),
    "n_epochs": ("epochs",),
    "num_epochs": ("epochs",),
    "max_epochs": ("epochs",),
    "num_train_epochs": ("epochs",),
    "max_len": ("max_length",),
    "max_seq_len": ("max_length",),
    "max_seq_length": ("max_length",),
    "dtype": ("precision",),
    "early_stopping": ("patience",),
    "early_stopping_patience": ("patience",),
    "random_seed": ("seed",),
    "random_state": ("seed",),
    "n_trials": ("trials",),
    "num_trials": ("trials",),
    "max_trials": ("trials",),
    "timeout": ("hours",),
    "cost": ("money",),
    "price": ("price_per_hour",),
    "n_seeds": ("seeds",),
    "num_seeds": ("seeds",),
    "metric_name": ("metric",),
    "metric_for_best_model": ("metric",),
    "direction": ("goal",),
    "val": ("validation",),
    "valid": ("validation",),
    "dev": ("validation",),
    "val_split": ("validation",),
    "text_column": ("text",),
    "label_column": ("label",),
    "target": ("label",),
    "base_model": ("model",),
    "model_name": ("model",),
    "model_name_or_path": ("model",),
    "method": ("strategies",),
    "methods": ("strategies",),
    "search_space": ("space",),
    "hyperparameters": ("space",),
    "f1": ("macro_f1",),
    "acc": ("accuracy",),
    "roc_auc": ("auc",),
    "params": ("trainable_params", "space"),
    "memory": ("peak_memory",),
    "bayesian": ("tpe",),
    "asha": ("successive_halving",),
    "finetuning": ("full",),
    "fine_tuning": ("full",),
    "linear_probe": ("head",),
}
"""What people call our names elsewhere, in small letters and with underscores; of several targets the first known one is meant."""

_LISTED = 16  # names shown when none is near; a longer list is no help


def printable(text: str) -> str:
    """Text that a terminal shows as it is: control characters and what turns the direction of writing are escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def joined(strategy: str) -> str:
    """The name without the spaces that people write around its signs: ``head > lora`` is ``head>lora``."""
    return re.sub(rf"\s*([{COMBINE}{THEN}])\s*", r"\1", strategy.strip())


def stages(strategy: str) -> tuple[str, ...]:
    """What is trained one after the other: ``head>lora+bitfit`` has two stages, ``lora+bitfit`` one."""
    return tuple(strategy.split(THEN))


def components(strategy: str) -> tuple[str, ...]:
    """The parts of all stages, in the order written: ``lora+bitfit`` has two, ``head>lora+bitfit`` three."""
    return tuple(part for stage in stages(strategy) for part in stage.split(COMBINE))


def combinations(parts: Sequence[str]) -> tuple[str, ...]:
    """Every combination of some of the parts, fewest first: of a, b and c these are a, b, c, a+b, a+c, b+c and a+b+c."""
    return tuple(
        COMBINE.join(chosen) for size in range(1, len(parts) + 1) for chosen in itertools.combinations(parts, size)
    )


def synonyms(word: str) -> tuple[str, ...]:
    """Our names for what people call otherwise elsewhere: ``learning_rate`` for ``lr``; empty if there is none."""
    return _SYNONYMS.get(_folded(word), ())


def _folded(word: str) -> str:
    return word.strip().casefold().replace("-", "_")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that another is a synonym of or a misspelling, or whose initials it is; None if there is none."""
    folded = {_folded(name): name for name in known}
    meant = next((name for name in synonyms(word) if name in folded), None)
    if meant is not None:
        return folded[meant]
    near = difflib.get_close_matches(_folded(word), folded, n=1, cutoff=0.6)
    if near:
        return folded[near[0]]
    # As people shorten them: lr for learning_rate.
    short = {
        "".join(part[:1] for part in name.split("_")): full for name, full in reversed(folded.items()) if "_" in name
    }
    return short.get(_folded(word))


def listed(names: Sequence[str]) -> str:
    """The first of many names, and how many there are more."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word.

    Args:
        word: What was written.
        known: What may be written, in the order in which people should read it.

    Returns:
        ``; did you mean "x"?`` where a known word is near, else ``; known: a, b, c``.
    """
    names = list(dict.fromkeys(known))
    near = nearest(word, names)
    if near is not None:
        return f'; did you mean "{near}"?'
    return f"; known: {listed(names)}" if names else ""


def count_noun(number: int, noun: str, plural: str = "") -> str:
    """A count with its noun in the right number: ``1 trial``, ``1,234 trials``, ``2 strategies``.

    Args:
        number: How many.
        noun: Of one.
        plural: Of several; default: with an s.
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or noun + 's'}"


def hours_words(hours: float, *, kind: str = "", used: float | None = None) -> str:
    """A limit of hours, small ones in minutes or seconds: ``1 device hour``, ``0.25 of 3.6 device seconds``.

    Args:
        hours: How many.
        kind: Before the unit: ``device``.
        used: Hours of them that are used, where that is to be said.
    """
    size, unit = (1, "hour") if hours >= 0.1 else (60, "minute") if hours * 60 >= 1 else (3600, "second")
    number = f"{hours:g}" if size == 1 else f"{hours * size:.3g}"
    of = "" if used is None else f"{used * size:.2f} of "
    return f"{of}{number} {f'{kind} ' if kind else ''}{unit}{'' if number == '1' else 's'}"
