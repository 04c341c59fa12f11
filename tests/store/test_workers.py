"""Who is dead and who is not, told by a neighbour on the same box."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tuner.store import workers
from tuner.store.database import Database
from tuner.store.workers import Identity, when_started

linux = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="there is no /proc here")


@pytest.fixture
def db(sqlite_url: str) -> Iterator[Database]:
    with Database.open(sqlite_url, create=True) as database:
        yield database


def register(db: Database, identity: Identity) -> list[str]:
    """The ids on the list then: a worker that enters takes its dead neighbours off."""
    workers.register(db, identity, devices=["cpu/0"], version="1", lease=60.0)
    return [one.worker for one in workers.list_workers(db)]


@linux
def test_a_step_of_the_boxs_clock_buries_nobody(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(db, Identity.of_this_process("early"))
    words = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    later = [f"btime {int(line.split()[1]) + 3600}" if line.startswith("btime") else line for line in words]
    (tmp_path / "stat").write_text("\n".join(later), encoding="ascii")  # what the kernel says after a step by an hour
    (tmp_path / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    began = psutil.Process().create_time()
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert psutil.Process(os.getpid()).create_time() == pytest.approx(began + 3600, abs=5)
    assert register(db, Identity.of_this_process("late")) == ["early", "late"]


def test_a_pid_that_another_process_has_by_now_is_a_death(db: Database) -> None:
    here = Identity.of_this_process("here")
    register(db, replace(here, worker="earlier", process_started=here.process_started + 1.0))
    assert register(db, here) == ["here"]


def test_a_process_that_is_gone_is_a_death(db: Database) -> None:
    with _sleeper([sys.executable, "-c", "input()"]) as pid:
        neighbour = replace(Identity.of_this_process("gone"), pid=pid, process_started=when_started(pid))
        assert register(db, neighbour) == ["gone"]
        assert register(db, Identity.of_this_process("here")) == ["gone", "here"]
    with pytest.raises(psutil.NoSuchProcess):
        when_started(pid)
    assert register(db, Identity.of_this_process("next")) == ["here", "next"]


@pytest.mark.parametrize(("earlier", "left"), [(0.0, ["older", "here"]), (100.0, ["here"])])
def test_what_an_older_tuner_entered_is_compared_by_the_boxs_clock(
    db: Database, earlier: float, left: list[str]
) -> None:
    here = Identity.of_this_process("here")
    register(db, replace(here, worker="older", process_started=psutil.Process().create_time() - earlier))
    assert register(db, here) == left


@linux
def test_a_programs_name_may_hold_blanks_and_brackets(tmp_path: Path) -> None:
    program = tmp_path / "a) 1 (b c"
    shutil.copy(str(shutil.which("sleep")), program)
    with _sleeper([str(program), "60"]) as pid:
        assert "a) 1 (b c" in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        seconds = -when_started(pid) / os.sysconf("SC_CLK_TCK")
        assert seconds + psutil.boot_time() == pytest.approx(psutil.Process(pid).create_time(), abs=5)


@contextmanager
def _sleeper(command: list[str]) -> Iterator[int]:
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        try:
            yield child.pid
        finally:
            child.kill()
            child.wait()
