"""PyTorch and the GPUs, seen by a process of its own: this one never imports torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tuner.cli.checkup.finding import Finding, Level
from tuner.terminal import clean

_GIB = 2**30
_TORCH_SECONDS = 180
_TORCH = """
import json, torch
facts = {"version": torch.__version__, "cuda": torch.version.cuda, "gpus": []}
for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    free, total = torch.cuda.mem_get_info(index)
    torch.ones(8, device=f"cuda:{index}").sum().item()
    facts["gpus"].append({"name": torch.cuda.get_device_name(index), "free": free, "total": total,
                          "bf16": torch.cuda.is_bf16_supported()})
print(json.dumps(facts))
"""


def check_torch() -> Iterator[Finding]:
    """PyTorch and the GPUs, seen by a process of its own: this one never imports torch."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _TORCH],
            capture_output=True,
            text=True,
            timeout=_TORCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        text = f"PyTorch did not answer within {_TORCH_SECONDS} s"
        yield Finding(name="torch", level=Level.FAIL, text=text, fix="look at the GPU: nvidia-smi", status=69)
        return
    if done.returncode != 0:
        lines = clean(done.stderr).strip().splitlines()
        text = f"PyTorch does not work: {lines[-1] if lines else f'status {done.returncode}'}"
        yield Finding(name="torch", level=Level.FAIL, text=text, fix="pip install --force-reinstall torch", status=69)
        return
    yield from torch_findings(json.loads(done.stdout.splitlines()[-1]))


def torch_findings(facts: dict[str, Any]) -> Iterator[Finding]:
    """What the process with torch saw, in words."""
    if not facts["gpus"]:
        text = f"torch {facts['version']} sees no GPU: trials run on the CPU"
        fix = "on a GPU box look at nvidia-smi and CUDA_VISIBLE_DEVICES"
        if not facts["cuda"]:
            fix = "on a GPU box install a CUDA build of torch"
        yield Finding(name="gpu", level=Level.WARN, text=text, fix=fix)
        return
    for index, gpu in enumerate(facts["gpus"]):
        text = f"cuda:{index} {gpu['name']}, {gpu['free'] / _GIB:.1f} of {gpu['total'] / _GIB:.1f} GiB free"
        text += ", bf16" if gpu["bf16"] else ", no bf16"
        if gpu["free"] < 0.5 * gpu["total"]:
            yield Finding(name="gpu", level=Level.WARN, text=text, fix="another program uses it: nvidia-smi")
        else:
            yield Finding(name="gpu", level=Level.OK, text=text)
