"""Devices that are not well: found out, left alone, looked at again, and used again when they are.

A CUDA error ends its process, not the device, and a trial may bring one about; but a device that is broken ends every trial. So
after such an error, after a hang, and before the first trial a GPU is checked in a short-lived process of its own
(:mod:`tuner.training.device_check`), and one that three different runs in a row broke on is given a rest whatever the check says. A
runner that dies without a word may be its configuration's fault: only the check decides then.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuner.worker.events import Event, Notice
from tuner.worker.slot import Slot, environment_of

MOST_FAILURES = 3
_AGAIN_SECONDS = 600.0
_CHECK_SECONDS = 300.0  # torch from a slow network disk takes minutes to load

_VMSTAT = Path("/proc/vmstat")
_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def kernel_kills() -> int | None:
    """How many processes of this control group, or of this machine, the kernel has killed for lack of memory.

    Returns:
        A count that only ever grows; None where the kernel does not tell.
    """
    for path in (*_counters(), _VMSTAT):
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        for name, _, count in (line.partition(" ") for line in lines):
            if name == "oom_kill" and count.isdigit():
                return int(count)
    return None


def _counters() -> list[Path]:
    """The files of this process's control group that may count: of version 2, then of version 1."""
    try:
        lines = _GROUPS.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in sorted(lines):
        _, controllers, group = line.split(":", 2)
        if not controllers:
            found.insert(0, _MOUNT / group.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(_MOUNT / "memory" / group.lstrip("/") / "memory.oom_control")
            found.append(_MOUNT / "memory" / "memory.oom_control")  # in a container the group's own path is hidden
    return found


class Check:
    """One look at a device, in a process of its own."""

    def __init__(self, slot: Slot, *, module: str) -> None:
        """Begin.

        Raises:
            OSError: If no process can be started.
        """
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the check
        self._deadline = time.monotonic() + _CHECK_SECONDS
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.DEVNULL,
            env=environment_of(slot.place),
            start_new_session=True,  # Ctrl-C goes to the supervisor alone
        )

    def result(self) -> str | None:
        """What is wrong with the device, empty if it is well; None while the check goes on."""
        status = self._process.poll()
        if status is None:
            if time.monotonic() < self._deadline:
                return None
            self.close()
            return f"a check did not end within {_CHECK_SECONDS:.0f} s"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        self._said.close()
        if status == 0:
            return ""
        return lines[-1] if lines else f"a check ended with status {status}"

    def close(self) -> None:
        """End it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._said.close()


@dataclass(kw_only=True, slots=True)
class _Device:
    """What is known of one device.

    Attributes:
        slots: Its shares.
        is_due: Whether it is to be checked before it is used.
        check: That goes on now.
        breaks: Runs that ended with an error of the device, since the last one that ended well.
        deaths: Runs whose runner died without a word, likewise.
        reason: Why it is left alone; empty if it is not.
        again_at: Monotonic time of the next check while it is left alone.
    """

    slots: list[Slot]
    is_due: bool
    check: Check | None = None
    breaks: set[int] = field(default_factory=set)
    deaths: set[int] = field(default_factory=set)
    reason: str = ""
    again_at: float = 0.0


class Health:
    """Watches over the devices of one worker; :attr:`Slot.out_of_use` says which of them it leaves alone."""

    def __init__(self, *, module: str, show: Callable[[Event], None], tell: Callable[..., None]) -> None:
        """Nothing is watched yet.

        Args:
            module: What checks a device.
            show: Takes notices.
            tell: Stores what has changed: ``devices`` in words, the ``kind`` and the ``text`` of the event; called by
                :meth:`report` alone.
        """
        self._module, self._show, self._tell = module, show, tell
        self._devices: dict[str, _Device] = {}
        self._untold: list[tuple[str, str]] = []

    def watch(self, slots: Sequence[Slot]) -> None:
        """Watch over the devices of these slots; GPUs are checked before they are used."""
        for slot in slots:
            device = self._devices.setdefault(slot.place.device, _Device(slots=[], is_due=not slot.place.is_cpu))
            device.slots.append(slot)
            slot.out_of_use = "it is checked first" if device.is_due else ""

    def broke(self, slot: Slot, *, run: int, reason: str) -> None:
        """A run ended with an error of the device."""
        device = self._devices[slot.place.device]
        device.breaks.add(run)
        if len(device.breaks) >= MOST_FAILURES:
            self._leave_alone(
                device, f"{len(device.breaks)} runs in a row ended with its errors, the last with: {reason}"
            )
        else:
            device.is_due = True

    def hung(self, slot: Slot) -> None:
        """A runner had to be ended because it hung; a GPU may be the reason."""
        if not slot.place.is_cpu:
            self._devices[slot.place.device].is_due = True

    def died(self, slot: Slot, *, run: int) -> None:
        """A runner died without a word."""
        device = self._devices[slot.place.device]
        device.deaths.add(run)
        device.is_due = device.is_due or len(device.deaths) >= MOST_FAILURES

    def worked(self, slot: Slot) -> None:
        """A run ended well."""
        device = self._devices[slot.place.device]
        device.breaks.clear()
        device.deaths.clear()

    def look(self) -> None:
        """Begin the checks that are due, and draw the conclusions of those that are over. Returns at once."""
        for device in self._devices.values():
            if device.check is not None and (reason := device.check.result()) is not None:
                device.check = None
                self._conclude(device, reason)
            is_due = device.is_due or (device.reason and time.monotonic() >= device.again_at)
            if device.check is None and is_due and all(slot.job is None for slot in device.slots):
                device.is_due = False
                device.again_at = time.monotonic() + _AGAIN_SECONDS
                try:
                    device.check = Check(device.slots[0], module=self._module)
                except OSError as error:  # the box has no room for another process: it has none for a runner
                    self._conclude(device, f"cannot check it: {error.strerror}")
            for slot in device.slots:
                checked = "it is checked" if device.is_due or device.check is not None else ""
                slot.out_of_use = device.reason or checked

    def report(self) -> None:
        """Tell the database what has changed.

        Raises:
            UnavailableError: If it cannot be reached; call again later.
        """
        while self._untold:
            kind, text = self._untold[0]
            slots = [(slot.name, device.reason) for device in self._devices.values() for slot in device.slots]
            self._tell(
                devices=[f"{name} (out of use)" if reason else name for name, reason in slots], kind=kind, text=text
            )
            del self._untold[0]

    def close(self) -> None:
        """End the checks that go on."""
        for device in self._devices.values():
            if device.check is not None:
                device.check.close()
                device.check = None

    def _conclude(self, device: _Device, reason: str) -> None:
        if reason:
            self._leave_alone(device, reason)
            return
        device.deaths.clear()  # it was not the device
        if device.reason:
            name = _name(device)
            device.reason = ""
            device.breaks.clear()
            self._say("info", "device_readmitted", f"{name} is well again and is used")

    def _leave_alone(self, device: _Device, reason: str) -> None:
        device.is_due = False
        device.again_at = time.monotonic() + _AGAIN_SECONDS
        is_news = not device.reason
        device.reason = reason
        if is_news:
            fix = (
                "see free memory and the log of the runner"
                if device.slots[0].place.is_cpu
                else ("see nvidia-smi and Xid lines in dmesg, reset the GPU or restart the box")
            )
            text = (
                f"{_name(device)} is out of use: {reason}; {fix}; it is checked again every {_AGAIN_SECONDS / 60:g} min"
            )
            self._say("error", "device_quarantined", text)

    def _say(self, level: str, kind: str, text: str) -> None:
        self._show(Notice(level=level, text=text))
        self._untold.append((kind, text))


def _name(device: _Device) -> str:
    return device.slots[0].name.rpartition("/")[0]
