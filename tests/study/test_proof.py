from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.study.samples import CATALOGUE, changed, numbered, write_model, write_rows
from tuner.errors import ConfigurationError, Problem
from tuner.study.check import CheckReport, check_study
from tuner.study.domains import Choice, Fixed, Range
from tuner.study.file import load_study_file, locate
from tuner.study.proof import Refusal, StrategyProof, ends_of
from tuner.study.space import SearchSpace
from tuner.study.spec import StudySpec

NO_BIAS = "bitfit cannot adapt Llama - its backbone has no biases; take bitfit out of strategies"
TOO_WIDE = "lora.r 64 exceeds the width 16 of query; lower space.lora.r"


class Probe:
    """Answers what a test wants, and remembers what it was asked."""

    def __init__(self, *proofs: StrategyProof, error: Exception | None = None) -> None:
        self.proofs = {proof.strategy: proof for proof in proofs}
        self.error = error
        self.asked: list[tuple[tuple[str, ...], str]] = []

    def __call__(
        self, spec: StudySpec, *, space: SearchSpace, classes: Sequence[str], folder: str
    ) -> Sequence[StrategyProof]:
        self.asked.append((tuple(classes), folder))
        if self.error is not None:
            raise self.error
        return [self.proofs.get(name, StrategyProof(strategy=name, works=True, trainable=1)) for name in space.names]


def refused(strategy: str, message: str) -> StrategyProof:
    return StrategyProof(strategy=strategy, works=False, refusals=(Refusal(knob="", value=None, message=message),))


def limited(strategy: str, knob: str, value: int, message: str) -> StrategyProof:
    return StrategyProof(
        strategy=strategy, works=True, trainable=1, refusals=(Refusal(knob=knob, value=value, message=message),)
    )


def check(folder: Path, probe: Probe, *changes: tuple[str, str]) -> CheckReport:
    write_model(folder / "model")
    write_rows(folder / "train.csv", numbered("aabbabab" * 130))
    text = changed("owner/model", "model")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "study.yaml").write_text(text + "confirm: {finalists: 0}\n")
    spec = load_study_file(folder / "study.yaml", catalogue=CATALOGUE)
    return check_study(spec, catalogue=CATALOGUE, probe=probe)


def located(problems: Sequence[Problem], folder: Path) -> list[tuple[int, int, str]]:
    return [(problem.line, problem.column, problem.message) for problem in locate(problems, path=folder / "study.yaml")]


def test_probe_is_told_classes_and_folder_and_its_answers_are_kept(tmp_path: Path) -> None:
    probe = Probe()
    report = check(tmp_path, probe)
    assert probe.asked == [(("a", "b"), str(tmp_path / "model"))]
    assert [proof.strategy for proof in report.proofs] == ["head", "lora", "full"]
    assert not report.problems
    assert not report.warnings


def test_strategy_that_cannot_work_is_refused_at_its_place(tmp_path: Path) -> None:
    report = check(tmp_path, Probe(refused("bitfit", NO_BIAS)), ("lora", "bitfit"))
    assert located(report.problems, tmp_path) == [(10, 20, f"strategies: {NO_BIAS}")]


def test_each_name_that_cannot_work_is_refused(tmp_path: Path) -> None:
    probe = Probe(refused("bitfit", NO_BIAS), refused("lora+bitfit", NO_BIAS))
    report = check(tmp_path, probe, ("lora", "bitfit, lora+bitfit"))
    assert located(report.problems, tmp_path) == [
        (10, 20, f"strategies: {NO_BIAS}"),
        (10, 28, f"strategies: {NO_BIAS}"),
    ]


@pytest.mark.parametrize(
    ("given", "column"), [("{compose: [lora, bitfit]}", 30), ("[head, {compose: [lora, bitfit]}]", 37)]
)
def test_part_of_what_is_composed_is_refused_once(tmp_path: Path, given: str, column: int) -> None:
    probe = Probe(refused("bitfit", NO_BIAS), refused("lora+bitfit", NO_BIAS))
    report = check(tmp_path, probe, ("[head, lora, full]", given))
    assert located(report.problems, tmp_path) == [(10, column, f"strategies.compose: {NO_BIAS}")]


def test_combination_alone_that_cannot_work_is_refused_where_it_is_composed(tmp_path: Path) -> None:
    report = check(
        tmp_path, Probe(refused("lora+bitfit", "they clash")), ("[head, lora, full]", "{compose: [lora, bitfit]}")
    )
    assert located(report.problems, tmp_path) == [(10, 23, "strategies.compose: they clash")]


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("r: [8, 64]", (12, 23, "space.lora.r")),
        ("r: {low: 8, high: 64}", (12, 34, "space.lora.r.high")),
        ("dropout: 0.1", (10, 20, "strategies")),
    ],
)
def test_value_that_cannot_work_is_warned_of_where_it_stands(
    tmp_path: Path, given: str, place: tuple[int, int, str]
) -> None:
    probe = Probe(limited("lora", "lora.r", 64, TOO_WIDE))
    report = check(tmp_path, probe, ("budget:", f"space: {{lora: {{{given}}}}}\nbudget:"))
    assert not report.problems
    assert located(report.warnings, tmp_path) == [(place[0], place[1], f"{place[2]}: {TOO_WIDE}")]


