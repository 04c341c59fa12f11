"""Record the same configurations with many seeds: what fresh seeds can be held against.

    python benchmarks/record_seeds.py seeds.npz

Small classifiers of scikit-learn on the data sets that come with it. A seed draws the rows to learn from and the rows to judge by, the first
weights and the order, the same draw for every configuration. The first row of each table is the library's own defaults. Tables that are in
the file already are kept, so that an interrupted recording goes on with the next one.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

Configuration = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What one table is recorded of.

    Attributes:
        load: Gives features and classes.
        make: A classifier, from a configuration (empty for the defaults) and a seed.
        draw: A configuration.
        train: Rows to learn from.
        judge: Rows to judge by.
    """

    load: Callable[..., Any]
    make: Callable[[Configuration, int], Any]
    draw: Callable[[np.random.Generator], Configuration]
    train: int
    judge: int


def _log(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _draw_perceptron(rng: np.random.Generator) -> Configuration:
    return {
        "hidden_layer_sizes": (int(_log(rng, 8, 129)),) * int(rng.integers(1, 3)),
        "alpha": _log(rng, 1e-8, 1.0),
        "batch_size": int(_log(rng, 8, 60)),
        "learning_rate_init": _log(rng, 1e-4, 1e-1),
        "max_iter": int(_log(rng, 5, 60)),
    }


def _draw_linear(rng: np.random.Generator) -> Configuration:
    return {
        "loss": str(rng.choice(["hinge", "log_loss", "modified_huber"])),
        "penalty": str(rng.choice(["l2", "l1", "elasticnet"])),
        "alpha": _log(rng, 1e-6, 1e-1),
        "learning_rate": str(rng.choice(["optimal", "adaptive", "constant"])),
        "eta0": _log(rng, 1e-4, 1e-1),
        "max_iter": int(_log(rng, 3, 60)),
    }


def _draw_machine(rng: np.random.Generator) -> Configuration:
    return {
        "kernel": str(rng.choice(["rbf", "poly", "sigmoid", "linear"])),
        "C": _log(rng, 1e-2, 1e2),
        "gamma": _log(rng, 1e-4, 1e-1),
        "shrinking": bool(rng.integers(2)),
    }


def _draw_tree(rng: np.random.Generator) -> Configuration:
    return {
        "criterion": str(rng.choice(["gini", "entropy"])),
        "splitter": str(rng.choice(["best", "random"])),
        "max_depth": int(rng.integers(1, 13)),
        "max_features": float(rng.uniform(0.05, 1.0)),
        "min_samples_leaf": int(_log(rng, 1, 20)),
        "ccp_alpha": _log(rng, 1e-4, 3e-2),
    }


def _perceptron(configuration: Configuration, seed: int) -> Any:
    return MLPClassifier(random_state=seed, **configuration)


def _linear(configuration: Configuration, seed: int) -> Any:
    return SGDClassifier(random_state=seed, **configuration)


def _machine(configuration: Configuration, seed: int) -> Any:
    return SVC(random_state=seed, **configuration)


def _tree(configuration: Configuration, seed: int) -> Any:
    return DecisionTreeClassifier(random_state=seed, **configuration)


SUBJECTS = {
    "wine_perceptron": Subject(load=load_wine, make=_perceptron, draw=_draw_perceptron, train=60, judge=118),
    "cancer_perceptron": Subject(
        load=load_breast_cancer, make=_perceptron, draw=_draw_perceptron, train=120, judge=400
    ),
    "wine_tree": Subject(load=load_wine, make=_tree, draw=_draw_tree, train=60, judge=118),
    "cancer_linear": Subject(load=load_breast_cancer, make=_linear, draw=_draw_linear, train=120, judge=400),
    "cancer_tree": Subject(load=load_breast_cancer, make=_tree, draw=_draw_tree, train=120, judge=400),
    "cancer_machine": Subject(load=load_breast_cancer, make=_machine, draw=_draw_machine, train=120, judge=400),
    "digits_linear": Subject(load=load_digits, make=_linear, draw=_draw_linear, train=240, judge=600),
    "digits_tree": Subject(load=load_digits, make=_tree, draw=_draw_tree, train=240, judge=600),
    "digits_machine": Subject(load=load_digits, make=_machine, draw=_draw_machine, train=240, judge=600),
}


def record(subject: Subject, *, configurations: int, seeds: int) -> NDArray[np.float32]:
    """Accuracies in percent, shape (configurations, seeds); the first row is the defaults."""
    features, classes = subject.load(return_X_y=True)
    rng = np.random.default_rng(0)
    drawn: list[Configuration] = [{}, *(subject.draw(rng) for _ in range(configurations - 1))]
    scores = np.empty((configurations, seeds), dtype=np.float32)
    for seed in range(seeds):
        train, judge, train_classes, judge_classes = train_test_split(
            features, classes, train_size=subject.train, test_size=subject.judge, random_state=seed, stratify=classes
        )
        for row, configuration in enumerate(drawn):
            classifier = make_pipeline(StandardScaler(), subject.make(configuration, seed))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # few epochs are part of the space
                classifier.fit(train, train_classes)
            scores[row, seed] = 100.0 * classifier.score(judge, judge_classes)
    return scores


def main(arguments: Sequence[str] | None = None) -> int:
    """Record every table that the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="where the tables go")
    parser.add_argument("--configurations", type=int, default=160, help="of each table (default 160)")
    parser.add_argument("--seeds", type=int, default=20, help="of each configuration (default 20)")
    options = parser.parse_args(arguments)
    tables: dict[str, NDArray[Any]] = {}
    if options.file.exists():
        with np.load(options.file) as stored:
            tables = {name: stored[name] for name in stored.files}
    for name, subject in SUBJECTS.items():
        if f"{name}_scores" in tables:
            continue
        tables[f"{name}_scores"] = record(subject, configurations=options.configurations, seeds=options.seeds)
        tables[f"{name}_group"] = np.zeros(options.configurations, dtype=np.uint8)
        np.savez_compressed(options.file, **tables)  # type: ignore[arg-type]  # the names are of arrays alone
        print(f"{name}: {options.configurations} configurations, {options.seeds} seeds", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
