"""The guide of the README, word for word, on rows of one's own; then every tool that reads the same database."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tests.dashboard.test_server import serving
from tests.report.browser import open_browser
from tests.source_tree import ROOT
from tests.tiny import write_model, write_rows

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def block(language: str, *, holding: str) -> str:
    """The README's fenced block of a language that holds a text."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if holding in text]
    assert len(found) == 1, (language, holding)
    return str(found[0])


def run(command: str, folder: Path) -> str:
    """A line of the README in a shell; what it printed."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One's own rows, the README's study file, and the README's commands, run in order."""
    folder = tmp_path_factory.mktemp("own")
    write_rows(folder / "train.csv", count=240, seed=1)
    write_rows(folder / "test.csv", count=90, seed=2)
    write_model(folder / "model")
    # A model of one's own instead of the hub's, and a smaller budget; nothing else is changed.
    study = block("yaml", holding="name: tickets")
    assert "distilbert/distilbert-base-uncased" in study
    study = study.replace("distilbert/distilbert-base-uncased", "model").replace("trials: 30", "trials: 10")
    (folder / "tickets.yaml").write_text(study, encoding="utf-8")
    commands = block("bash", holding="tuner study create tickets.yaml       # stores")
    for line in commands.splitlines():
        run(line.replace("worker start", "worker start --per-device 2"), folder)
    return folder


@pytest.fixture(scope="module")
def shown(folder: Path) -> dict[str, Any]:
    return dict(json.loads(run("tuner study show tickets --json", folder)))


@pytest.fixture
def study(folder: Path) -> Iterator[optuna.Study]:
    """The study as plain Optuna sees it."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/tuner.db")
    yield optuna.load_study(study_name="tickets", storage=storage)
    storage.remove_session()
    storage.engine.dispose()


def test_the_guide_ends_with_an_answer(folder: Path, shown: dict[str, Any]) -> None:
    assert shown["state"] == "finished"
    assert sum(shown["trials"].values()) == 10
    assert shown["best"]["strategy"] in {"head", "bitfit", "lora", "full"}
    assert len(shown["finalists"]) in {3, 4}
    page = (folder / "tickets.html").read_text(encoding="utf-8")
    assert "90 test rows" in page
    assert len(page.encode()) < 6_000_000


@pytest.mark.parametrize("line", block("bash", holding="tuner study watch tickets").splitlines()[:2])
def test_the_looks_from_another_terminal_work(folder: Path, line: str) -> None:
    assert run(f"{line} < /dev/null", folder).strip()


def test_optuna_counts_as_tuner_does(study: optuna.Study, folder: Path, shown: dict[str, Any]) -> None:
    states = Counter(trial.state.name.lower() for trial in study.trials)
    assert dict(states) == {name: count for name, count in shown["trials"].items() if count}
    ours = json.loads(run("tuner study trials tickets --json", folder))["trials"]
    values = {trial["number"]: trial["values"]["macro_f1"] for trial in ours if trial["state"] == "complete"}
    assert values == {trial.number: trial.value for trial in study.get_trials(states=[TrialState.COMPLETE])}
    assert study.best_value == max(values.values())


@pytest.mark.filterwarnings("ignore:Some regimes for parameter:UserWarning")  # few trials of a rare value
def test_optuna_draws_importances(study: optuna.Study) -> None:
    figure = optuna.visualization.plot_param_importances(study)
    assert set(figure.data[0].y) >= {"strategy", "learning_rate_decades"}


def test_the_optuna_command_lists_the_trials(folder: Path, shown: dict[str, Any]) -> None:
    listed = run("optuna trials --storage sqlite:///tuner.db --study-name tickets -f json 2>/dev/null", folder)
    states = Counter(trial["state"].lower() for trial in json.loads(listed))
    assert dict(states) == {name: count for name, count in shown["trials"].items() if count}


def test_the_dashboard_shows_the_trials_in_a_browser(
    folder: Path, shown: dict[str, Any], tmp_path: Path, require_tool: Callable[..., str]
) -> None:
    executable = require_tool("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
    with serving(f"sqlite:///{folder}/tuner.db") as server, open_browser(executable, tmp_path / "profile") as browser:
        browser.view(width=1280)
        browser.open(f"{server.url}dashboard/studies/1/trials")
        browser.wait("document.body.innerText.includes('Trial 9')")
        text = str(browser.evaluate("document.body.innerText"))
        browser.screenshot(tmp_path / "trials.png")
    listed = re.findall(r"Trial (\d+)\n+([A-Z]\w+)", text)
    states = Counter(state.lower() for state in dict(listed).values())
    assert dict(states) == {name: count for name, count in shown["trials"].items() if count}, text