def test_value_that_the_message_does_not_name_is_named(tmp_path: Path) -> None:
    probe = Probe(limited("lora", "lora.r", 64, "no layer is left"))
    assert [warning.message for warning in check(tmp_path, probe).warnings] == [
        "strategies: with lora.r 64: no layer is left"
    ]


def test_strategy_that_could_not_be_tried_only_warns(tmp_path: Path) -> None:
    probe = Probe(StrategyProof(strategy="lora", works=True, unknown="KeyError: 'query'"))
    report = check(tmp_path, probe)
    assert not report.problems
    assert located(report.warnings, tmp_path) == [
        (10, 20, "strategies: lora could not be tried on the model (KeyError: 'query')")
    ]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (RuntimeError("first line\nsecond line"), "first line"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
def test_broken_probe_is_one_line_and_no_problem(tmp_path: Path, error: Exception, why: str) -> None:
    report = check(tmp_path, Probe(error=error))
    assert not report.problems
    assert not report.proofs
    assert located(report.warnings, tmp_path) == [(3, 8, f"model: the strategies could not be tried on it ({why})")]


def test_a_model_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    error = ConfigurationError("the model cannot be loaded", why="no such class")
    report = check(tmp_path, Probe(error=error))
    assert located(report.problems, tmp_path) == [(3, 8, "model: the model cannot be loaded - no such class")]


def test_without_a_model_nothing_is_tried(tmp_path: Path) -> None:
    probe = Probe()
    report = check(tmp_path, probe, ("model: model", "model: ./nowhere"))
    assert report.problems
    assert not probe.asked


def test_ends_of_what_is_searched() -> None:
    assert ends_of(Choice(options=("a", "b", "c"))) == ("a", "b", "c")
    assert ends_of(Range(low=2, high=9, kind="int")) == (2, 9)
    assert ends_of(Range(low=0.0, high=0.5)) == ()
    assert ends_of(Fixed(value=3)) == (3,)


def sized(strategy: str, trainable: int, fewest: int | None = None) -> StrategyProof:
    return StrategyProof(strategy=strategy, works=True, trainable=trainable, fewest=fewest)


def bounded(folder: Path, bound: str, *proofs: StrategyProof) -> CheckReport:
    return check(
        folder, Probe(*proofs), ("budget:", f'constraints: ["loss <= 9", "trainable_params <= {bound}"]\nbudget:')
    )


def test_strategy_that_can_never_be_small_enough_is_warned_of(tmp_path: Path) -> None:
    report = bounded(
        tmp_path, "10k", sized("head", 10_000), sized("lora", 30_000, 12_000), sized("full", 99_000, 99_000)
    )
    assert not report.problems
    assert located(report.warnings, tmp_path) == [
        (
            10,
            20,
            "strategies: lora trains 12,000 parameters or more and can never keep trainable_params <= 10 k: "
            "take it out, or raise the bound",
        ),
        (
            10,
            26,
            "strategies: full trains 99,000 parameters or more and can never keep trainable_params <= 10 k: "
            "take it out, or raise the bound",
        ),
    ]


def test_recipe_that_is_too_large_is_warned_of_where_other_values_are_not(tmp_path: Path) -> None:
    report = bounded(tmp_path, "10k", sized("head", 100), sized("lora", 30_000, 9_000), sized("full", 100))
    assert located(report.warnings, tmp_path) == [
        (
            10,
            20,
            "strategies: the default recipe of lora trains 30,000 parameters and breaks trainable_params <= 10 k: "
            "only others of its values can keep it, with 9,000 at least",
        )
    ]


def test_study_that_no_strategy_can_win_is_refused(tmp_path: Path) -> None:
    sizes = (sized("head", 18_000, 18_000), sized("lora", 30_000, 12_000), sized("full", 99_000, 99_000))
    report = bounded(tmp_path, "1e4", *sizes)
    assert located(report.problems, tmp_path) == [
        (
            12,
            28,
            "constraints: no strategy can keep trainable_params <= 1e4: the smallest is lora with 12,000 trained parameters; "
            "raise the bound or add a smaller strategy",
        )
    ]
    unknown = bounded(tmp_path, "1e4", *sizes[:2], StrategyProof(strategy="full", works=True, unknown="it is odd"))
    assert not unknown.problems
    assert [warning.message for warning in unknown.warnings] == [
        "strategies: full could not be tried on the model (it is odd)",
        "strategies: head trains 18,000 parameters or more and can never keep trainable_params <= 1e4: "
        "take it out, or raise the bound",
        "strategies: lora trains 12,000 parameters or more and can never keep trainable_params <= 1e4: "
        "take it out, or raise the bound",
    ]
