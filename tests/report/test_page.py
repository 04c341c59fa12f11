from __future__ import annotations

import base64
import hashlib
import json
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.report.samples import cut_short, make_finalist, make_snapshot, make_spec, make_study, make_trial
from tuner.errors import ConflictError, UnavailableError
from tuner.report import summarise, write_report
from tuner.report.page import render_page
from tuner.store.records import FinalistRecord, Outcome, StudySnapshot, StudyState
from tuner.study.domains import Value
from tuner.study.plan import Confusion
from tuner.study.space import SearchSpace, StrategySpace
from tuner.study.spec import DistillSpec

HOSTILE = "</script><script>alert('%s')</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}"
MEGABYTE = 1_000_000


class Page(HTMLParser):
    """The page's elements, its texts by element, and every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._open = tag
        if tag in {"script", "style"}:
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in {"script", "style"}:
            self.texts[self._open][-1] += data
        else:
            self.texts.setdefault("", []).append(data)


@pytest.fixture(scope="module")
def snapshot() -> StudySnapshot:
    return make_snapshot()


@pytest.fixture(scope="module")
def page(snapshot: StudySnapshot) -> Page:
    return Page(render_page(snapshot))


def test_the_verdict_comes_first(snapshot: StudySnapshot, page: Page) -> None:
    assert page.tags.index("h1") < page.tags.index("h2")
    visible = " ".join(" ".join(page.texts[""]).split())
    summary = summarise(snapshot)
    assert summary.headline in visible
    for sentence in summary.sentences:
        assert sentence in visible


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    addresses = [value for _, name, value in page.attributes if name in {"src", "href", "action", "srcset"}]
    assert addresses == ["data:,"]
    assert "style" not in {name for _, name, _ in page.attributes}
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert "url(" not in page.texts["style"][0]
    assert "@import" not in page.texts["style"][0]


def test_the_policy_names_exactly_what_is_in_the_page(page: Page) -> None:
    policy = next(
        value for tag, name, value in page.attributes if tag == "meta" and name == "content" and "src" in value
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    def hashes(texts: list[str]) -> set[str]:
        return {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts}

    assert rules["default-src"] == "'none'"
    _island, *scripts = page.texts["script"]
    assert set(rules["script-src"].split()) == hashes(scripts)
    assert set(rules["style-src"].split()) == hashes([*page.texts["style"], ""])


def test_the_page_stays_small(snapshot: StudySnapshot, page: Page) -> None:
    assert len(render_page(snapshot).encode()) < 5.2 * MEGABYTE
    assert page.tags.count("script") == 3
    trials = tuple(
        replace(snapshot.trials[number % 30], number=number, reason=f"because of {number} " + "x" * 80)
        for number in range(3000)
    )
    large = replace(snapshot, trials=trials, study=make_study(spec=make_spec(), trials=trials))
    assert len(render_page(large).encode()) < 6 * MEGABYTE


def test_every_figure_says_in_words_what_it_shows(page: Page) -> None:
    canvases = [value for _, name, value in page.attributes if name == "data-figure"]
    labels = [value for tag, name, value in page.attributes if tag == "div" and name == "aria-label"]
    assert len(canvases) == len(set(canvases)) == 13
    assert all(any(len(label) > 60 for label in labels) for _ in canvases)
    assert set(json.loads(page.texts["script"][0])["figures"]) == set(canvases)


def hostile_snapshot() -> StudySnapshot:
    """A study in which every text that anyone may choose tries to become code."""
    name = HOSTILE % "strategy"
    params: dict[str, Value] = {HOSTILE % "name": HOSTILE % "value", "learning_rate": 1e-3, "batch_size": 16}
    labels = (HOSTILE % "label", "b")
    confusion = Confusion(labels=labels, counts=((5, 2), (1, 4)))
    trials = tuple(
        replace(
            make_trial(
                number, outcome=outcome, reason=HOSTILE % "reason", params={**params, "batch_size": 8 * (number + 1)}
            ),
            strategy=name,
            notes=(HOSTILE % "note",),
            confusion=confusion,
        )
        for number, outcome in enumerate([Outcome.COMPLETE, Outcome.PRUNED] * 6)
    )
    spec = make_spec()
    spec = spec.model_copy(
        update={
            "name": HOSTILE % "study",
            "task": HOSTILE % "task",
            "model": HOSTILE % "model",
            "objective": spec.lead.model_copy(update={"metric": "macro_f1"}),
        }
    )
    space = SearchSpace(strategies=(StrategySpace(strategy=name, prior=1e-3, domains={}, recipe={}),))
    study = make_study(spec=spec, trials=trials, state=StudyState.STOPPED, reason=HOSTILE % "state", space=space)
    finalist = make_finalist(0, rank=1, validation=(0.8, 0.9), accuracy=(0.8, 0.9), is_baseline=True)
    tests = [
        replace(run, test=replace(run.test, confusion=confusion) if run.test is not None else None)
        for run in finalist.runs
    ]
    return StudySnapshot(study=study, trials=trials, finalists=(replace(finalist, runs=tuple(tests)),))


def test_no_text_of_a_user_becomes_code(page: Page) -> None:
    text = render_page(hostile_snapshot())
    hostile = Page(text)
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "49" not in hostile.texts[""][:20]
    assert hostile.tags.count("script") == page.tags.count("script") == 3
    assert hostile.texts["script"][1:] == page.texts["script"][1:]
    assert not any(name.startswith("on") for _, name, _ in hostile.attributes)
    visible = "".join(hostile.texts[""])
    for what in ("study", "task", "model", "reason", "note", "name", "value", "state", "label", "strategy"):
        assert f"alert('{what}" in visible
    # Inside figures Plotly reads a subset of HTML: names arrive there escaped.
    figures = json.dumps(json.loads(hostile.texts["script"][0])["figures"], ensure_ascii=False)
    assert not re.search(r"<(?!extra>|/extra>|br>|b>|/b>)[a-z/]", figures)


@pytest.mark.parametrize("state", list(StudyState))
def test_studies_without_results_have_a_page(state: StudyState) -> None:
    failed = make_trial(0, strategy="full", outcome=Outcome.ERRORED, values=(), reason="loss became nan")
    waiting = replace(make_trial(1, outcome=Outcome.WAITING, values=()), strategy="", params={}, ended_at=None)
    one = make_trial(0, strategy="head", values=(0.5,))
    for trials in ((), (failed, waiting), (one,)):
        study = make_study(spec=make_spec(), trials=trials, state=state)
        snapshot = StudySnapshot(study=study, trials=trials, finalists=())
        assert summarise(snapshot).headline in render_page(snapshot)


def test_a_minimised_metric_without_test_scores_has_a_page() -> None:
    snapshot = make_snapshot(test=False)
    study = replace(snapshot.study, metric="loss", maximize=False)
    trials = tuple(
        replace(trial, value=1 - trial.value if trial.value is not None else None) for trial in snapshot.trials
    )
    assert "loss" in render_page(replace(snapshot, study=study, trials=trials, finalists=()))


def words_of(*finalists: FinalistRecord, maximize: bool = True, state: StudyState = StudyState.FINISHED) -> str:
    """What a page shows of a study of two trials with these finalists."""
    trials = (make_trial(0, strategy="full", values=(0.80,), is_recipe=True), make_trial(1, values=(0.95,)))
    study = make_study(spec=make_spec(), trials=trials, maximize=maximize, state=state)
    page = render_page(StudySnapshot(study=study, trials=trials, finalists=finalists))
    return " ".join(re.sub(r"<[^>]+>", " ", page[page.index("<main>") : page.index("</main>")]).split())


def test_the_tile_of_the_device_time_counts_what_took_it() -> None:
    best = make_finalist(1, rank=1, validation=(0.9, 0.9), accuracy=(0.9, 0.9))
    recipe = make_finalist(0, rank=2, validation=(0.8, 0.81), accuracy=(0.8, 0.8), is_baseline=True)
    assert re.search(r"2 trials \(\d+ epochs?\), 4 re-trainings", words_of(best, recipe))
    alone = words_of().partition("Device time")[2][:60]
    assert "2 trials (" in alone
    assert "re-training" not in alone


def test_a_page_of_an_incomplete_confirmation_settles_nothing() -> None:
    best = cut_short(make_finalist(1, rank=1, validation=(0.9, 0.9), accuracy=(0.9, 0.9)), kept=0, reason="no hours")
    recipe = make_finalist(0, rank=2, validation=(0.8, 0.81), accuracy=(0.8, 0.8), is_baseline=True)
    words = words_of(best, recipe)
    assert (
        "The confirmation is incomplete. 2 of 4 re-trainings gave a score; the others: 2 stopped (no hours)." in words
    )
    assert "0 of 2" in words
    assert "; the confirmation is incomplete." in words
    findings = words[: words.index("claim of the search")]  # the glossary explains what a winner is
    for settled in ("winner", "was not beaten", " wins"):
        assert settled not in findings


def test_a_page_of_a_minimised_metric_tells_leads_below_zero() -> None:
    words = words_of(
        make_finalist(1, rank=1, validation=(0.30, 0.31)),
        make_finalist(0, rank=2, validation=(0.40, 0.41), is_baseline=True),
        maximize=False,
    )
    assert "0.1000 lower than the default recipe of full" in words
    assert "Against full by default -0.1000" in words
    assert "lead (less is better)" in words
    assert "+0.1000" not in words


def test_a_page_says_what_its_intervals_are_over_and_by_what_the_recipe_is_defended() -> None:
    base = make_finalist(0, rank=2, validation=(0.40, 0.41, 0.42), accuracy=(0.5, 0.51, 0.5), is_baseline=True)
    words = words_of(make_finalist(1, rank=1, validation=(0.9, 0.9, 0.91), accuracy=(0.9, 0.9, 0.91)), base)
    assert "95 %: 0." in words
    assert "95 % over seeds: " not in words
    assert "one that is better with a probability of 97.5 %" in words
    plain = words_of(
        make_finalist(1, rank=1, validation=(0.9, 0.9, 0.91)),
        make_finalist(0, rank=2, validation=(0.40, 0.41, 0.42), is_baseline=True),
    )
    assert plain.count("95 % over seeds: ") == 2


def test_a_page_of_a_study_that_searches_again_has_a_leader_and_no_winner() -> None:
    finalists = (
        make_finalist(1, rank=1, validation=(0.9, 0.9)),
        make_finalist(0, rank=2, validation=(0.8, 0.81), is_baseline=True),
    )
    again = words_of(*finalists, state=StudyState.SEARCHING)
    assert "lora leads so far, the search goes on" in again
    assert "lora leads 0.9500" in again and "lead so far" in again
    assert "lora winner" in words_of(*finalists)


def test_a_page_of_one_seed_is_never_clear() -> None:
    words = words_of(
        make_finalist(1, rank=1, validation=(0.9,), accuracy=(0.95,)),
        make_finalist(0, rank=2, validation=(0.8,), accuracy=(0.6,), is_baseline=True),
    )
    assert words.count("one seed; 95 % over test rows only: ") == 2
    assert "one seed cannot tell how much of a difference is the luck of the seed" in words
    assert "probability: clear" not in words
    assert "over test rows and seeds" not in words
    assert "&gt; 99.9 %" not in words


def test_the_tiles_hold_the_claim_against_the_test_rows() -> None:
    # The default recipe is the runner-up, not clearly behind; fresh validation is above the claim of 0.95.
    tested = words_of(
        make_finalist(1, rank=1, validation=(0.96, 0.98), accuracy=(0.90, 0.92)),
        make_finalist(0, rank=2, validation=(0.90, 0.91), accuracy=(0.89, 0.92), is_baseline=True),
    )
    assert "Search claim minus test +0.0400 overstated by the search" in tested
    assert "Ahead of the runner-up" in tested
    assert "Beats the runner-up" not in tested
    untested = words_of(
        make_finalist(1, rank=1, validation=(0.96, 0.98)),
        make_finalist(0, rank=2, validation=(0.60, 0.61), is_baseline=True),
    )
    assert "Search claim minus fresh seeds -0.0200 understated by the search" in untested.replace("−", "-")
    assert "Beats the runner-up" in untested


def test_the_file_is_replaced_at_once(snapshot: StudySnapshot, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert write_report(snapshot, path) == path
    first = path.read_text(encoding="utf-8")
    path.write_text("old", encoding="utf-8")
    write_report(snapshot, str(path))
    assert path.read_text(encoding="utf-8") == first
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


def test_a_report_makes_no_folder(snapshot: StudySnapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new" / "folder"
    with pytest.raises(UnavailableError, match="does not exist") as caught:
        write_report(snapshot, folder / "report.html")
    assert str(folder / "report.html") in str(caught.value)
    assert f"mkdir -p {folder}" in str(caught.value)
    assert not list(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert write_report(snapshot, "report.html") == tmp_path / "report.html"


def test_a_report_goes_through_no_link_and_onto_no_folder(snapshot: StudySnapshot, tmp_path: Path) -> None:
    target = tmp_path / "secret.txt"
    target.write_text("keep", encoding="utf-8")
    link = tmp_path / "report.html"
    link.symlink_to(target)
    with pytest.raises(ConflictError, match="symbolic link"):
        write_report(snapshot, link)
    assert target.read_text(encoding="utf-8") == "keep"
    with pytest.raises(ConflictError, match="is a folder"):
        write_report(snapshot, tmp_path)
    with pytest.raises(UnavailableError, match="cannot write"):
        write_report(snapshot, target / "report.html")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["report.html", "secret.txt"]


def test_the_teacher_is_named(snapshot: StudySnapshot) -> None:
    spec = snapshot.study.spec.model_copy(update={"distill": DistillSpec(teacher="big/3")})
    taught = replace(snapshot, study=replace(snapshot.study, spec=spec))
    assert "taught by big/3" in render_page(taught)
    assert "taught by" not in render_page(snapshot)
