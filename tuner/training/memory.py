"""Memory that runs out, devices that break: how torch says so, and what can be done inside the process.

Torch's words and classes differ by version, device and library. What is recognised here was said by torch 2.4 to 2.13. Torch is not
loaded for it: who has not loaded it cannot have been told.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import re
import resource
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_NO_MEMORY = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"
    r"|DefaultCPUAllocator|std::bad_alloc"
    r"|could not (create|execute) a (primitive|memory object)"  # oneDNN, which does not say why
)
_NO_ROOM_TO_LOAD = re.compile(r"failed to map segment|[Cc]annot allocate memory")
_BROKEN = re.compile(r"CUDA error|device-side assert|CUBLAS_STATUS_|CUDNN_STATUS_|cuDNN error|NCCL error|Xid")

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)

_GIB = 2**30
_TIMES, _BEYOND = 1.5, _GIB
_WARM_UP = 2  # runs after which the caches are filled
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU, in torch's CPU allocator or for the operating system."""
    if isinstance(error, MemoryError) or _is_of_torch(error, "OutOfMemoryError"):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if isinstance(error, ImportError):
        return _NO_ROOM_TO_LOAD.search(str(error)) is not None
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None


def _is_of_torch(error: BaseException, name: str) -> bool:
    return any(kind.__name__ == name and kind.__module__.startswith("torch") for kind in type(error).__mro__)


def is_broken_device(error: BaseException) -> bool:
    """Whether an exception says that a CUDA context is lost: every later call of the process fails then, whatever it does.

    An illegal address, a failed assertion on the device, a hardware error. Newer torch has a class for it, older a plain
    RuntimeError. What ran out of memory is none.
    """
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return _is_of_torch(error, "AcceleratorError") or _BROKEN.search(str(error)) is not None


def free_what_is_free(device: torch.device) -> None:
    """Give back what torch keeps for later."""
    if device.type == "cuda":
        _torch().cuda.empty_cache()


def forget_process_peak() -> None:
    """Let the peak resident set count from what is resident now, where the operating system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def process_peak() -> int:
    """Bytes: the process's peak resident set since :func:`forget_process_peak`, or since it began where that is not kept."""
    with contextlib.suppress(OSError):
        found = _PEAK.search(Path("/proc/self/status").read_text(encoding="ascii", errors="replace"))
        if found is not None:
            return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_so_far() -> int:
    """Bytes of the run that goes on in this process: on CUDA the allocator's peak, else the process's."""
    torch = sys.modules.get("torch")  # who has not loaded it trains without it
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return process_peak()


def _torch() -> Any:
    import torch

    return torch


def in_parts(batches: list[Tensor], work: Callable[[Tensor], Tensor], *, device: torch.device) -> list[Tensor]:
    """Work on batches of rows that are independent of each other; one that does not fit into the memory is halved.

    Args:
        batches: Row numbers of each.
        work: Gives one result for each row of a batch, (rows, ...).
        device: Where it works.

    Returns:
        The results, together in the order of the batches' rows.

    Raises:
        RuntimeError: If a single row does not fit, as torch says it.
    """
    waiting, done = deque(batches), []
    while waiting:
        rows = waiting.popleft()
        try:
            done.append(work(rows))
            continue
        except (RuntimeError, MemoryError) as error:
            if len(rows) < 2 or not is_out_of_memory(error):
                raise
        # Outside of the handler: the exception's frames hold what is to be freed.
        free_what_is_free(device)
        waiting.extendleft(reversed(rows.split(-(-len(rows) // 2))))
    return done


def device_kind() -> str:
    """The device that this process trains on and its memory in GiB: what a size that fits is remembered for.

    Returns:
        Empty where the device does not even tell that; its first run will say why.
    """
    cuda = _torch().cuda
    if cuda.is_available():
        try:
            device = cuda.get_device_properties(0)
        except RuntimeError:
            return ""
        return f"{device.name}, {device.total_memory / _GIB:.0f} GiB"
    return f"cpu, {host_memory() / _GIB:.0f} GiB"


def host_memory() -> int:
    """Bytes of memory that this process may use at most: the machine's, or its control group's."""
    found = [psutil.virtual_memory().total]
    for limit in _LIMITS:
        try:
            found.append(int(limit.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such group, or no limit: "max"
            continue
    return min(found)


class LeakWatch:
    """Whether a process keeps more and more from trial to trial.

    The level after the second trial is what a warm process needs. One that is later more than half above it and a GiB,
    although it has given back everything it could, has leaked, and a fresh one is cheaper than finding out where.
    """

    def __init__(self) -> None:
        """No trial yet."""
        self._runs = 0
        self._levels: tuple[int, int] = (0, 0)

    def look(self) -> str:
        """Measure after a trial.

        Returns:
            What grew, in words; empty while all is well.
        """
        self._runs += 1
        found = _levels()
        if self._runs <= _WARM_UP:
            self._levels = found
            return ""
        if not self._growth(found):
            return ""
        give_back()
        return self._growth(_levels())

    def _growth(self, found: tuple[int, int]) -> str:
        for what, before, now in zip(("memory", "GPU memory"), self._levels, found, strict=True):
            if now > _TIMES * before + _BEYOND:
                return f"its {what} grew from {before / _GIB:.1f} to {now / _GIB:.1f} GiB over {self._runs - _WARM_UP} trials"
        return ""


def _levels() -> tuple[int, int]:
    """Bytes: resident, and reserved on the GPU."""
    torch = sys.modules.get("torch")
    reserved = torch.cuda.memory_reserved() if torch is not None and torch.cuda.is_initialized() else 0
    return psutil.Process().memory_info().rss, reserved


def give_back() -> None:
    """Let the operating system and the GPU have what this process keeps for later and does not use."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
