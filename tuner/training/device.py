"""The device of a trial: which one, in what precision, and what it reports about memory."""

from __future__ import annotations

import importlib.metadata
import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from hashlib import sha256

import torch

from tuner.errors import ConfigurationError
from tuner.training.memory import forget_process_peak, give_back, process_peak


@dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """Where and how exactly a trial computes.

    Attributes:
        device: The torch device.
        dtype: The dtype of autocast; float32 means no autocast.
    """

    device: torch.device
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """Name for people, such as ``NVIDIA H100 80GB HBM3`` or ``cpu``."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision while it is entered; nothing in float32."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """The gradient scaler that float16 needs; does nothing in the other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)


def choose_compute(precision: str) -> Compute:
    """The first visible CUDA device, else the CPU.

    Args:
        precision: ``auto`` (bf16 where a CUDA device has it, else fp32), ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        ConfigurationError: If the precision does not exist on this device.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if precision == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return Compute(device=device, dtype=torch.bfloat16 if has_bf16 else torch.float32)
    if precision == "fp16" and device.type == "cpu":
        raise ConfigurationError("fp16 needs a CUDA device, and none is visible", fix="use precision: auto")
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return Compute(device=device, dtype=dtypes[precision])


def seed_everything(seed: int, *purpose: str | int) -> None:
    """Seed torch on all devices from a seed and a purpose, such as ``("dropout", epoch)``.

    The state of a generator is never saved: every epoch starts from its own seed, so a resumed run draws what an
    uninterrupted one would have drawn.
    """
    torch.manual_seed(derived_seed(seed, *purpose))


def random_state(device: torch.device) -> tuple[torch.Tensor, ...]:
    """Where the generators stand that a step on a device draws from."""
    state = torch.get_rng_state()
    return (state,) if device.type == "cpu" else (state, torch.cuda.get_rng_state(device))


def set_random_state(state: tuple[torch.Tensor, ...], device: torch.device) -> None:
    """Put the generators back to where :func:`random_state` found them."""
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)


def use_threads(count: int) -> None:
    """Compute with so many threads: sums that are split over more of them differ in their last digits."""
    torch.set_num_threads(count)


def circumstances() -> dict[str, object]:
    """What decides over the last digits besides the plan, the rows and the weights."""
    names = ("torch", "transformers", "peft", "tokenizers", "numpy")
    return {
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names},
    }


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose; different purposes are independent."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(sha256(text.encode()).digest()[:8]) >> 1


def start_measuring_memory(device: torch.device) -> None:
    """Let :func:`peak_memory` count from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        give_back()  # what earlier trials have freed is still resident, and would count
        forget_process_peak()


def peak_memory(device: torch.device) -> int:
    """Bytes since :func:`start_measuring_memory`: on CUDA the allocator's peak, else the process's peak resident set."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else process_peak()
