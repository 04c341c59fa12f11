"""The root command: what errors become, and how light it is."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tuner as package
from tests.cli.command import ROOT, tuner
from tests.cli.conftest import Run
from tests.cli.rehearsal import open_study
from tuner import errors
from tuner.cli import study

HELP_SECONDS = 0.25


def test_help_shows_examples_first_and_all_exit_codes(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert result.stdout.index("Examples:") < result.stdout.index("Options:") < result.stdout.index("Exit codes:")
    for code in (0, 1, 2, 3, 4, 5, 65, 69, 75, 78, 130):
        assert re.search(rf"\b{code}\b", result.stdout.partition("Exit codes:")[2])


def test_every_exit_code_of_an_error_is_in_the_help(run: Run) -> None:
    table = run("--help").stdout.partition("Exit codes:")[2]
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TunerError)]
    assert {str(kind.exit_code) for kind in kinds} <= set(re.findall(r"\b\d+\b", table))


def test_help_fits_eighty_columns(tmp_path: Path) -> None:
    for words in (["--help"], ["study", "--help"], ["worker", "start", "--help"], ["demo", "--help"]):
        lines = tuner(*words, cwd=tmp_path).stdout.splitlines()
        assert [line for line in lines if len(line) > 80] == []


def test_help_takes_little_cpu_time() -> None:
    script = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'tuner', '--help'], stdout=subprocess.DEVNULL, check=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime)\n"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    times = [
        float(
            subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, env=plain, check=True).stdout
        )
        for _ in range(3)
    ]
    assert min(times) < HELP_SECONDS


def test_version_is_the_project_s(run: Run) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert run("--version").stdout == f"tuner {project['version']}\n"
    assert package.__version__ == project["version"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [(["studdy"], "study"), (["study", "shwo", "x"], "show"), (["worker", "strat"], "start")],
)
def test_a_mistyped_command_is_guessed(run: Run, words: list[str], hint: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert f'; did you mean "{hint}"? (see: tuner' in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("study list --jsn", 'unknown option "--jsn"; did you mean "--json"? (see: tuner study list --help)'),
        ("study list --xyz", 'unknown option "--xyz" (see: tuner study list --help)'),
        ("--xyz study", 'unknown option "--xyz" (see: tuner --help)'),
        ("compare", 'unknown command "compare" (see: tuner --help)'),
        ("trial show tickets abc", 'N must be a whole number, got "abc" (see: tuner trial show --help)'),
        ("study set x --trials many", '--trials must be a whole number, got "many" (see: tuner study set --help)'),
        ("study watch x --interval no", '--interval must be a number, got "no" (see: tuner study watch --help)'),
        ("study watch x --interval 0", '--interval must be at least 0.1, got "0" (see: tuner study watch --help)'),
        ("dashboard --port 99999", '--port must be 65,535 at most, got "99999" (see: tuner dashboard --help)'),
        ("dashboard --port", "--port needs a value (see: tuner dashboard --help)"),
        (
            "trial show x 1 --recipe json",
            '--recipe must be one of yaml, python, got "json" (see: tuner trial show --help)',
        ),
        ("study show", "NAME is missing (see: tuner study show --help)"),
        ("study show a b", '"b" is more than this command takes (see: tuner study show --help)'),
        ("study list --json=3", "--json takes no value (see: tuner study --help)"),
    ],
)
def test_a_wrong_usage_is_one_plain_line(run: Run, words: str, line: str) -> None:
    result = run(*words.split())
    assert result.exit_code == 2
    assert result.stderr == f"error: {line}\n"
    assert result.stdout == ""


def test_a_noun_alone_shows_its_commands(run: Run) -> None:
    result = run("study")
    assert result.exit_code == 2
    assert "Commands:" in result.stderr + result.stdout


def test_an_expected_error_is_one_line_and_no_traceback(run: Run, finished: str) -> None:
    result = run("study", "show", "playd", "--storage", finished)
    assert result.exit_code == 4
    assert result.stderr == 'error: no study "playd"; did you mean "played"? (tuner study list)\n'
    assert result.stdout == ""


def test_debug_shows_the_traceback_and_keeps_the_status(tmp_path: Path, finished: str) -> None:
    for words, env in ((["--debug"], {}), ([], {"TUNER_DEBUG": "1"})):
        done = tuner(*words, "study", "show", "playd", "--storage", finished, cwd=tmp_path, env=env)
        assert done.returncode == 4
        assert "Traceback" in done.stderr
        assert done.stderr.splitlines()[-1].startswith('error: no study "playd"')


def _break(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let ``tuner study list`` raise an error from inside."""

    def _raise(*_: object) -> None:
        raise error

    monkeypatch.setattr("tuner.store.location.storage_url", _raise)


def test_an_unexpected_error_names_a_file_without_passwords(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TUNER_STORAGE", "postgresql://tuner:s3cr3tPW%40@db/tuner")
    monkeypatch.setenv("HF_TOKEN", "hf_c4n4ry")
    _break(monkeypatch, RuntimeError("cannot open postgresql://tuner:s3cr3tPW%40@db/tuner with hf_c4n4ry"))
    result = run("study", "list")
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert "s3cr3tPW" not in result.stderr
    file = Path(result.stderr.splitlines()[0].rpartition(" ")[2])
    text = file.read_text(encoding="utf-8")
    assert "RuntimeError: cannot open postgresql://***@db/tuner with ***" in text
    assert "s3cr3tPW" not in text
    assert file.stat().st_mode & 0o077 == 0


def test_ctrl_c_is_status_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _break(monkeypatch, KeyboardInterrupt())
    result = run("study", "list")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr


def test_ctrl_c_ends_a_watch(tmp_path: Path, sqlite_url: str) -> None:
    open_study(sqlite_url)
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "study", "watch", "played", "--storage", sqlite_url],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "study played is searching" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors_text = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors_text


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, finished: str) -> None:
    command = (
        f"{sys.executable} -m tuner study trials played --json --storage {finished} | true; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_terminal_escapes_in_names_are_not_printed(run: Run) -> None:
    result = run("study", "show", "a\x1b[31m\u202eb", "--storage", "sqlite:///none.db")
    assert "\x1b" not in result.stderr
    assert "\u202e" not in result.stderr


def test_output_off_a_terminal_has_no_colours(tmp_path: Path, finished: str) -> None:
    done = tuner("doctor", "--skip-torch", "--storage", finished, cwd=tmp_path)
    assert "\x1b" not in done.stdout + done.stderr


def test_commands_of_a_study_are_those_of_the_help(run: Run) -> None:
    names = {command.name or command.callback.__name__ for command in study.app.registered_commands if command.callback}
    assert names == {
        "check",
        "create",
        "list",
        "show",
        "watch",
        "best",
        "pause",
        "resume",
        "stop",
        "set",
        "enqueue",
        "trials",
        "report",
        "delete",
        "schema",
    }


def test_json_is_ascii_and_strict(run: Run, finished: str) -> None:
    text = run("study", "trials", "played", "--json", "--storage", finished).stdout
    assert text.isascii()

    def _refuse(name: str) -> None:
        raise AssertionError(name)

    assert json.loads(text, parse_constant=_refuse)["schema_version"] == 1
