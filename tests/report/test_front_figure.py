"""The front of a study with several objectives, as it is drawn and told on the page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.report.samples import make_snapshot, make_trial
from tuner.report.front_figure import draw_fronts
from tuner.report.page import render_page
from tuner.report.theme import StrategyStyle
from tuner.store.fronts import Front, find_front
from tuner.store.records import Outcome, StudySnapshot
from tuner.study.constraints import read_constraints
from tuner.study.spec import ObjectiveSpec

SEVERAL = (
    ObjectiveSpec(metric="macro_f1", goal="maximize"),
    ObjectiveSpec(metric="trainable_params", goal="minimize"),
    ObjectiveSpec(metric="seconds", goal="minimize"),
)
CONSTRAINTS = ("trainable_params <= 1 M", "macro_f1 >= 0.5")


def several(*, objectives: int = 3, trials: int = 30) -> StudySnapshot:
    """The sample study, asked for several things; one trial broke a constraint at its end."""
    snapshot = make_snapshot(trials=trials)
    changes = {"objective": SEVERAL[:objectives], "constraints": CONSTRAINTS}
    spec = snapshot.study.spec.model_copy(update=changes)
    broken = make_trial(
        trials, strategy="full", outcome=Outcome.INFEASIBLE, values=(0.4, 0.6), reason="breaks the constraint"
    )
    return replace(snapshot, study=replace(snapshot.study, spec=spec), trials=(*snapshot.trials, broken))


def front_of(snapshot: StudySnapshot) -> Front:
    front = find_front(snapshot.trials, spec=snapshot.study.spec)
    assert front is not None
    return front


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_figure_for_each_further_objective(objectives: int) -> None:
    snapshot = several(objectives=objectives)
    front = front_of(snapshot)
    drawings = draw_fronts(
        front, trials=snapshot.trials, constraints=read_constraints(CONSTRAINTS), style=StrategyStyle(["head", "lora"])
    )
    assert [drawing.key for drawing in drawings] == [f"front-{place}" for place in range(1, objectives)]
    first = drawings[0].figure
    drawn = {trace.name: trace for trace in first.data}
    numbers = {
        text.split()[1]
        for trace in first.data
        if trace.name == "front" and trace.customdata
        for text in trace.customdata
    }
    assert numbers == {str(member.trial.number) for member in front.members}
    assert len(drawn["dominated"].x) == len(front.dominated)
    assert list(drawn["breaks a constraint"].y) == [0.6]
    assert len(first.layout.shapes) == 2  # both bounds
    assert first.layout.xaxis.type == "log"  # from a head to everything
    knee = front.knee
    assert knee is not None and list(drawn["knee"].y) == [knee.values[0]]
    assert f"The front has {len(front.members)} trials" in drawings[0].caption
    assert f"trial {front.members[0].trial.number} " in drawings[0].caption


def test_the_front_is_best_first_and_nothing_on_it_is_dominated() -> None:
    front = front_of(several(objectives=2))
    scores, sizes = zip(*(member.values for member in front.members), strict=True)
    assert list(scores) == sorted(scores, reverse=True) and list(sizes) == sorted(sizes, reverse=True)
    for _, (score, size) in front.dominated:
        assert any(best >= score and least <= size for best, least in zip(scores, sizes, strict=True))


def test_the_page_tells_the_front() -> None:
    snapshot = several()
    page = render_page(snapshot)
    assert '<section id="front">' in page
    assert "macro_f1 and trainable_params and seconds count" in " ".join(page.split())
    assert page.count('<b class="tag">knee</b>') == 1
    for place in (1, 2):
        assert f'data-figure="front-{place}"' in page
    assert '<section id="front">' not in render_page(make_snapshot())


def test_no_complete_trial_no_figure() -> None:
    snapshot = replace(several(), trials=(), finalists=())
    assert draw_fronts(front_of(snapshot), trials=(), constraints=(), style=StrategyStyle([])) == []
    assert draw_fronts(None, trials=(), constraints=(), style=StrategyStyle([])) == []
    assert "It is empty: no trial is complete." in render_page(snapshot)
