"""Whether a device computes and remembers: a few exact sums in a process that is over in seconds.

Run by a worker as ``python -m tuner.training.device_check``, in the environment of a runner of that device. Exit status 0 if the
device is well; else the last line on the standard output says what is wrong with it.
"""

from __future__ import annotations

import os

from tuner.errors import first_line

_ROWS = 512
_BYTES = 256 * 2**20
_GIB = 2**30


def why_unwell(*, device: str, needs: int = _BYTES) -> str:
    """What is wrong with a device; empty if it is well.

    Args:
        device: ``cuda`` or ``cpu``.
        needs: Bytes that it must have to spare.
    """
    import torch

    if device == "cuda":
        if not torch.cuda.is_available():
            return "torch sees no CUDA device"
        free, total = torch.cuda.mem_get_info()
        if free < needs:
            return f"only {free / _GIB:.1f} of its {total / _GIB:.0f} GiB are free: other processes hold the rest"
    # Small whole numbers: exact in every precision that a device may choose for such a product, so equality is the test.
    generator = torch.Generator().manual_seed(7)
    one, other = (torch.randint(-8, 9, (_ROWS, _ROWS), generator=generator).float() for _ in range(2))
    if not torch.equal((one.to(device) @ other.to(device)).cpu(), one @ other):
        return "a product of two matrices was wrong"
    pattern = torch.arange(needs // 8, dtype=torch.int64, device=device)
    last = len(pattern) - 1
    if int(pattern.sum()) != last * (last + 1) // 2:
        return "its memory does not keep what is written to it"
    return ""


def main() -> int:
    """Check the device of this environment."""
    device = "cuda" if os.environ.get("CUDA_VISIBLE_DEVICES") else "cpu"
    try:
        reason = why_unwell(device=device)
    except Exception as error:  # noqa: BLE001 - in whatever way it does not work
        reason = first_line(error)
    os.write(1, f"{reason or 'well'}\n".encode())
    return int(bool(reason))


if __name__ == "__main__":
    # At once: a process whose device is broken may hang while it takes its context down.
    os._exit(main())
