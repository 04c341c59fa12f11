"""``python -m tuner.launch.leash PID COMMAND...``: a command that ends when the process that started it does.

The kernel sends the command a SIGTERM when its parent dies, however it dies; a worker then drains. It also ignores SIGUSR1 and
SIGUSR2: schedulers send them to every process of a job shortly before its time is over, and their default is death.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_IGNORED = (signal.SIGUSR1, signal.SIGUSR2)


def words(command: Sequence[str]) -> list[str]:
    """What to start so that a command is leashed to this process.

    Args:
        command: Its program, by its full path, and its arguments.
    """
    return [sys.executable, "-m", "tuner.launch.leash", str(os.getpid()), *command]


def main(arguments: Sequence[str]) -> NoReturn:
    """Become the command; what is set here outlives the exec.

    Args:
        arguments: The parent's process number, then the command.
    """
    parent, *command = arguments
    for ignored in _IGNORED:
        signal.signal(ignored, signal.SIG_IGN)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        sys.exit(f"cannot leash {command[0]}: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):
        sys.exit(f"process {parent} ended before {command[0]} began")
    os.execv(command[0], command)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])
